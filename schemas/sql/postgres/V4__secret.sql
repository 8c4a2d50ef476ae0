-- Secrets of the installation, made by whoever needs one first.
create table secret (
    name  text collate "C" primary key,
    value bytea not null
);
