-- Endpoints with fates of their own (webhooks) that fail now, or were disabled. One that is well has
-- no row.
create table endpoint (
    channel       text not null,
    name          text not null,
    version       text not null,                -- another one: it was configured anew
    failing_since integer not null,
    failed_at     integer not null,
    reason        text not null,
    detail        text not null,
    disabled_at   integer,
    primary key (channel, name)
) strict, without rowid;
