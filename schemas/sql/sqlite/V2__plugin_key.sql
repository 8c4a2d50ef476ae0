-- The public keys of our own plugin tokens. Each process signs with a key that it alone holds, and
-- keeps the public half here, so that a token outlives the process that signed it.
create table plugin_key (
    kid  text primary key,
    jwk  text not null,
    ends integer not null                       -- no token that it signed holds longer
) strict, without rowid;
