# The stream by logical decoding: a second server that subscribes to the
# parent, and to the leaves, gets each event once and those of a row in order,
# through crashes of both; wal2json gives them at least once.

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

my @columns = qw(event_id xid version base_version branch_timestamp submit_timestamp commit_timestamp effective_timestamp
	effective_high device_seq epoch table_id flags row_xmin row_tid event_type aggregate_id user_id device_id db_role
	tenant client_event_id patch payload meta);
my $columns = join ', ', @columns;
# the plain table of the manual; arrived numbers the events as they come
my $plain = <<'SQL';
	event_id bigint %s, xid xid8, version bigint, base_version bigint, branch_timestamp timestamptz,
	submit_timestamp timestamptz, commit_timestamp timestamptz, effective_timestamp timestamptz,
	effective_high timestamptz, device_seq bigint, epoch integer, table_id integer, flags integer, row_xmin xid,
	row_tid tid, event_type text, aggregate_id text, user_id text, device_id text, db_role text, tenant text,
	client_event_id uuid, patch jsonb, payload jsonb, meta jsonb,
	arrived bigint GENERATED ALWAYS AS IDENTITY
SQL

my $pub = PostgreSQL::Test::Cluster->new('publisher');
my $sub = PostgreSQL::Test::Cluster->new('subscriber');
my $dir = PostgreSQL::Test::Utils::tempdir;
$pub->init(allows_streaming => 'logical');
# what is large is streamed before it commits
$pub->append_conf('postgresql.conf', "logical_decoding_work_mem = 64kB\nmax_prepared_transactions = 5\nlog_statement = none\n");
$sub->init(allows_streaming => 'logical');
$sub->append_conf('postgresql.conf', "wal_retrieve_retry_interval = 100ms\nmax_logical_replication_workers = 8\nlog_statement = none\n");
$_->start for ($pub, $sub);
my $all = $pub->connstr . ' dbname=postgres';
my $from = $pub->connstr . ' dbname=postgres user=feed';

# The events of a database, one a line, and whether one is there twice.
sub stream
{
	my ($node, $db, $where, $relation) = @_;
	$where //= 'true';
	$relation //= 'esync.event';
	return $node->safe_psql($db, <<"SQL");
SELECT count(*), count(DISTINCT event_id), md5(string_agg(e::text, E'\\n' ORDER BY event_id))
FROM (SELECT $columns FROM $relation WHERE $where) AS e
SQL
}

# Tests that a subscriber has what the publisher has, rows in the order of their versions.
sub same_stream
{
	my ($what, $where) = @_;
	$pub->wait_for_catchup('stream');
	is(stream($sub, 'postgres', $where), stream($pub, 'postgres', $where), "$what: each event came once");
	is( $sub->safe_psql('postgres', <<'SQL'), '0|0', "$what: those of a row came in order");
SELECT count(*) FILTER (WHERE version <= before), count(*) FILTER (WHERE version <> n)
FROM (SELECT version, lag(version) OVER w AS before, row_number() OVER w AS n FROM esync.event
	WINDOW w AS (PARTITION BY table_id, aggregate_id ORDER BY arrived)) AS e
SQL
	return;
}

# Writers that commit, roll back, take back savepoints, and insert keys that had lived before.
sub start_load
{
	my ($seconds) = @_;
	unless (-e "$dir/load.sql")
	{
		append_to_file("$dir/load.sql", <<'SQL');
\set k random(1, 30)
\set n random(1, 10)
BEGIN;
INSERT INTO item VALUES (:k, 'new') ON CONFLICT (id) DO UPDATE SET a = 'upsert', n = item.n + 1;
SAVEPOINT s;
DELETE FROM item WHERE id = :k;
INSERT INTO item VALUES (:k, 'taken back');
UPDATE item SET a = 'taken back, too' WHERE id = :k;
ROLLBACK TO s;
DELETE FROM item WHERE id = :k AND :n = 1;
INSERT INTO item VALUES (:k, 'again') ON CONFLICT DO NOTHING;
\if :n = 2
ROLLBACK;
\else
COMMIT;
\endif
SELECT esync_save('thin', jsonb_build_object('id', :k, 'a', 'saved ' || :n), base_version => CASE WHEN :n < 4 THEN 1 END);
SQL
	}
	my $load = IPC::Run::start([ 'pgbench', '-n', '-c', 4, '-j', 2, '-T', $seconds, '-f', "$dir/load.sql", $pub->connstr('postgres') ],
		'>', \my $out, '2>', \my $err);
	return $load;
}

