-- Everything of the embedded back end, in one file. Times are milliseconds since 1970.

-- What waits in the queues, and what is in hand. The body comes last: whoever reads what stands
-- before it does not read it. holder is -1 for nobody, else the consumer's number in this process.
create table message (
  id integer primary key,
  queue text not null,
  holder integer not null,
  handed integer not null, -- times it was handed out
  available_at integer not null,
  message_id text not null,
  reply_address text,
  reply_correlation text,
  headers text not null,
  body blob not null
);
create index message_next on message (holder, queue, available_at);

create table notification (
    -- Derived from (origin, scope, user) or from (origin, submission, user), so the primary key is
    -- also the unique key of a scope.
    id          blob primary key,
    user        text not null,
    origin      text not null,
    scope       text,
    topic       text,
    title       text not null,
    description text,
    severity    integer not null,              -- 0 critical, 1 high, 2 normal, 3 low
    link        text,
    icon        text,
    metadata    text,
    created     integer not null,
    updated     integer,
    read        integer,
    saved       integer,
    submission  blob not null,                 -- what last made it: its revision
    accepted_at integer not null               -- when that was accepted
) strict;
create index notification_list on notification (user, created desc, id desc);
-- The inbox opens on what is unread, however much has been read.
create index notification_unread on notification (user, created desc, id desc) where read is null;
create index notification_saved on notification (user, created desc, id desc) where saved is not null;

-- One row for each notification to everybody.
create table broadcast (
    id          blob primary key,
    origin      text not null,
    scope       text,
    topic       text,
    title       text not null,
    description text,
    severity    integer not null,
    link        text,
    icon        text,
    metadata    text,
    created     integer not null,
    updated     integer,
    submission  blob not null,
    accepted_at integer not null
) strict;
create index broadcast_list on broadcast (created desc, id desc);

-- What a person did with a broadcast.
create table broadcast_mark (
    user      text not null,
    broadcast blob not null references broadcast (id) on delete cascade,
    read      integer,
    saved     integer,
    primary key (user, broadcast)
) strict, without rowid;
create index broadcast_mark_broadcast on broadcast_mark (broadcast);

-- What a person has, changed in the transaction that changes the rows. The row of `*` holds in
-- `total` how many broadcasts there are.
create table inbox_count (
    user            text primary key,
    unread          integer not null default 0,
    total           integer not null default 0,
    broadcasts_read integer not null default 0
) strict, without rowid;

-- One row for each persisted chunk: the timeline, and all that its deliveries need to be made
-- again.
create table submission_chunk (
    submission    blob not null,
    no            integer not null,
    of            integer not null,
    origin        text not null,
    key           text,
    via           text not null,
    digest        text not null,
    accepted_at   integer not null,
    started_at    integer not null,
    stored_at     integer not null,
    broadcast     integer not null,
    payload       text not null,
    patches       text,                         -- notification id -> what differs from payload
    notifications blob not null,                -- ids of the inbox rows it made, 16 bytes each
    stored        integer not null,
    superseded    integer not null,
    muted         integer not null,
    dropped       integer not null,
    refs          text not null,
    notes         text not null,
    ignored       text not null default '[]',   -- digests of other bodies under the same key
    primary key (submission, no)
) strict;
create index submission_chunk_suffix on submission_chunk (substr(hex(submission), 25));
create index submission_chunk_age on submission_chunk (accepted_at);

-- One row for each (notification, revision, channel, target).
create table delivery (
    id           blob primary key,
    submission   blob not null,
    chunk        integer not null,
    notification blob not null,
    user         text,                          -- null: for everybody, or once per submission
    channel      text not null,
    target       text not null,
    parent       blob,                          -- the delivery that was expanded into this one
    state        text not null,
    attempts     integer not null default 0,
    due_at       integer not null,              -- pending: its next try; claimed: the lease's end
    sweep_at     integer not null,              -- when the sweep counts it as due
    claim_token  blob,
    doubtful     integer not null default 0,    -- a holder vanished and may have sent it
    reason       text,
    detail       text,
    provider_id  text,
    failed_at    integer,                       -- its last try that failed
    failure      text,                          -- and what it said
    created_at   integer not null,
    updated_at   integer not null
) strict;
create index delivery_submission on delivery (submission, chunk);
create index delivery_sweep on delivery (channel, sweep_at) where state in ('pending', 'claimed');
create index delivery_state on delivery (channel, state, updated_at);
create index delivery_failed on delivery (channel, failed_at) where failed_at is not null;

-- Messages that were given up.
create table dead_letter (
    id          integer primary key autoincrement,
    message     text not null unique,
    stage       text not null,
    reason      text not null,
    detail      text not null,
    tries       integer not null,
    died_at     integer not null,
    submission  blob,
    origin      text,
    deliveries  blob not null,                  -- ids, 16 bytes each
    headers     text not null,
    body        blob not null,
    replayed_at integer
) strict;
create index dead_letter_age on dead_letter (died_at);
create index dead_letter_submission on dead_letter (submission) where submission is not null;

-- What people switched on and off. Source of the shape: the peer's user_settings.
create table setting (
    user    text not null,
    channel text not null,
    origin  text not null,
    topic   text,
    enabled integer not null
) strict;
create unique index setting_key on setting (user, channel, origin, topic) where topic is not null;
create unique index setting_origin on setting (user, channel, origin) where topic is null;

-- API tokens; only their hashes.
create table token (
    hash      text primary key,
    subject   text not null,
    scopes    text not null,                    -- JSON
    created   integer not null,
    expires   integer,
    last_used integer
) strict, without rowid;

-- Running processes, by their heartbeats.
create table process (
    id         blob primary key,
    role       text not null,
    host       text not null,
    pid        integer not null,
    version    text not null,
    admin      text,
    trouble    text not null,                   -- JSON
    started_at integer not null,
    seen_at    integer not null
) strict, without rowid;

-- The lowest schema that a program must know to use this file. A migration that an older program
-- can live with leaves it alone; one that it cannot live with sets it to its own number.
pragma user_version = 1;
