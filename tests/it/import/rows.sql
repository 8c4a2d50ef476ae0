-- `rows` notifications of a thousand people, a hundredth of it broadcasts with marks, and
-- `settings` settings.

insert into notification
select gen_random_uuid(), 'user:default/p' || n % 1000, 'number ' || n,
 case when n % 3 = 0 then 'text of ' || n end, (array['critical', 'high', 'normal', 'low'])[n % 4 + 1],
 case when n % 5 = 0 then '/' || n end, 'plugin:o' || n % 7,
 case when n % 10 = 0 then 'scope ' || n end, case when n % 2 = 0 then 't' || n % 9 end,
 now() - n * interval '1 minute',
 case when n % 10 = 0 then now() - n * interval '50 seconds' end,
 case when n % 3 = 1 then now() - n * interval '40 seconds' end,
 case when n % 11 = 0 then now() - n * interval '30 seconds' end,
 case when n % 6 = 0 then 'docs' end, case when n % 8 = 0 then '{"build":' || n || '}' end
from generate_series(1, :rows) n;

insert into broadcast (id, title, severity, origin, created)
select gen_random_uuid(), 'to all ' || n, 'normal', 'plugin:announcements',
 now() - n * interval '1 hour'
from generate_series(1, :rows / 100) n;

insert into broadcast_user_status
select id, 'user:default/p' || p,
 case when p % 2 = 0 then created + interval '1 minute' end,
 case when p % 3 = 0 then created + interval '2 minutes' end
from broadcast, generate_series(1, 5) p;

insert into user_settings
select 'user:default/p' || n / 50, (array['Web', 'Email'])[n % 2 + 1], 'plugin:o' || n / 2 % 5,
 n % 3 > 0, case when n / 10 % 5 > 0 then 't' || n / 10 % 5 end,
 encode(sha256(n::text::bytea), 'hex')
from generate_series(0, :settings - 1) n;