$pub->safe_psql('postgres', <<'SQL');
CREATE EXTENSION esync;
CREATE TABLE item (id int PRIMARY KEY, a text, n int NOT NULL DEFAULT 0);
CREATE TABLE thin (id int PRIMARY KEY, a text);
CREATE TABLE brief (id int PRIMARY KEY, a text);
SELECT esync_enable('item'), esync_enable('thin', payload => 'changes'), esync_enable('brief');
INSERT INTO item SELECT i, 'old' FROM generate_series(1, 20) AS i;
INSERT INTO thin SELECT i, 'old' FROM generate_series(1, 30) AS i;
DELETE FROM item WHERE id > 10;
CREATE PUBLICATION esync_stream FOR TABLE esync.event WITH (publish = 'insert', publish_via_partition_root = true);
CREATE PUBLICATION esync_names FOR TABLE esync.tracked_table (table_id, schema_name, table_name, aggregate_type);
CREATE ROLE feed LOGIN REPLICATION;
GRANT USAGE ON SCHEMA esync TO feed;
GRANT SELECT ON esync.event, esync.tracked_table TO feed;
SQL
install_checks($pub, 'postgres');
$sub->safe_psql('postgres', 'CREATE SCHEMA esync; CREATE TABLE esync.event (' . sprintf($plain, 'PRIMARY KEY') . <<"SQL");
);
CREATE TABLE esync.tracked_table (table_id integer PRIMARY KEY, schema_name text, table_name text, aggregate_type text);
CREATE SUBSCRIPTION stream CONNECTION '$from application_name=stream' PUBLICATION esync_stream, esync_names WITH (streaming = on);
SQL
$sub->wait_for_subscription_sync($pub, 'stream');
same_stream('first copy');

# The head is looked for before an INSERT under wal_level = logical: nothing is written and taken back.
my $has_wal2json = -e $pub->config_data('--pkglibdir') . '/wal2json.so';
if ($has_wal2json && $pub->safe_psql('postgres', q(SELECT count(*) FROM pg_settings WHERE name = 'output_plugin_libraries')))
{
	$pub->safe_psql('postgres', 'ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding, wal2json');
	$pub->reload;
}
$pub->safe_psql('postgres', q(SELECT pg_create_logical_replication_slot('told', 'test_decoding')));
$pub->safe_psql('postgres', q(SELECT pg_create_logical_replication_slot('json', 'wal2json'))) if $has_wal2json;
my $copied = $sub->safe_psql('postgres', 'SELECT max(arrived) FROM esync.event');

my $load = start_load(2);
IPC::Run::finish($load);
same_stream('under load');
cmp_ok($pub->safe_psql('postgres', 'SELECT count(*) FROM esync.event'), '>', 500, 'there was load');

# both are killed, one after the other, while writers are at work
$pub->safe_psql('postgres', q(ALTER SYSTEM SET synchronous_commit = off; SELECT pg_reload_conf()));
for my $round (1 .. 2)
{
	$load = start_load(30);
	usleep(700_000);
	kill_server($sub);
	usleep(300_000);
	start_killed($sub);
	usleep(500_000);
	kill_server($pub);
	IPC::Run::finish($load);
	start_killed($pub);
	# what was not flushed is gone, and has not been told either
	same_stream("both killed, round $round");
	faults_are_none($pub, 'postgres', "both killed, round $round: nothing is wrong");
}
$pub->safe_psql('postgres', q(ALTER SYSTEM RESET synchronous_commit; SELECT pg_reload_conf()));

