-- What was sent before to the same target for a scope, which a sender may change in place.
create index delivery_earlier on delivery (notification, channel, target, updated_at)
    where state = 'sent' and provider_id is not null;
