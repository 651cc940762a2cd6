# Logical replication: what a subscription applies is captured where the DBA
# says so with ENABLE ALWAYS, and not otherwise.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use EsyncTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $pub = PostgreSQL::Test::Cluster->new('publisher');
my $sub = PostgreSQL::Test::Cluster->new('subscriber');
$pub->init(allows_streaming => 'logical');
$sub->init(allows_streaming => 'logical');
$_->start for ($pub, $sub);
for my $node ($pub, $sub)
{
	$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION esync;
CREATE TABLE item (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('item');
SQL
	install_checks($node, 'postgres');
}
$pub->safe_psql('postgres', q(INSERT INTO item VALUES (1, 'first', 'x'), (2, 'first', 'x'); CREATE PUBLICATION items FOR TABLE item));
my $from = $pub->connstr . ' dbname=postgres';
$sub->safe_psql('postgres', "CREATE SUBSCRIPTION items CONNECTION '$from application_name=items' PUBLICATION items");
$sub->wait_for_subscription_sync($pub, 'items');

# The events of the subscriber, one a line.
sub events
{
	return $sub->safe_psql('postgres', <<'SQL');
SELECT aggregate_id, version, event_type, patch, flags & 32 AS drift FROM esync.event ORDER BY aggregate_id, version
SQL
}

is(events(), '', 'the first copy of the table is not captured');
$pub->safe_psql('postgres', q(UPDATE item SET a = 'second'; INSERT INTO item VALUES (3, 'first', 'x')));
$pub->wait_for_catchup('items');
is($sub->safe_psql('postgres', 'SELECT * FROM item ORDER BY id'), "1|second|x\n2|second|x\n3|first|x", 'rows come');
is(events(), '', 'applied changes are not captured by default');
is($pub->safe_psql('postgres', 'SELECT count(*) FROM esync.event'), '5', 'where they were made they are');

# a local write, then an applied one, then a local one: what came between is told late
$sub->safe_psql('postgres', q(UPDATE item SET b = 'local' WHERE id = 1));
$pub->safe_psql('postgres', q(UPDATE item SET a = 'third' WHERE id = 1));
$pub->wait_for_catchup('items');
is($sub->safe_psql('postgres', 'SELECT problem FROM esync_verify($$item$$)'), 'row differs', 'verify tells of it');
$sub->safe_psql('postgres', q(UPDATE item SET b = 'local again' WHERE id = 1));
is(events(), <<'EVENTS' =~ s/\n\z//r, 'and so does a Baseline');
1|1|Baseline|[]|0
1|2|Updated|[{"op": "replace", "path": "/b", "value": "local"}]|0
1|3|Baseline|[{"op": "replace", "path": "/a", "value": "third"}, {"op": "replace", "path": "/b", "value": "x"}]|32
1|4|Updated|[{"op": "replace", "path": "/b", "value": "local again"}]|0
EVENTS
faults_are_none($sub, 'postgres', 'nothing is wrong then');

# captured where the DBA wants it
$sub->safe_psql('postgres', <<'SQL');
ALTER TABLE item ENABLE ALWAYS TRIGGER "0_esync_capture";
ALTER TABLE item ENABLE ALWAYS TRIGGER "0_esync_truncate";
SQL
$pub->safe_psql('postgres', <<'SQL');
BEGIN;
UPDATE item SET a = 'fourth' WHERE id = 2;
UPDATE item SET a = 'fifth' WHERE id = 2;
INSERT INTO item VALUES (4, 'new', 'x');
COMMIT;
DELETE FROM item WHERE id = 3;
SQL
$pub->wait_for_catchup('items');
is( $sub->safe_psql('postgres', <<'SQL'), <<'EVENTS' =~ s/\n\z//r, 'with ENABLE ALWAYS they are captured');
SELECT aggregate_id, version, event_type, patch, db_role IS NOT NULL FROM esync.event WHERE aggregate_id <> '1' ORDER BY aggregate_id, version
SQL
2|1|Baseline|[]|t
2|2|Updated|[{"op": "replace", "path": "/a", "value": "fourth"}]|t
2|3|Updated|[{"op": "replace", "path": "/a", "value": "fifth"}]|t
3|1|Baseline|[]|t
3|2|Deleted|[]|t
4|1|Created|[]|t
EVENTS
faults_are_none($sub, 'postgres', 'and nothing is wrong');
# calling esync_enable again does not undo the DBA's choice
$sub->safe_psql('postgres', q(SELECT esync_enable('item', notify => true)));
is( $sub->safe_psql('postgres', q(SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'item'::regclass ORDER BY 1)),
	"0_esync_capture|A\n0_esync_merge|O\n0_esync_truncate|A", 'esync_enable leaves ALWAYS alone');
$pub->safe_psql('postgres', 'TRUNCATE item');
$pub->wait_for_catchup('items');
is( $sub->safe_psql('postgres', 'SELECT count(*), max(version) FROM esync.event WHERE event_type = $$Deleted$$'),
	'4|5', 'TRUNCATE is told row by row');
faults_are_none($sub, 'postgres', 'nothing is wrong after it');
unlike(slurp_file($sub->logfile), qr/ERROR/, 'no worker of the subscriber failed');

# a session in the role of a replica
$sub->safe_psql('postgres', <<'SQL');
DROP SUBSCRIPTION items;
ALTER TABLE item ENABLE TRIGGER "0_esync_capture";
SET session_replication_role = replica;
INSERT INTO item VALUES (9, 'replica', 'x');
SQL
is($sub->safe_psql('postgres', q(SELECT count(*) FROM esync.event WHERE aggregate_id = '9')), '0', 'a replica fires nothing');
$sub->safe_psql('postgres', q(UPDATE item SET a = 'origin' WHERE id = 9));
is($sub->safe_psql('postgres', q(SELECT string_agg(event_type, ' ' ORDER BY version) FROM esync.event WHERE aggregate_id = '9')),
	'Baseline Updated', 'the next write lays the ground');
$_->stop for ($sub, $pub);
done_testing();
