# amcheck over the leaves after a load of every kind: what is inserted straight
# into a heap must be in its indexes.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use EsyncTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
plan skip_all => 'amcheck is not there'
  if $node->safe_psql('postgres', q(SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck')) eq '0';
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION amcheck;
CREATE EXTENSION esync;
CREATE TABLE item (id int PRIMARY KEY, a text, big text);
SELECT esync_enable('item');
CREATE TABLE thin (id int PRIMARY KEY, a text, big text);
SELECT esync_enable('thin', payload => 'changes');
-- what a DBA may add to a leaf is kept up, too
CREATE INDEX by_user ON esync.event_1 (user_id);
CREATE INDEX late ON esync.event_1 (commit_timestamp) WHERE version > 1;
CREATE INDEX patched ON esync.event_1 USING gin (patch);
CREATE INDEX lower_type ON esync.event_2 (lower(event_type));
ALTER TABLE esync.event_2 ADD CHECK (version > 0);
CREATE TABLE seen (event_id bigint);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (NEW.event_id); RETURN NULL; END $$;
CREATE TRIGGER see AFTER INSERT ON esync.event_2 FOR EACH ROW EXECUTE FUNCTION see();
SQL
install_checks($node, 'postgres');
for my $table ('item', 'thin')
{
	$node->safe_psql('postgres', <<"SQL");
INSERT INTO $table SELECT i, 'a' || i, CASE WHEN i % 100 = 0 THEN (SELECT string_agg(md5(j::text || i), '') FROM generate_series(1, 200) j) END
FROM generate_series(1, 3000) i;
BEGIN; UPDATE $table SET a = 'rolled back'; ROLLBACK;
BEGIN; SAVEPOINT s; UPDATE $table SET a = 'rolled back' WHERE id < 500; ROLLBACK TO s; UPDATE $table SET a = a || '+' WHERE id < 500; COMMIT;
UPDATE $table SET id = id + 10000 WHERE id % 7 = 0;
DELETE FROM $table WHERE id % 5 = 0;
INSERT INTO $table SELECT i * 5, 'again' FROM generate_series(1, 300) i ON CONFLICT (id) DO UPDATE SET a = 'conflict';
VACUUM $table;
SQL
}
my $checked = $node->safe_psql('postgres', <<'SQL');
SELECT indexrelid::regclass FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
WHERE indrelid IN ('esync.event_1'::regclass, 'esync.event_2'::regclass) AND amname = 'btree' ORDER BY 1::text
SQL
is(scalar(split /\n/, $checked), 7, 'all btrees are checked');
for my $index (split /\n/, $checked)
{
	my ($rc, $out, $err) = $node->psql('postgres', "SELECT bt_index_check('$index', true)");
	is($err, '', "$index is whole");
}
is($node->safe_psql('postgres', q(SELECT * FROM verify_heapam('esync.event_1'))), '', 'the heap of a leaf is whole');
is($node->safe_psql('postgres', q(SELECT * FROM verify_heapam('esync.event_2'))), '', 'and of the other');
is( $node->safe_psql('postgres', q(
	SET enable_seqscan = off; SELECT count(*) = (SELECT count(*) FROM esync.event_1 WHERE patch::text LIKE '%/a%') FROM esync.event_1
	WHERE patch @> '[{"path": "/a"}]')), 't', 'a GIN index of the DBA finds all');
is( $node->safe_psql('postgres', q(
	SET enable_seqscan = off; SET enable_bitmapscan = on;
	SELECT count(*) FROM esync.event_1 WHERE event_id > 0)),
	$node->safe_psql('postgres', q(SELECT count(*) FROM esync.event_1)), 'the BRIN index leaves none out');
is( $node->safe_psql('postgres', q(SELECT (SELECT count(*) FROM seen) = (SELECT count(*) FROM esync.event_2))), 't', 'a trigger of the DBA saw all');
faults_are_none($node, 'postgres', 'nothing is wrong');
$node->stop;
done_testing();