# restarted in order, under load
$load = start_load(4);
usleep(500_000);
$sub->restart;
usleep(500_000);
$sub->stop;
# a table that is tracked from now on needs nothing but the parent
$pub->safe_psql('postgres', <<'SQL');
CREATE TABLE later (id int PRIMARY KEY, a text);
INSERT INTO later VALUES (1, 'older than the tracking');
SELECT esync_enable('later', baseline => true);
INSERT INTO later VALUES (2, 'x');
SQL
$sub->start;
$pub->safe_psql('postgres', q(UPDATE later SET a = 'y'));
IPC::Run::finish($load);
same_stream('restarts and a new table');
is($sub->safe_psql('postgres', q(SELECT count(*) FROM esync.event JOIN esync.tracked_table USING (table_id) WHERE table_name = 'later')),
	'4', 'events of a table that was enabled later came, with its name');
my $later = $pub->safe_psql('postgres', q(SELECT table_id FROM esync.tracked_table WHERE table_name = 'later'));

# large transactions, streamed while they are open, with what was taken back; prepared ones over a crash
$pub->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO item SELECT i, repeat('large ', 20) FROM generate_series(1001, 4000) AS i;
SAVEPOINT s;
UPDATE item SET n = n + 1 WHERE id > 1000;
ROLLBACK TO s;
UPDATE item SET n = n + 10 WHERE id > 3000;
COMMIT;
BEGIN;
INSERT INTO item SELECT i, repeat('large ', 20) FROM generate_series(5001, 8000) AS i;
ROLLBACK;
BEGIN; INSERT INTO brief VALUES (1, 'prepared'); PREPARE TRANSACTION 'kept';
BEGIN; INSERT INTO brief VALUES (2, 'prepared'); PREPARE TRANSACTION 'dropped';
SQL
kill_server($pub);
start_killed($pub);
$pub->safe_psql('postgres', q(COMMIT PREPARED 'kept'));
$pub->safe_psql('postgres', q(ROLLBACK PREPARED 'dropped'));
same_stream('large and prepared transactions');
is($pub->safe_psql('postgres', q(SELECT count(*) FROM esync.event WHERE aggregate_id::int > 4000)), '0', 'rolled back is not in the stream');

# history that is dropped while the subscriber lags comes all the same
$sub->safe_psql('postgres', 'ALTER SUBSCRIPTION stream DISABLE');
$pub->safe_psql('postgres', <<'SQL');
UPDATE brief SET a = 'last words';
CREATE TABLE of_brief AS SELECT * FROM esync.event WHERE table_id = 3;
SELECT esync_disable('brief', drop_history => true);
UPDATE later SET a = 'z';
SELECT esync_enable('brief', baseline => true);
UPDATE brief SET a = 'new life';
SQL
$sub->safe_psql('postgres', 'ALTER SUBSCRIPTION stream ENABLE');
same_stream('a history dropped', 'table_id <> 3');
is(stream($sub, 'postgres', 'table_id = 3'), stream($pub, 'postgres', 'true', 'of_brief'), 'of what was dropped every event has come before');
is($sub->safe_psql('postgres', qq(SELECT string_agg(event_type, ' ' ORDER BY event_id) FROM esync.event WHERE table_id > $later)), 'Baseline Updated',
	'enabled again, it has another number');

# what the manual removes from a leaf is kept by the subscriber; a publication of deletions would forbid it
$pub->safe_psql('postgres', "DELETE FROM later WHERE id = 2; CREATE PUBLICATION everything FOR TABLE esync.event_$later");
my ($rc, $out, $err) = $pub->psql('postgres', qq(DELETE FROM esync.event_$later WHERE aggregate_id = '2'));
like($err, qr/does not have a replica identity and publishes deletes/, 'events that are published with their deletion cannot be removed');
my $kept = stream($pub, 'postgres', "table_id = $later");
$pub->wait_for_catchup('stream');
$pub->safe_psql('postgres', qq(DROP PUBLICATION everything; DELETE FROM esync.event_$later WHERE aggregate_id = '2'));
$pub->wait_for_catchup('stream');
is(stream($sub, 'postgres', "table_id = $later"), $kept, 'published by insert they can, and the subscriber has them still');

