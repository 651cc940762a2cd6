# Clients at all isolation levels on a handful of keys, each taking its locks in
# the order of keys, while a DBA switches, renames and vacuums: every stream
# stays whole, and nothing fails but what fails without esync.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use EsyncTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "log_statement = none\nlog_line_prefix = '%e '\ndeadlock_timeout = 100ms\nautovacuum_naptime = 1s\n");
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION esync;
CREATE TABLE item (id int PRIMARY KEY, a text, n int NOT NULL DEFAULT 0);
CREATE TABLE thin (id text, part int, n int, big text, PRIMARY KEY (id, part));
CREATE TABLE parts (id int NOT NULL, region text, n int) PARTITION BY LIST (region);
CREATE TABLE parts_eu (n int, gone text, region text, id int NOT NULL);
ALTER TABLE parts_eu DROP gone;
ALTER TABLE parts ATTACH PARTITION parts_eu FOR VALUES IN ('eu');
CREATE TABLE parts_us PARTITION OF parts FOR VALUES IN ('us');
CREATE TABLE parent (id int PRIMARY KEY, n int);
CREATE TABLE child (id int PRIMARY KEY, parent_id int REFERENCES parent ON DELETE CASCADE, n int);
INSERT INTO item SELECT i FROM generate_series(1, 4) AS i;
INSERT INTO parts SELECT i, 'eu', 0 FROM generate_series(1, 4) AS i;
SELECT esync_enable('item'), esync_enable('thin', payload => 'changes'), esync_enable('parts', key => '{id}'),
	esync_enable('parent'), esync_enable('child', notify => true);
SQL
install_checks($node, 'postgres');

my $dir = PostgreSQL::Test::Utils::tempdir;
my %scripts = (
	update => 'UPDATE item SET n = n + 1 WHERE id = :k;',
	delete => 'DELETE FROM item WHERE id = :k;',
	further => 'DELETE FROM item WHERE id = :k + 100;',
	upsert => q(INSERT INTO item VALUES (:k, 'new') ON CONFLICT (id) DO UPDATE SET a = 'upsert', n = item.n + 1;),
	merge => q(MERGE INTO item USING (VALUES (:k)) AS v (id) ON item.id = v.id WHEN MATCHED AND n % 3 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET n = n + 1;),
	cycle => q(BEGIN; DELETE FROM item WHERE id = :k; SAVEPOINT s; INSERT INTO item VALUES (:k, 'lost') ON CONFLICT DO NOTHING; ROLLBACK TO s;
		INSERT INTO item VALUES (:k, 'cycle') ON CONFLICT DO NOTHING; UPDATE item SET n = 9 WHERE id = :k; COMMIT;),
	rollback => q(BEGIN; UPDATE item SET a = 'rolled back' WHERE id = :k; DELETE FROM item WHERE id = :k; ROLLBACK;),
	move => q(DO $$ BEGIN UPDATE item SET id = id + 100 WHERE id = :k; EXCEPTION WHEN unique_violation THEN NULL; END $$;),
	repeatable => q(BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM item; UPDATE item SET n = n + 1 WHERE id = :k;
		INSERT INTO item VALUES (:k + 100, 'rr') ON CONFLICT DO NOTHING; COMMIT;),
	serializable => q(BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT n FROM item WHERE id = :k; UPDATE item SET n = n + 1 WHERE id = :k; COMMIT;),
	thin => q(INSERT INTO thin VALUES ('key', :k, 1) ON CONFLICT (id, part) DO UPDATE SET n = thin.n + 1, big = repeat(md5(:l::text), 200);),
	thinner => q(BEGIN; DELETE FROM thin WHERE part = :k AND n % 5 = 0; INSERT INTO thin VALUES ('key', :k, 0) ON CONFLICT DO NOTHING; COMMIT;),
	region => q(UPDATE parts SET region = CASE region WHEN 'eu' THEN 'us' ELSE 'eu' END, n = n + 1 WHERE id = (:k - 1) % 4 + 1;),
	stay => q(UPDATE parts SET n = n + 1 WHERE id = (:k - 1) % 4 + 1;),
	family => q(BEGIN; INSERT INTO parent VALUES (:k, 0) ON CONFLICT (id) DO UPDATE SET n = parent.n + 1;
		INSERT INTO child VALUES (:l, :k, 0) ON CONFLICT (id) DO NOTHING; COMMIT;),
	cascade => 'DELETE FROM parent WHERE id = :k;',
);
my @files;
for my $name (sort keys %scripts)
{
	# pgbench sends line by line
	my $body = join ";\n", split /;\s*(?=[A-Z])(?![^\$]*\$\$;)/, $scripts{$name};
	$body = $scripts{$name} =~ s/\s+/ /gr if $name eq 'move';
	append_to_file("$dir/$name.sql", "\\set k random(1, 8)\n\\set l random(1, 8)\n$body\n");
	push @files, '-f', "$dir/$name.sql";
}
my ($out, $err);
my $load = IPC::Run::start([ 'pgbench', '-n', '-c', 6, '-j', 2, '-T', 6, @files, $node->connstr('postgres') ], '>', \$out, '2>', \$err);

