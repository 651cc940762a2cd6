# Tables of a million rows are enabled without being read, under the lock of
# CREATE TRIGGER; long sessions do not grow.

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
$node->append_conf('postgresql.conf', "max_wal_size = 2GB\nautovacuum = off\nlog_statement = none\n");
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION esync;
CREATE TABLE big (id int PRIMARY KEY, a text);
INSERT INTO big SELECT i, 'a' FROM generate_series(1, 1000000) AS i;
CREATE TABLE other (id int PRIMARY KEY, a text);
INSERT INTO other SELECT i, 'a' FROM generate_series(1, 50000) AS i;
SQL
install_checks($node, 'postgres');

is( $node->safe_psql('postgres', <<'SQL'), <<'WANT' =~ s/\n\z//r, 'enabling a million rows reads and rewrites nothing');
CREATE TEMP TABLE before AS SELECT pg_relation_filenode('big') AS node, pg_current_xact_id() AS xid;
BEGIN;
SELECT FROM esync_enable('big') \g /dev/null
SELECT 'scans', seq_scan, idx_scan, seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'big';
SELECT 'same file', node = pg_relation_filenode('big') FROM before;
SELECT 'lock', string_agg(DISTINCT mode, ' ') FROM pg_locks WHERE relation = 'big'::regclass AND pid = pg_backend_pid()
	AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock');
SELECT 'exclusive', count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'AccessExclusiveLock'
	AND relation IN ('big'::regclass, 'other'::regclass, 'esync.event'::regclass, 'esync.tracked_table'::regclass);
COMMIT;
SELECT 'events', count(*) FROM esync.event;
SQL
scans|0|0|0
same file|t
lock|ShareRowExclusiveLock
exclusive|0
events|0
WANT
is( $node->safe_psql('postgres', <<'SQL'), <<'WANT' =~ s/\n\z//r, 'a second call, and disabling, do as little');
BEGIN;
SELECT FROM esync_enable('big', notify => true) \g /dev/null
SELECT FROM esync_disable('big') \g /dev/null
SELECT 'scans', seq_scan, idx_scan, seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'big';
ROLLBACK;
UPDATE big SET a = 'b' WHERE id = 777;
SELECT version, event_type FROM esync.event ORDER BY event_id;
SELECT * FROM esync_verify('big', '777');
SQL
scans|0|0|0
1|Baseline
2|Updated
WANT
is( $node->safe_psql('postgres', <<'SQL'), <<'WANT' =~ s/\n\z//r, 'with baseline every row has its ground');
SELECT FROM esync_enable('other', baseline => true) \g /dev/null
SELECT count(*), count(DISTINCT aggregate_id), min(version), max(version), min(event_type), bool_and(effective_timestamp = '-infinity')
FROM esync.event WHERE table_id = (SELECT table_id FROM esync.tracked_table WHERE table_name = 'other');
SELECT count(*) FROM other JOIN esync.event ON aggregate_id = id::text AND payload = to_jsonb(other)
WHERE table_id = (SELECT table_id FROM esync.tracked_table WHERE table_name = 'other');
SELECT FROM esync_enable('other', baseline => true) \g /dev/null
SELECT count(*) FROM esync.event WHERE table_id = (SELECT table_id FROM esync.tracked_table WHERE table_name = 'other');
SQL
50000|50000|1|1|Baseline|t
50000
50000
WANT

# What is too much for one page comes in two; and where what a row was set to and what its author said of it are
# together too much for any, nobody is kept from what comes behind.
is( $node->safe_psql('postgres', <<'SQL'), <<'WANT' =~ s/\n\z//r, 'changes of huge rows are told');
CREATE TABLE huge (id int PRIMARY KEY, a text);
SELECT FROM esync_enable('huge') \g /dev/null
INSERT INTO huge VALUES (1), (2);
SELECT esync_changes('now')->>'cursor' AS c \gset
UPDATE huge SET a = repeat('x', 5000000) WHERE id = 2;
UPDATE huge SET a = repeat('x', 130000000) WHERE id = 1;
UPDATE huge SET a = repeat('x', 135000000) WHERE id = 1;
UPDATE huge SET a = 'x' WHERE id = 2;
CREATE TEMP TABLE page AS WITH RECURSIVE page AS (
	SELECT 1 AS n, esync_changes(:'c') AS p
	UNION ALL SELECT n + 1, esync_changes(p->>'cursor') FROM page WHERE (p->>'has_more')::boolean)
SELECT * FROM page;
SELECT n, c->'aggregate_id', c->'version', length(c->'set'->>'a'), jsonb_typeof(c->'patch')
FROM page, jsonb_array_elements(p->'changes') AS c ORDER BY n, c->'event_id';
DROP TABLE huge;
SQL
1|"2"|2|5000000|array
2|"1"|2|130000000|array
3|"1"|3|135000000|null
4|"2"|3|1|array
WANT

# an unlogged table is tracked, its stream is logged
$node->safe_psql('postgres', <<'SQL');
CREATE UNLOGGED TABLE swift (id int PRIMARY KEY, a text);
SELECT esync_enable('swift');
INSERT INTO swift VALUES (1, 'x'), (2, 'x');
UPDATE swift SET a = 'y' WHERE id = 1;
SQL
faults_are_none($node, 'postgres', 'nothing is wrong with an unlogged table');
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', 'SELECT count(*) FROM swift'), '0', 'a crash empties it');
is($node->safe_psql('postgres', q(SELECT problem, count(*) FROM esync_verify('swift') GROUP BY 1)), 'row missing|2', 'verify tells that the rows are gone');
$node->safe_psql('postgres', q(INSERT INTO swift VALUES (1, 'z'), (3, 'z')));
is( $node->safe_psql('postgres', q(SELECT version, event_type FROM esync_history('swift', 1))),
	"1|Created\n2|Updated\n3|Deleted\n4|Created", 'and so does the stream when the key comes back');

# a long session: 20,000 statements, each with a context of its own, leave no memory behind
my $dir = PostgreSQL::Test::Utils::tempdir;
my $memory = <<'SQL';
SELECT sum(total_bytes) FROM pg_backend_memory_contexts;
SQL
my $n = 0;
my $statements = sub {
	return join '', map {
		$n++;
		$n % 4 == 0
		  ? "BEGIN; SELECT esync_context(user_id => 'user $n', device_id => 'device', submit_timestamp => '2025-01-01Z', base_version => 1, meta => '{\"n\": $n}') \\g /dev/null\nUPDATE other SET a = 'n$n' WHERE id = $n % 100 + 1; COMMIT;\n"
		  : $n % 4 == 1 ? "UPDATE big SET a = 'n$n' WHERE id = $n % 100 + 1;\n"
		  : $n % 4 == 2 ? "SELECT count(*) FROM field_history('other', $n % 100 + 1, 'a') LIMIT 1 \\g /dev/null\n"
		  : "BEGIN; SAVEPOINT s; UPDATE other SET a = 'x$n' WHERE id = $n % 100 + 1; ROLLBACK TO s; UPDATE other SET a = 'n$n' WHERE id = $n % 100 + 1; COMMIT;\n"
	} 1 .. $_[0];
};
append_to_file("$dir/long.sql", $statements->(2000) . $memory . $statements->(20000) . $memory);
my ($early, $late) = split /\n/, $node->safe_psql('postgres', slurp_file("$dir/long.sql"));
cmp_ok($late, '<', $early + 100_000, "20,000 statements leave no memory behind ($early, then $late bytes)");
$node->stop;
done_testing();
