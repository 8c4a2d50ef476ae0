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
  id blob primary key,
  user text not null,
  origin text not null,
  scope text,
  topic text,
  title text not null,
  description text,
  severity integer not null,
  link text,
  icon text,
  metadata text,
  created integer not null,
  updated integer,
  read integer,
  saved integer,
  submission blob not null,
  accepted_at integer not null
) without rowid;
create unique index notification_scope on notification (user, origin, scope) where scope is not null;
create index notification_inbox on notification (user, created desc, id desc);
create index notification_submission on notification (submission);

create table broadcast (
  id blob primary key,
  origin text not null,
  scope text,
  topic text,
  title text not null,
  description text,
  severity integer not null,
  link text,
  icon text,
  metadata text,
  created integer not null,
  updated integer,
  submission blob not null,
  accepted_at integer not null
) without rowid;
create unique index broadcast_scope on broadcast (origin, scope) where scope is not null;
create index broadcast_created on broadcast (created desc, id desc);

create table broadcast_mark (
  user text not null,
  broadcast_id blob not null references broadcast (id) on delete cascade,
  read integer,
  saved integer,
  primary key (user, broadcast_id)
) without rowid;
create index broadcast_mark_of on broadcast_mark (broadcast_id);

-- The row of user '*' counts the broadcasts.
create table inbox_count (
  user text primary key,
  unread integer not null default 0,
  total integer not null default 0,
  broadcasts_read integer not null default 0
) without rowid;

create table submission_chunk (
  submission blob not null,
  no integer not null,
  of integer not null,
  origin text not null,
  key text,
  via text not null,
  digest text not null,
  accepted_at integer not null,
  started_at integer not null,
  stored_at integer not null,
  broadcast integer not null,
  payload text not null,
  patches text,
  stored integer not null,
  superseded integer not null,
  muted integer not null,
  dropped integer not null,
  ignored integer not null default 0,
  refs text not null,
  notes text not null,
  suffix text not null,
  primary key (submission, no)
) without rowid;
create index submission_chunk_suffix on submission_chunk (suffix, accepted_at desc);
create index submission_chunk_age on submission_chunk (accepted_at);

create table delivery (
  id blob primary key,
  submission blob not null,
  chunk integer not null,
  origin text not null,
  notification blob not null,
  user text,
  channel text not null,
  target text not null,
  state text not null,
  attempts integer not null default 0,
  lease_until integer,
  claim_token blob,
  doubtful integer not null default 0,
  next_at integer,
  due_at integer,
  reason text,
  detail text,
  provider_id text,
  created_at integer not null,
  updated_at integer not null
) without rowid;
create index delivery_submission on delivery (submission, channel, state);
create index delivery_due on delivery (channel, due_at) where state in ('pending', 'claimed');
create index delivery_updated on delivery (channel, state, updated_at);

create table dead_letter (
  id integer primary key autoincrement,
  message text not null unique,
  stage text not null,
  reason text not null,
  detail text not null,
  tries integer not null,
  died_at integer not null,
  submission blob,
  origin text,
  deliveries text not null,
  headers text not null,
  body blob not null,
  replayed_at integer
);
create index dead_letter_submission on dead_letter (submission);
create index dead_letter_died on dead_letter (died_at);

create table setting (
  user text not null,
  channel text not null,
  origin text not null,
  topic text,
  enabled integer not null
);
create unique index setting_key on setting (user, channel, origin, coalesce(topic, ''));

create table token (
  hash text primary key,
  subject text not null,
  scopes text not null,
  created integer not null,
  expires integer,
  last_used integer
) without rowid;

create table process (
  id blob primary key,
  body text not null,
  seen_at integer not null
) without rowid;
