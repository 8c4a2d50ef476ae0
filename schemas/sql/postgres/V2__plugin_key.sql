-- The public keys of our own plugin tokens. Each process signs with a key that it alone holds, and
-- keeps the public half here, so that whichever process is asked can say whom to believe.
create table plugin_key (
    kid  text collate "C" primary key,
    jwk  json not null,
    ends timestamptz not null                   -- no token that it signed holds longer
);
