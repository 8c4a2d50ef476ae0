-- What a person may switch on and off: the origins and topics of their notifications, read from
-- the index alone, however many there are.
create index notification_origin on notification (user, origin, topic);
create index broadcast_topic on broadcast (topic) where topic is not null;
