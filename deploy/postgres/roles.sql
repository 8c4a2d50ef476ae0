-- Roles for Tidings on PostgreSQL: one that owns and changes the schema, one for each program.
-- Once per cluster, as a superuser:
--
--   psql -f deploy/postgres/roles.sql postgres
--   createdb --owner=tidings_migrate --template=template0 --encoding=UTF8 tidings
--   psql -c '\password tidings_migrate'        -- and so for each role
--   tidings migrate                            -- with tidings.store.url as tidings_migrate
--   psql -f deploy/postgres/grants.sql tidings -- after every migration
--
-- The programs never create tables when they run under these roles: they check the schema and
-- wait in /readyz until `tidings migrate` has run. Whoever prefers one role for everything makes
-- it the owner of the database and needs neither file.

do $$
declare
    name text;
begin
    foreach name in array array[
        'tidings_migrate', 'tidings_ingest', 'tidings_decorator', 'tidings_sender', 'tidings_inbox'
    ] loop
        if not exists (select from pg_roles where rolname = name) then
            execute format('create role %I login nosuperuser nocreatedb nocreaterole', name);
        end if;
    end loop;
    -- A program that was stopped in the middle of a transaction shall not keep its locks. The
    -- store itself gives up on a statement after 30 s.
    foreach name in array array[
        'tidings_ingest', 'tidings_decorator', 'tidings_sender', 'tidings_inbox'
    ] loop
        execute format('alter role %I set idle_in_transaction_session_timeout = ''60s''', name);
    end loop;
end
$$;