# meanwhile, the DBA
my $until = time + 5.5;
my $rounds = 0;
while (time < $until)
{
	$node->safe_psql('postgres', <<'SQL');
SET lock_timeout = '5s';
SELECT esync_enable('item', notify => true);
BEGIN; SELECT esync_disable('thin'), esync_enable('thin'); COMMIT;
BEGIN; SELECT esync_disable('item'); ROLLBACK;
ALTER TABLE item ADD extra int DEFAULT 7;
ALTER TABLE item RENAME extra TO more;
ALTER TABLE item DROP more;
SELECT esync_enable('item', notify => false);
CREATE TABLE another (id int PRIMARY KEY);
SELECT esync_enable('another');
INSERT INTO another VALUES (1);
SELECT esync_disable('another', drop_history => true);
DROP TABLE another;
VACUUM item;
SQL
	faults_are_none($node, 'postgres', 'nothing is wrong in the middle') if $rounds++ % 5 == 0;
	usleep(100_000);
}
IPC::Run::finish($load);
unlike($err, qr/aborted/, 'no client gave up');
like($out, qr/number of transactions actually processed: [1-9]\d\d/, 'there was load');
note($out);
cmp_ok($rounds, '>', 1, "the DBA was busy ($rounds rounds)");
my %errors;
$errors{$_}++ for slurp_file($node->logfile) =~ /^(\S+ (?:ERROR|FATAL|PANIC):  .*)/mg;
my @wrong = grep { !/^40001 ERROR:  (could not serialize access due to|tuple to be locked was already moved)|canceling autovacuum task/ } sort keys %errors;
is(join("\n", @wrong), '', 'nothing failed but what fails without esync');
faults_are_none($node, 'postgres', 'nothing is wrong in the end');
is( $node->safe_psql('postgres', <<'SQL'), '', 'the last payloads are the rows');
SELECT * FROM item AS i FULL JOIN (
	SELECT DISTINCT ON (aggregate_id) e.aggregate_id, e.event_type, e.payload
	FROM esync.event AS e JOIN esync.tracked_table AS t USING (table_id) WHERE t.table_name = 'item'
	ORDER BY aggregate_id, version DESC) AS e ON aggregate_id = i.id::text
WHERE CASE event_type WHEN 'Deleted' THEN i.id IS NOT NULL ELSE to_jsonb(i) IS DISTINCT FROM e.payload - 'extra' - 'more' END
SQL
is( $node->safe_psql('postgres', q(SELECT sum(n) || ' ' || count(*) FROM parts)),
	$node->safe_psql('postgres', <<'SQL'), 'moves between partitions lost no update');
SELECT count(*) FILTER (WHERE event_type = 'Updated') || ' ' || count(DISTINCT aggregate_id)
FROM esync.event AS e JOIN esync.tracked_table AS t USING (table_id) WHERE t.table_name = 'parts'
SQL
my $other = $node->safe_psql('postgres', q(SELECT count(*) FROM pg_class WHERE relnamespace = 'esync'::regnamespace AND relname LIKE 'event\_%' AND relkind = 'r'));
is($other, '5', 'dropped histories left no leaf');
$node->stop;
done_testing();
