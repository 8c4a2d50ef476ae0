-- What each program may do, and nothing else. In the database of Tidings, after every migration,
-- as the owner of its tables or a superuser; running it again does no harm:
--
--   psql -f deploy/postgres/grants.sql tidings

revoke all on all tables in schema public
    from tidings_ingest, tidings_decorator, tidings_sender, tidings_inbox;
revoke create on schema public from public;
grant usage on schema public
    to tidings_ingest, tidings_decorator, tidings_sender, tidings_inbox;

-- Everybody: is the schema new enough? I am alive.
grant select on schema_history
    to tidings_ingest, tidings_decorator, tidings_sender, tidings_inbox;
grant select, insert, update, delete on process
    to tidings_ingest, tidings_decorator, tidings_sender, tidings_inbox;

-- Everybody: whom Backstage may believe. The keys are public; ingest only shows them.
grant select on plugin_key to tidings_ingest;
grant select, insert, update, delete on plugin_key
    to tidings_decorator, tidings_sender, tidings_inbox;

-- ingest: who calls? Of a token it may only note that it was used.
grant select, update (last_used) on token to tidings_ingest;

-- decorator: persists, finds what is stranded, files what died, deletes what is too old.
grant select, insert, update, delete on notification, broadcast to tidings_decorator;
grant select, insert, update on inbox_count to tidings_decorator;
grant select, update, delete on broadcast_mark to tidings_decorator;
grant select, insert, update, delete on submission_chunk, delivery, dead_letter
    to tidings_decorator;
grant select on setting to tidings_decorator;
grant select, insert on secret to tidings_decorator;

-- sender: claims, records, expands; files the letters that come of it. It reads no inbox.
grant select, insert, update on delivery to tidings_sender;
grant select, insert on dead_letter to tidings_sender;
grant select on channel_pause to tidings_sender;
grant select (submission, no, accepted_at) on submission_chunk to tidings_sender;
grant select, insert, update on rate to tidings_sender;
grant select, insert, update, delete on endpoint to tidings_sender;

-- inbox: reads and marks; settings; for operators, timelines, dead letters and tokens.
grant select, update on notification to tidings_inbox;
grant select on broadcast, submission_chunk to tidings_inbox;
grant select, insert, update on broadcast_mark, inbox_count to tidings_inbox;
grant select, update on delivery to tidings_inbox;
grant select, update, delete on dead_letter to tidings_inbox;
grant select, insert, update, delete on setting, token to tidings_inbox;
grant select, delete on endpoint to tidings_inbox;
grant select, insert, delete on channel_pause to tidings_inbox;
