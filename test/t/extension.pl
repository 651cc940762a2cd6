# DROP EXTENSION and CREATE EXTENSION, also into a schema of its own and with an
# empty search_path.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION esync;
CREATE TABLE item (id int PRIMARY KEY, a text, changed timestamptz);
SELECT esync_enable('item', last_modified => '{changed}');
INSERT INTO item VALUES (1, 'x');
CREATE TABLE idle (id int PRIMARY KEY);
SELECT esync_enable('idle');
INSERT INTO idle VALUES (1);
SELECT esync_disable('idle');
SQL

# a session that has everything of the extension in its caches
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe(q(UPDATE item SET a = 'y'));

my ($rc, $out, $err) = $node->psql('postgres', 'DROP EXTENSION esync');
isnt($rc, 0, 'DROP EXTENSION refuses while a table is enabled');
like($err, qr/trigger 0_esync_capture on table item depends on function esync\.capture\(\)/, 'and says why');
is($node->safe_psql('postgres', q(SELECT count(*) FROM esync.event)), '3', 'nothing is lost by that');

# the way to keep the history
$node->safe_psql('postgres', 'ALTER TABLE esync.event DETACH PARTITION esync.event_2; CREATE SCHEMA kept; ALTER TABLE esync.event_2 SET SCHEMA kept');
($rc, $out, $err) = $node->psql('postgres', 'DROP EXTENSION esync CASCADE');
is($rc, 0, 'CASCADE takes triggers and history away');
is( $node->safe_psql('postgres', <<'SQL'), '0|0|0|0', 'nothing of it is left');
SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%esync%'), (SELECT count(*) FROM pg_proc WHERE proname LIKE '%esync%'),
	(SELECT count(*) FROM pg_namespace WHERE nspname = 'esync'), (SELECT count(*) FROM pg_event_trigger)
SQL
is($node->safe_psql('postgres', 'SELECT aggregate_id, event_type FROM kept.event_2'), '1|Created', 'but what was detached');
$node->safe_psql('postgres', q(UPDATE item SET a = 'works'; INSERT INTO item VALUES (2, 'z'); DELETE FROM item WHERE id = 1));
is($node->safe_psql('postgres', 'SELECT id, a FROM item'), '2|z', 'the table goes on working');
is($session->query(q(UPDATE item SET a = 'z2' RETURNING a)), 'z2', 'also in a session that knew the extension');
$node->safe_psql('postgres', 'DROP TABLE idle');

# again, elsewhere
$node->safe_psql('postgres', q(CREATE SCHEMA "Tools"; CREATE EXTENSION esync SCHEMA "Tools"));
is( $node->safe_psql('postgres', <<'SQL'), '', 'nothing of it lies outside its schemas');
SELECT p.oid::regprocedure FROM pg_proc AS p JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension AS x ON d.refobjid = x.oid AND x.extname = 'esync'
WHERE p.pronamespace NOT IN ('esync'::regnamespace, '"Tools"'::regnamespace)
SQL
$node->safe_psql('postgres', <<'SQL');
SET search_path = '';
SELECT "Tools".esync_enable('public.item');
UPDATE public.item SET a = 'again';
INSERT INTO public.item VALUES (3, 'three');
SQL
is($session->query(q(UPDATE item SET a = 'session' WHERE id = 3 RETURNING a)), 'session', 'the old session finds the new extension');
is( $node->safe_psql('postgres', <<'SQL'), <<'WANT' =~ s/\n\z//r, 'all functions work with an empty search_path');
SET search_path = '';
SELECT "Tools".esync_context(user_id => 'anna');
SELECT field, version, value FROM "Tools".field_history('public.item', 3, 'a');
SELECT version, event_type FROM "Tools".esync_history('public.item', 3);
SELECT version, state->'a' FROM "Tools".esync_replay('public.item', 3);
SELECT "Tools".esync_state('public.item', 3)->'a', "Tools".esync_version('public.item', 3);
SELECT count(*) > 1 FROM "Tools".esync_timeline('public.item', 3);
SELECT count(*) > 1 FROM "Tools".esync_graph('public.item', 3);
SELECT id, a FROM "Tools".esync_as_of(NULL::public.item, 'infinity') ORDER BY 1;
SELECT "Tools".esync_row('public.item', '3')->'row'->'a';
SELECT tbl, events FROM "Tools".esync_status();
SELECT * FROM "Tools".esync_verify('public.item');
SQL

a|2|"session"
a|1|"three"
1|Created
2|Updated
1|"three"
2|"session"
"session"|2
t
t
2|again
3|session
"session"
public.item|4
WANT
$node->safe_psql('postgres', q(SET search_path = ''; SELECT "Tools".esync_disable('public.item', true)));
$node->safe_psql('postgres', 'DROP EXTENSION esync');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal'), '0', 'without history it can be dropped plainly');
$session->quit;
$node->stop;
done_testing();
