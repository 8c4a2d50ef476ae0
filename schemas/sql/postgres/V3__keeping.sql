-- What is deleted when it is old, and what is moved over from a Backstage.

-- The age of a notification is that of its last change. What is saved is kept by default, so it
-- has an index of its own: nobody reads past it again and again.
create index notification_age on notification (coalesce(updated, created)) where saved is null;
create index notification_saved_age on notification (coalesce(updated, created))
    where saved is not null;
create index broadcast_age on broadcast (coalesce(updated, created));
create index broadcast_mark_saved on broadcast_mark (broadcast) where saved is not null;

-- A row that was moved over has the id that it had there, and is its own submission. Until its
-- scope is sent again, it is found by this; from then on it has the id of its scope.
create index notification_moved on notification ("user", origin, scope, created desc)
    where scope is not null and submission = id;
create index broadcast_moved on broadcast (origin, scope, created desc)
    where scope is not null and submission = id;

-- How far a move has come; a row is there only while it is not finished.
create table import_progress (
    source text collate "C" primary key,        -- which database, without user and password
    part   text collate "C" not null,           -- what is being copied
    after  text[],                              -- the key of its last row that was
    rows   bigint not null,                     -- how many of them were
    at     timestamptz not null
);
