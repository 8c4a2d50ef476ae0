-- When the next send of a channel with a rate may begin: one row for each, shared by its senders.
create table rate (
    channel text primary key,
    next_at integer not null                    -- microseconds since 1970: many fit into a millisecond
) strict, without rowid;
