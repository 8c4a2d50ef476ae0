-- The tables of Tidings on PostgreSQL 15 and later.
--
-- Names and keys collate "C": they are compared as bytes, which is fast and the same everywhere.
-- Titles and descriptions keep the database's collation, so that searching without case follows
-- its locale. Documents are json, not jsonb: they are handed back exactly as they came.
-- Every moment is kept to the millisecond.

-- One row for each notification of a person. The id is derived from (origin, scope, user) or from
-- (origin, submission, user), so the primary key is also the unique key of a scope.
create table notification (
    id          uuid primary key,
    "user"      text collate "C" not null,
    origin      text collate "C" not null,
    scope       text collate "C",
    topic       text collate "C",
    title       text not null,
    description text,
    severity    smallint not null,              -- 0 critical, 1 high, 2 normal, 3 low
    link        text,
    icon        text,
    metadata    json,
    created     timestamptz not null,
    updated     timestamptz,
    read        timestamptz,
    saved       timestamptz,
    submission  uuid not null,                  -- what last made it: its revision
    accepted_at timestamptz not null            -- when that was accepted
);
create index notification_list on notification ("user", created desc, id desc);
-- The inbox opens on what is unread, however much has been read.
create index notification_unread on notification ("user", created desc, id desc) where read is null;
create index notification_saved on notification ("user", created desc, id desc) where saved is not null;

-- One row for each notification to everybody.
create table broadcast (
    id          uuid primary key,
    origin      text collate "C" not null,
    scope       text collate "C",
    topic       text collate "C",
    title       text not null,
    description text,
    severity    smallint not null,
    link        text,
    icon        text,
    metadata    json,
    created     timestamptz not null,
    updated     timestamptz,
    submission  uuid not null,
    accepted_at timestamptz not null
);
create index broadcast_list on broadcast (created desc, id desc);

-- What a person did with a broadcast.
create table broadcast_mark (
    "user"    text collate "C" not null,
    broadcast uuid not null references broadcast (id) on delete cascade,
    read      timestamptz,
    saved     timestamptz,
    primary key ("user", broadcast)
);
create index broadcast_mark_broadcast on broadcast_mark (broadcast);

-- What a person has, changed in the transaction that changes the rows. The row of `*` holds in
-- `total` how many broadcasts there are.
create table inbox_count (
    "user"          text collate "C" primary key,
    unread          bigint not null default 0,
    total           bigint not null default 0,
    broadcasts_read bigint not null default 0
) with (fillfactor = 70);

-- One row for each persisted chunk: the timeline, and all that its deliveries need to be made
-- again.
create table submission_chunk (
    submission    uuid not null,
    no            integer not null,
    of            integer not null,
    origin        text collate "C" not null,
    key           text collate "C",
    via           text collate "C" not null,
    digest        text collate "C" not null,
    accepted_at   timestamptz not null,
    started_at    timestamptz not null,
    stored_at     timestamptz not null,
    broadcast     boolean not null,
    payload       json not null,
    patches       json,                         -- notification id -> what differs from payload
    notifications uuid[] not null,              -- the inbox rows it made
    stored        integer not null,
    superseded    integer not null,
    muted         integer not null,
    dropped       integer not null,
    refs          json,
    notes         json,
    ignored       text[] not null default '{}', -- digests of other bodies under the same key
    primary key (submission, no)
);
create index submission_chunk_suffix on submission_chunk (right(submission::text, 8));
create index submission_chunk_age on submission_chunk (accepted_at);

-- One row for each (notification, revision, channel, target).
create table delivery (
    id           uuid primary key,
    submission   uuid not null,
    chunk        integer not null,
    notification uuid not null,
    "user"       text collate "C",              -- null: for everybody, or once per submission
    channel      text collate "C" not null,
    target       text not null,
    parent       uuid,                          -- the delivery that was expanded into this one
    state        text collate "C" not null,
    attempts     integer not null default 0,
    due_at       timestamptz not null,          -- pending: its next try; claimed: the lease's end
    sweep_at     timestamptz not null,          -- when the sweep counts it as due
    claim_token  uuid,
    doubtful     boolean not null default false, -- a holder vanished and may have sent it
    reason       text collate "C",
    detail       text,
    provider_id  text,
    failed_at    timestamptz,                   -- its last try that failed
    failure      text,                          -- and what it said
    created_at   timestamptz not null,
    updated_at   timestamptz not null
);
create index delivery_submission on delivery (submission, chunk);
create index delivery_sweep on delivery (channel, sweep_at) where state in ('pending', 'claimed');
create index delivery_state on delivery (channel, state, updated_at);
create index delivery_failed on delivery (channel, failed_at) where failed_at is not null;

-- Messages that were given up.
create table dead_letter (
    id          bigint generated always as identity primary key,
    message     text collate "C" not null unique,
    stage       text collate "C" not null,
    reason      text collate "C" not null,
    detail      text not null,
    tries       integer not null,
    died_at     timestamptz not null,
    submission  uuid,
    origin      text collate "C",
    deliveries  uuid[] not null,
    headers     json not null,
    body        bytea not null,
    replayed_at timestamptz
);
create index dead_letter_age on dead_letter (died_at);
create index dead_letter_submission on dead_letter (submission) where submission is not null;

-- What people switched on and off. Source of the shape: the peer's user_settings.
create table setting (
    "user"  text collate "C" not null,
    channel text collate "C" not null,
    origin  text collate "C" not null,
    topic   text collate "C",
    enabled boolean not null,
    unique nulls not distinct ("user", channel, origin, topic)
);

-- API tokens; only their hashes.
create table token (
    hash      text collate "C" primary key,
    subject   text collate "C" not null,
    scopes    text[] not null,
    created   timestamptz not null,
    expires   timestamptz,
    last_used timestamptz
);

-- Running processes, by their heartbeats.
create table process (
    id         uuid primary key,
    role       text collate "C" not null,
    host       text collate "C" not null,
    pid        bigint not null,
    version    text not null,
    admin      text,
    trouble    text[] not null,
    started_at timestamptz not null,
    seen_at    timestamptz not null
);
