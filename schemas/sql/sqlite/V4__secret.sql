-- Secrets of the installation, made by whoever needs one first.
create table secret (
    name  text primary key,
    value blob not null
) strict, without rowid;
