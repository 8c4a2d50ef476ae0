-- When the next send of a channel with a rate may begin: one row for each, shared by its senders.
create table rate (
    channel text collate "C" primary key,
    next_at timestamptz not null                -- to the microsecond: many fit into a millisecond
);