# what the slots have seen: events are inserted and nothing else, but for what was removed by hand
is( $pub->safe_psql('postgres', <<'SQL'), 'DELETE 4|INSERT many', 'decoding shows no row that was taken back');
SELECT string_agg(what, '|' ORDER BY what) FROM (
	SELECT substring(data FROM ': (INSERT|UPDATE|DELETE):') || ' ' || CASE WHEN count(*) > 1000 THEN 'many' ELSE count(*)::text END
	FROM pg_logical_slot_get_changes('told', NULL, NULL) WHERE data LIKE 'table esync.event\_%' GROUP BY substring(data FROM ': (INSERT|UPDATE|DELETE):')) AS w (what)
SQL
unlike(slurp_file($sub->logfile), qr/duplicate key|does not exist|no partition/, 'no worker of the subscriber failed');

SKIP:
{
	skip 'wal2json is not installed (package postgresql-NN-wal2json)', 6 unless $has_wal2json;
	my %version;    # what this consumer holds: the version of each row
	my %journal;
	my $duplicates = 0;

	# Takes what the slot has, without removing it from there.
	my $peek = sub {
		return $pub->safe_psql('postgres', q(SELECT data FROM pg_logical_slot_peek_changes('json', NULL, 200,
			'format-version', '2', 'actions', 'insert', 'add-tables', 'esync.*', 'include-types', 'false')));
	};
	# Takes what the slot has; events that this consumer holds already are passed over.
	my $consume = sub {
		my ($limit) = @_;
		my $lines = $pub->safe_psql('postgres', qq(SELECT data FROM pg_logical_slot_get_changes('json', NULL, $limit,
			'format-version', '2', 'actions', 'insert', 'add-tables', 'esync.*', 'include-types', 'false')));
		for my $line (split /\n/, $lines)
		{
			next unless $line =~ /"action":"I","schema":"esync","table":"event_\d+"/;
			my ($id) = $line =~ /"name":"event_id","value":(\d+)/;
			my ($version) = $line =~ /"name":"version","value":(\d+)/;
			my ($table) = $line =~ /"name":"table_id","value":(\d+)/;
			my ($key) = $line =~ /"name":"aggregate_id","value":"([^"]*)"/;
			if ($version <= ($version{$table}{$key} // 0))
			{
				$duplicates++;
				die "event $id passed over, and never seen" unless $journal{$id};
				next;
			}
			die "version $version of $table $key after " . ($version{$table}{$key} // 0)
			  if $version != ($version{$table}{$key} // $version - 1) + 1;
			$version{$table}{$key} = $version;
			$journal{$id} = 1;
		}
		return;
	};

	is($peek->(), $peek->(), 'wal2json: what is peeked at stays');
	$consume->(300);
	ok(%journal && !$duplicates, 'wal2json: what is taken comes once');
	my $before = keys %journal;
	# where the slot stands is written at the next checkpoint
	kill_server($pub);
	start_killed($pub);
	$consume->('NULL');
	cmp_ok($duplicates, '>', 0, "wal2json: after a crash it comes again ($duplicates events)");
	cmp_ok(scalar(keys %journal), '>', $before, 'wal2json: and what is new');
	my $had = $duplicates;
	$pub->safe_psql('postgres', 'CHECKPOINT');
	kill_server($pub);
	start_killed($pub);
	$pub->safe_psql('postgres', q(UPDATE later SET a = 'the last'));
	$consume->('NULL');
	is($duplicates, $had, 'wal2json: not after a checkpoint');
	my @missing = grep { !$journal{$_} } split /\n/,
	  $sub->safe_psql('postgres', "SELECT event_id FROM esync.event WHERE arrived > $copied ORDER BY 1");
	is(join(' ', @missing), '', 'wal2json: no event is missing, by the versions that it held');
}
$pub->safe_psql('postgres', q(SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active AND slot_name IN ('told', 'json')));

# a schema as a whole: the side tables come along, and each new leaf must be made at the subscriber
$sub->safe_psql('postgres', 'CREATE DATABASE leaves');
$pub->safe_psql('postgres', q(CREATE PUBLICATION esync_schema FOR TABLES IN SCHEMA esync WITH (publish = 'insert')));
my $tables = $pub->safe_psql('postgres', <<'SQL');
SELECT format('CREATE TABLE esync.%I (%s);', c.relname, string_agg(format('%I %s', attname,
	CASE WHEN atttypid IN ('regclass'::regtype, 'name[]'::regtype) THEN 'text' ELSE format_type(atttypid, atttypmod) END), ', ' ORDER BY attnum))
FROM pg_publication_tables AS p JOIN pg_class AS c ON c.relname = p.tablename AND c.relnamespace = 'esync'::regnamespace
JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
WHERE p.pubname = 'esync_schema' GROUP BY c.relname
SQL
like($tables, qr/esync.conflict .*esync.submission/s, 'a publication of the schema has the side tables');
$sub->safe_psql('leaves', "CREATE SCHEMA esync; $tables");
$sub->safe_psql('leaves', "CREATE SUBSCRIPTION leaves CONNECTION '$all application_name=leaves' PUBLICATION esync_schema");
$sub->wait_for_subscription_sync($pub, 'leaves', 'leaves');
my $id = $pub->safe_psql('postgres', <<'SQL');
CREATE TABLE newest (id int PRIMARY KEY);
SELECT FROM esync_enable('newest');
INSERT INTO newest VALUES (1);
SELECT table_id FROM esync.tracked_table WHERE table_name = 'newest';
SQL
$id =~ s/\s//g;
my $offset = -s $sub->logfile;
$sub->wait_for_log(qr/target relation "esync.event_$id" does not exist/, $offset - 2000);
pass('a leaf that the subscriber does not have stops it');
$sub->safe_psql('leaves', "CREATE TABLE esync.event_$id (LIKE esync.event_1)");
$pub->safe_psql('postgres', q(INSERT INTO newest VALUES (2)));
$sub->safe_psql('leaves', 'ALTER SUBSCRIPTION leaves REFRESH PUBLICATION');
$sub->wait_for_subscription_sync($pub, 'leaves', 'leaves');
$pub->safe_psql('postgres', q(INSERT INTO newest VALUES (3)));
$pub->wait_for_catchup('leaves');
is(stream($sub, 'leaves', 'true', "esync.event_$id"), stream($pub, 'postgres', 'true', "esync.event_$id"),
	'made there, and the publication refreshed, it has each event once');
is(stream($sub, 'leaves', 'true', 'esync.event_1'), stream($pub, 'postgres', 'true', 'esync.event_1'), 'as the other leaves have');
same_stream('the parent meanwhile', "table_id NOT IN (3, $later)");
$sub->safe_psql('leaves', 'DROP SUBSCRIPTION leaves');
# side tables have an identity, so that a publication of all that happens there, or of everything, forbids nothing
$pub->safe_psql('postgres', <<"SQL");
DROP PUBLICATION esync_schema;
CREATE PUBLICATION esync_schema FOR TABLES IN SCHEMA esync;
CREATE PUBLICATION whole FOR ALL TABLES;
ALTER TABLE newest RENAME id TO number;
UPDATE newest SET number = number + 10;
SELECT esync_disable('newest', drop_history => true);
DROP PUBLICATION esync_schema, whole;
SQL
pass('renaming, writing and dropping go on under a publication of the schema and of all tables');

# a subscriber that has the extension: its stream takes no events from elsewhere
$sub->safe_psql('postgres', 'CREATE DATABASE tracked');
$sub->safe_psql('tracked', <<'SQL');
CREATE EXTENSION esync;
CREATE TABLE own (id int PRIMARY KEY);
INSERT INTO own VALUES (1);
SQL
$offset = -s $sub->logfile;
$sub->safe_psql('tracked', "CREATE SUBSCRIPTION tracked CONNECTION '$from application_name=tracked' PUBLICATION esync_stream");
$sub->wait_for_log(qr/no partition of relation "event" found for row/, $offset);
pass('a subscriber with the extension has no leaf for them');
is($sub->safe_psql('tracked', 'SELECT count(*) FROM esync.event'), '0', 'and takes none');
$sub->safe_psql('tracked', 'ALTER SUBSCRIPTION tracked DISABLE; ALTER SUBSCRIPTION tracked SET (slot_name = NONE); DROP SUBSCRIPTION tracked');
$pub->poll_query_until('postgres', q(SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name ~ 'tracked' AND active));
$pub->safe_psql('postgres', q(SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ 'tracked'));

# a subscriber that passes over what it has: made anew, it copies everything and keeps one of each
$sub->safe_psql('postgres', <<'SQL');
CREATE FUNCTION esync.only_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE WHEN EXISTS (SELECT FROM esync.event WHERE event_id = NEW.event_id) THEN NULL ELSE NEW END;
END
$$;
CREATE TRIGGER only_new BEFORE INSERT ON esync.event FOR EACH ROW EXECUTE FUNCTION esync.only_new();
ALTER TABLE esync.event ENABLE ALWAYS TRIGGER only_new;
SQL
# the publisher fails over to a standby, which has no slot
$pub->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($pub, 'base', has_streaming => 1);
$standby->start;
my $last = $pub->safe_psql('postgres', q(SELECT esync_version('later', 1)));
$pub->safe_psql('postgres', q(UPDATE later SET a = 'before the failover'));
$pub->wait_for_catchup('stream');
$pub->wait_for_catchup($standby);
$sub->safe_psql('postgres', 'ALTER SUBSCRIPTION stream DISABLE; ALTER SUBSCRIPTION stream SET (slot_name = NONE); DROP SUBSCRIPTION stream');
$pub->safe_psql('postgres', q(UPDATE later SET a = 'unseen by the subscriber'));
$pub->wait_for_catchup($standby);
$pub->stop('immediate');
$standby->promote;
$from = $standby->connstr . ' dbname=postgres user=feed';
$standby->safe_psql('postgres', q(UPDATE later SET a = 'after the failover'));
$sub->safe_psql('postgres', <<"SQL");
TRUNCATE esync.tracked_table;
CREATE SUBSCRIPTION again CONNECTION '$from application_name=stream' PUBLICATION esync_stream, esync_names;
SQL
$sub->wait_for_subscription_sync($standby, 'stream');
$standby->safe_psql('postgres', q(UPDATE later SET a = 'and on'));
$pub = $standby;
same_stream('after a failover', "table_id NOT IN (3, $later, $id)");
is($sub->safe_psql('postgres', qq(SELECT string_agg(payload->>'a', ', ' ORDER BY version) FROM esync.event WHERE table_id = $later AND aggregate_id = '1' AND version > $last)),
	'before the failover, unseen by the subscriber, after the failover, and on', 'nothing is lost between two slots');

# in a dump of PostgreSQL 15 a publication loses the table that belongs to the extension; 18 keeps it
$pub->safe_psql('postgres', 'CREATE PUBLICATION leaf FOR TABLE esync.event_1; CREATE PUBLICATION esync_schema FOR TABLES IN SCHEMA esync');
my ($dump) = run_command([ 'pg_dump', '-s', $pub->connstr('postgres') ]);
like($dump, qr/CREATE PUBLICATION esync_stream WITH/, 'a dump has the publication');
like(join(' ', sort $dump =~ /^ALTER PUBLICATION (\w+) ADD/mg), qr/^(esync_names )?esync_schema (esync_stream )?leaf$/,
	'and what was in it, but for the parent and the side tables');

$sub->stop;
$pub->stop;
done_testing();
