-- Channels that an operator has paused: their deliveries wait.
create table channel_pause (
    channel   text collate "C" primary key,
    paused_at timestamptz not null,
    paused_by text collate "C" not null
);
