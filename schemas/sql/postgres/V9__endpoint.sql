-- Endpoints with fates of their own (webhooks) that fail now, or were disabled. One that is well has
-- no row.
create table endpoint (
    channel       text collate "C" not null,
    name          text collate "C" not null,
    version       text collate "C" not null,    -- another one: it was configured anew
    failing_since timestamptz not null,
    failed_at     timestamptz not null,
    reason        text collate "C" not null,
    detail        text not null,
    disabled_at   timestamptz,
    primary key (channel, name)
);
