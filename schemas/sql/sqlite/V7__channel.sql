-- Channels that an operator has paused: their deliveries wait.
create table channel_pause (
    channel   text primary key,
    paused_at integer not null,
    paused_by text not null
) strict, without rowid;
