# The server is killed under load: no acknowledged row without its event, no
# event without its row, and everything in order after recovery.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use EsyncTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "fsync = on\nmax_wal_size = 64MB\ncheckpoint_timeout = 30s\nautovacuum_naptime = 1s\nlog_statement = none\n");
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION esync;
CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL, note text);
CREATE TABLE acks (id int PRIMARY KEY);
INSERT INTO counters SELECT i, 0 FROM generate_series(1, 20) AS i;
SELECT esync_enable('counters', baseline => true), esync_enable('acks');
SQL
install_checks($node, 'postgres');

my $dir = PostgreSQL::Test::Utils::tempdir;
append_to_file("$dir/load.sql", <<'SQL');
\set a random(1, 10)
\set b random(11, 20)
BEGIN;
UPDATE counters SET n = n + 1 WHERE id = :a;
SAVEPOINT s;
UPDATE counters SET note = repeat('lost', 100) WHERE id = :b;
ROLLBACK TO s;
UPDATE counters SET n = n + 1, note = md5(random()::text) WHERE id = :b;
COMMIT;
SQL

for my $round (1 .. 2)
{
	append_to_file("$dir/acks.$round.sql", join('', map { "INSERT INTO acks VALUES ($round * 1000000 + $_) RETURNING id;\n" } 1 .. 100000));
	my $load = IPC::Run::start([ 'pgbench', '-n', '-f', "$dir/load.sql", '-c', 3, '-T', 60, $node->connstr('postgres') ],
		'>', \my $load_out, '2>', \my $load_err);
	my $acks = IPC::Run::start([ 'psql', '-XqAt', '-f', "$dir/acks.$round.sql", $node->connstr('postgres') ],
		'>', "$dir/acked.$round", '2>', \my $ack_err);
	usleep(1_000_000 + 700_000 * $round);
	kill_server($node);
	IPC::Run::finish($_) for ($acks, $load);
	start_killed($node);
	my @acked = split /\n/, slurp_file("$dir/acked.$round");
	cmp_ok(scalar(@acked), '>', 10, "round $round: rows were acknowledged (" . scalar(@acked) . ')');
	my %there = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT id FROM acks');
	is(join(' ', grep { !$there{$_} } @acked), '', "round $round: they are there");
	is($node->safe_psql('postgres', q(SELECT count(*) FROM counters WHERE n > 0)) > 0, 1, "round $round: there was load");
	is( $node->safe_psql('postgres', <<'SQL'), '0|0|0', "round $round: each row has its event and each event its row");
WITH e AS (SELECT e.* FROM esync.event e JOIN esync.tracked_table t USING (table_id) WHERE t.table_name = 'acks')
SELECT (SELECT count(*) FROM acks WHERE NOT EXISTS (SELECT FROM e WHERE e.aggregate_id = acks.id::text)),
	(SELECT count(*) FROM e WHERE NOT EXISTS (SELECT FROM acks WHERE e.aggregate_id = acks.id::text)),
	(SELECT count(*) FROM e WHERE version <> 1 OR event_type <> 'Created')
SQL
	is( $node->safe_psql('postgres', <<'SQL'), '', "round $round: as many events as changes");
SELECT c.id, c.n, count(e.*) FROM counters c
JOIN esync.tracked_table t ON t.table_name = 'counters'
LEFT JOIN esync.event e ON e.table_id = t.table_id AND e.aggregate_id = c.id::text AND e.event_type = 'Updated'
GROUP BY c.id HAVING count(e.*) <> c.n OR bool_or(e.payload->>'note' LIKE 'lost%')
SQL
	faults_are_none($node, 'postgres', "round $round: nothing is wrong");
	is( $node->safe_psql('postgres', q(SELECT nextval('esync.event_id_seq') > max(event_id) FROM esync.event)),
		't', "round $round: ids do not repeat");
}
$node->stop;
done_testing();
