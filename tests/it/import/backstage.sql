-- The tables of Backstage's notifications backend, as the migrations of
-- @backstage/plugin-notifications-backend 0.6.11 make them on PostgreSQL.

create table notification (
    id uuid not null primary key,
    "user" varchar(255) not null,
    title varchar(255) not null,
    description text,
    severity varchar(8) not null,
    link text,
    origin varchar(255) not null,
    scope varchar(255),
    topic varchar(255),
    created timestamptz default current_timestamp not null,
    updated timestamptz,
    read timestamptz,
    saved timestamptz,
    icon varchar(255),
    metadata text
);
create index notification_user_idx on notification ("user");
create index notification_scope_origin_idx on notification (scope, origin);

create table broadcast (
    id uuid not null primary key,
    title varchar(255) not null,
    description text,
    severity varchar(8) not null,
    link text,
    origin varchar(255) not null,
    scope varchar(255),
    topic varchar(255),
    created timestamptz default current_timestamp not null,
    updated timestamptz,
    icon varchar(255),
    metadata text
);
create index broadcast_cope_origin_idx on broadcast (scope, origin);

create table broadcast_user_status (
    broadcast_id uuid not null references broadcast (id) on delete cascade,
    "user" varchar(255) not null,
    read timestamptz,
    saved timestamptz,
    constraint broadcast_user_idx unique (broadcast_id, "user")
);

create table user_settings (
    "user" varchar(255) not null,
    channel varchar(255) not null,
    origin varchar(255) not null,
    enabled boolean default true not null,
    topic varchar(255),
    settings_key_hash varchar(64) not null
);
create index user_settings_user_idx on user_settings ("user");
alter table user_settings add constraint user_settings_unique_idx unique (settings_key_hash);
