# The lives of a database, and what becomes of the cursors in the hands of its
# clients: crashes that take commits away, dumps, copies, recovery to a point in
# time, standbys.  A cursor goes on without a loss, or it is reset, with a
# reason; a client that begins anew then holds what the table holds.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use EsyncTest;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $dir = PostgreSQL::Test::Utils::tempdir;
my $json = JSON::PP->new;

# A client: its cursor, the rows it holds with their versions, and all it was ever told.
sub client
{
	my ($cursor) = @_;
	return { cursor => $cursor, rows => {}, version => {}, told => {}, wrong => [] };
}

# Another client that knows what this one knows.
sub twin
{
	my ($c) = @_;
	my $twin = client($c->{cursor});
	$twin->{$_} = { %{ $c->{$_} } } for qw(version told);
	$twin->{rows} = { map { $_ => { %{ $c->{rows}{$_} } } } keys %{ $c->{rows} } };
	return $twin;
}

# One page for a client; the answer.  What comes twice or in the wrong order is noted.
sub page
{
	my ($c, $node, $db, $rows) = @_;
	my $cursor = defined $c->{cursor} ? "'$c->{cursor}'" : 'NULL';
	$rows //= 500;
	my $a = $json->decode($node->safe_psql($db, "SELECT esync_changes($cursor, $rows)"));
	push @{ $c->{wrong} }, 'changes beside a reset' if $a->{reset} && @{ $a->{changes} };
	push @{ $c->{wrong} }, 'an empty page, and more to come' if $a->{has_more} && !@{ $a->{changes} };
	push @{ $c->{wrong} }, 'a reset without a reason' if $a->{reset} && !$a->{reason};
	return $a if $a->{reset};
	for my $e (@{ $a->{changes} })
	{
		my $key = "$e->{table} $e->{aggregate_id}";
		push @{ $c->{wrong} }, "event $e->{event_id} came twice" if $c->{told}{ $e->{event_id} };
		push @{ $c->{wrong} }, "version $e->{version} of $key after $c->{version}{$key}" if $e->{version} <= ($c->{version}{$key} // 0);
		$c->{told}{ $e->{event_id} } = "$key $e->{version}";
		$c->{version}{$key} = $e->{version};
		if ($e->{deleted}) { delete $c->{rows}{$key}; }
		else { $c->{rows}{$key} = { %{ $c->{rows}{$key} // {} }, %{ $e->{set} } }; }
	}
	$c->{cursor} = $a->{cursor};
	return $a;
}

# All there is for a client, up to an answer without changes (a page that was open knows nothing of what came
# since): how many changes, or the reason of a reset.
sub pull
{
	my ($c, $node, $db, $rows) = @_;
	my $n = 0;
	while (1)
	{
		my $a = page($c, $node, $db, $rows);
		return "reset: $a->{reason}" if $a->{reset};
		return $n unless @{ $a->{changes} };
		$n += @{ $a->{changes} };
	}
}

# What differs between a client that was told everything and the tables; and what went wrong on the way.
sub faults
{
	my ($c, $node, $db, @tables) = @_;
	my @faults = @{ $c->{wrong} };
	my %there;
	for my $table (@tables ? @tables : 't')
	{
		for (split /\n/, $node->safe_psql($db, "SELECT id, to_jsonb(x) FROM $table AS x"))
		{
			my ($id, $row) = split /\|/, $_, 2;
			$there{"public.$table $id"} = $json->decode($row);
		}
	}
	my $canonical = JSON::PP->new->canonical;
	for my $key (sort keys %{ { %there, %{ $c->{rows} } } })
	{
		my ($has, $is) = map { $_ ? $canonical->encode($_) : 'no row' } ($c->{rows}{$key}, $there{$key});
		push @faults, "$key: the client has $has, the table $is" if $has ne $is;
	}
	return join("\n", @faults);
}

# What the client was told that the stream does not have.
sub phantoms
{
	my ($c, $node, $db) = @_;
	my %is = map { split /\|/ } split /\n/, $node->safe_psql($db, <<'SQL');
SELECT event_id, format('public.%s %s %s', t.table_name, aggregate_id, version) FROM esync.event JOIN esync.tracked_table AS t USING (table_id)
SQL
	return join(' ', grep { ($is{$_} // '') ne $c->{told}{$_} } sort { $a <=> $b } keys %{ $c->{told} });
}

# Rows by the hundred, each in a transaction of its own.
sub write_rows
{
	my ($node, $db, $what, $from, $to) = @_;
	$node->safe_psql($db, join('', map { "INSERT INTO t VALUES ($_, '$what') ON CONFLICT (id) DO UPDATE SET a = '$what $_';\n" } $from .. $to));
	return;
}

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(has_archiving => 1, allows_streaming => 1);
# transactions have more than 32 bits
PostgreSQL::Test::Utils::system_or_bail('pg_resetwal', '-e', 2, '-D', $node->data_dir);
$node->append_conf('postgresql.conf', <<'CONF');
log_statement = none
synchronous_commit = off
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
wal_buffers = 16MB
shared_buffers = 64MB
bgwriter_lru_maxpages = 0
max_prepared_transactions = 5
autovacuum = off
esync.consumer_lease = 1s
CONF
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION esync;
CREATE TABLE t (id int PRIMARY KEY, a text);
SELECT esync_enable('t');
INSERT INTO t SELECT i, 'first' FROM generate_series(1, 20) AS i;
SQL
install_checks($node, 'postgres');

# ---- crashes that take commits away
my $steady = client(undef);
is(pull($steady, $node, 'postgres'), 20, 'a client begins');
my $paging = client(undef);
my $idle = client('now');
page($idle, $node, 'postgres');
for my $round (1 .. 3)
{
	write_rows($node, 'postgres', "told $round", 10 * $round, 10 * $round + 40);
	is(pull($steady, $node, 'postgres'), 41, "crash $round: what is told before");
	page($paging, $node, 'postgres', 7);
	my $last = $node->safe_psql('postgres', 'SELECT max(event_id) FROM esync.event');
	# these are told to nobody, and not flushed by anybody
	my $walwriter = $node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'));
	kill('STOP', $walwriter);
	write_rows($node, 'postgres', "lost $round", 1, 60);
	$node->safe_psql('postgres', "BEGIN; INSERT INTO t VALUES (${round}000, 'prepared'); PREPARE TRANSACTION 'p$round'") if $round == 2;
	write_rows($node, 'postgres', "lost, too $round", 30, 60);
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM esync.event');
	if ($round == 3)
	{
		# a cursor of the very end is as good as the last commit
		my $end = client('now');
		page($end, $node, 'postgres');
		$idle = $end;
	}
	kill_server($node);
	kill('KILL', $walwriter);
	start_killed($node);
	my $lost = $before - $node->safe_psql('postgres', 'SELECT count(*) FROM esync.event');
	cmp_ok($round == 3 ? -$lost : $lost, $round == 3 ? '>=' : '>', 0, "crash $round: commits lost: $lost");
	$node->safe_psql('postgres', "COMMIT PREPARED 'p2'") if $round == 2;
	# others take the numbers of those that are lost
	write_rows($node, 'postgres', "after $round", 25, 45);
	like(pull($steady, $node, 'postgres'), qr/^\d+$/, "crash $round: the client goes on");
	is(faults($steady, $node, 'postgres'), '', "crash $round: and holds what the table holds");
	is(phantoms($steady, $node, 'postgres'), '', "crash $round: it was told nothing that is not in the stream");
	like(pull($idle, $node, 'postgres'), qr/^\d+$/, "crash $round: so does one that was never told anything") if $round == 3;
}
is(scalar(grep { !$idle->{told}{$_} } split /\n/, $node->safe_psql('postgres',
			q(SELECT event_id FROM esync.event WHERE payload->>'a' LIKE 'after 3%'))), 0, 'it is told all that came after the crash');
like(pull($paging, $node, 'postgres', 50), qr/^\d+$/, 'a page that was open at all three crashes goes on');
is(faults($paging, $node, 'postgres'), '', 'to the whole table');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t WHERE id = 2000'), '1', 'so was the prepared one');

# the same under load: what a poll has told is flushed by the poll, and what comes after it is lost
append_to_file("$dir/load.sql", <<'SQL');
\set k random(1, 60)
\set l random(1, 60)
BEGIN;
UPDATE t SET a = 'load ' || random() WHERE id = least(:k, :l);
SAVEPOINT s;
UPDATE t SET a = 'taken back' WHERE id = greatest(:k, :l);
ROLLBACK TO s;
\sleep 1 ms
UPDATE t SET a = 'load ' || random() WHERE id = greatest(:k, :l);
COMMIT;
SQL
$node->safe_psql('postgres', 'CREATE DATABASE loaded');
$node->safe_psql('loaded', q(CREATE EXTENSION esync; CREATE TABLE t (id int PRIMARY KEY, a text); SELECT esync_enable('t')));
write_rows($node, 'loaded', 'first', 1, 60);
my $often = client(undef);
my $seldom = client(undef);
my $lost_in_all = 0;
for my $round (1 .. 3)
{
	my $load = IPC::Run::start([ 'pgbench', '-n', '-c', 6, '-R', 300, '-T', 60, '-f', "$dir/load.sql", $node->connstr('loaded') ],
		'>', \my $load_out, '2>', \my $load_err);
	my $walwriter = $node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'));
	kill('STOP', $walwriter);
	my $told = 0;
	for (1 .. 15)
	{
		$told += @{ page($often, $node, 'loaded')->{changes} };
		page($seldom, $node, 'loaded', 5 + $_);
	}
	cmp_ok($told, '>', 20, "crash $round under load: told meanwhile ($told)");
	my $before = $node->safe_psql('loaded', 'SELECT max(event_id) FROM esync.event');
	usleep(50_000);
	kill_server($node);
	kill('KILL', $walwriter);
	IPC::Run::finish($load);
	start_killed($node);
	$lost_in_all += $node->safe_psql('loaded', "SELECT max(event_id) < $before FROM esync.event") eq 't';
	write_rows($node, 'loaded', "after the load $round", 1, 60);
	like(pull($_, $node, 'loaded'), qr/^\d+$/, "crash $round under load: a client goes on") for ($often, $seldom);
	is(faults($_, $node, 'loaded') . phantoms($_, $node, 'loaded'), '', "crash $round under load: and holds what the table holds") for ($often, $seldom);
}
cmp_ok($lost_in_all, '>', 0, 'crashes under load took commits away');

# a consumer whose acknowledgement is lost is given it again
$json->decode($node->safe_psql('postgres', q(SELECT esync_poll('worker', 10000))));
my $given = $json->decode($node->safe_psql('postgres', q(SELECT pg_sleep(1.1); SELECT esync_poll('worker', 10000))) =~ s/^\s+//r);
$node->safe_psql('postgres', 'CHECKPOINT');
$node->safe_psql('postgres', "SELECT esync_ack('worker', '$given->{cursor}')");
kill_server($node);
start_killed($node);
usleep(1_200_000);
my $again = $json->decode($node->safe_psql('postgres', q(SELECT esync_poll('worker', 10000))));
is(scalar(@{ $again->{changes} }), scalar(@{ $given->{changes} }), 'a consumer whose acknowledgement was lost is given it again');
$node->safe_psql('postgres', "SET synchronous_commit = on; SELECT esync_ack('worker', '$again->{cursor}')");
$node->restart;
write_rows($node, 'postgres', 'restarted', 1, 5);
is(pull($steady, $node, 'postgres'), 5, 'a restart: the client goes on');
is(scalar(@{ $json->decode($node->safe_psql('postgres', q(SELECT esync_poll('worker'))))->{changes} }), 5, 'so does the consumer');

# ---- dumps
my $former = client(undef);
pull($former, $node, 'postgres');
my $epoch = $node->safe_psql('postgres', 'SELECT max(epoch) FROM esync.event');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", $node->connstr('postgres') ], 'pg_dump');
my $there = $node->safe_psql('postgres', 'SELECT count(*) FROM esync.event');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), "$dir/dump" ], 'pg_restore');
is(pull(twin($former), $node, 'restored'), 'reset: other_database', 'dump and restore: a cursor of before is reset');
my $anew = client(undef);
is(pull($anew, $node, 'restored', 31), $there, 'dump and restore: NULL gives what was restored');
is(faults($anew, $node, 'restored'), '', 'dump and restore: all of it');
my $now = client('now');
page($now, $node, 'restored');
my $half = client(undef);
page($half, $node, 'restored', 10);
write_rows($node, 'restored', 'new life', 10, 60);
$node->safe_psql('restored', 'DELETE FROM t WHERE id = 11');
is($node->safe_psql('restored', 'SELECT max(epoch) FROM esync.event'), $epoch + 1, 'dump and restore: a new epoch');
is(pull($anew, $node, 'restored'), 52, 'dump and restore: a cursor of before its first event goes on');
is(pull($now, $node, 'restored', 9), 52, 'dump and restore: so does one of then that was told nothing');
like(pull($half, $node, 'restored', 17), qr/^\d+$/, 'dump and restore: and one in the middle of what was restored');
my $both = client(undef);
is(pull($both, $node, 'restored', 40), $there + 52, 'dump and restore: NULL gives the events of both lives');
is(faults($_, $node, 'restored'), '', 'dump and restore: the table') for ($anew, $half, $both);
is($json->decode($node->safe_psql('restored', q(SELECT esync_poll('worker'))))->{reason}, 'other_database', 'dump and restore: a consumer is told');
$node->safe_psql('restored', q(SELECT esync_ack('worker', NULL)));
is(scalar(@{ $json->decode($node->safe_psql('restored', q(SELECT esync_poll('worker', 10000))))->{changes} }), $there + 52, 'and begins anew');

# the dump over a database in which new events were written since, and which others have read
my $last = client(undef);
pull($last, $node, 'postgres');
write_rows($node, 'postgres', 'not in the dump', 1, 60);
pull($last, $node, 'postgres');
my $latest = client('now');
page($latest, $node, 'postgres');
$node->safe_psql('postgres', 'DROP SCHEMA checks CASCADE');
$node->command_ok([ 'pg_restore', '--clean', '--if-exists', '--exit-on-error', '-d', $node->connstr('postgres'), "$dir/dump" ], 'pg_restore --clean');
write_rows($node, 'postgres', 'since', 1, 70);
like(pull($last, $node, 'postgres', 5), qr/^reset: /, 'a dump over the database: a cursor of before is reset');
like(pull($latest, $node, 'postgres', 5), qr/^reset: /, 'a dump over the database: so is one that was told nothing');
like(pull($former, $node, 'postgres', 5), qr/^(reset: .*|70)$/, 'a dump over the database: one of before the dump misses nothing');
my $over = client(undef);
is(pull($over, $node, 'postgres', 100), $there + 70, 'a dump over the database: NULL gives all there is');
is(faults($over, $node, 'postgres'), '', 'a dump over the database: the table');

# the extension made again
$node->safe_psql('postgres', 'CREATE DATABASE again');
my $make = "CREATE EXTENSION esync; SELECT esync_enable('t')";
$node->safe_psql('again', "CREATE TABLE t (id int PRIMARY KEY, a text); $make");
write_rows($node, 'again', 'former', 1, 80);
my $dropped = client('now');
page($dropped, $node, 'again');
$node->safe_psql('again', "DROP EXTENSION esync CASCADE; $make");
write_rows($node, 'again', 'present', 1, 80);
like(pull($dropped, $node, 'again', 5), qr/^reset: /, 'the extension was made again: reset');

# a copy
$node->safe_psql('postgres', 'CREATE DATABASE copied TEMPLATE postgres');
is(pull(twin($over), $node, 'copied'), 'reset: other_database', 'a copy: reset');
my $copy = client(undef);
pull($copy, $node, 'copied');
write_rows($node, 'copied', 'in the copy', 20, 40);
is(pull($copy, $node, 'copied'), 21, 'a copy: who begins there goes on there');
is(faults($copy, $node, 'copied'), '', 'a copy: the table');
is(pull($over, $node, 'postgres'), 0, 'a copy: the source knows nothing of it');

# ---- a history that is dropped, and a table that is not tracked any more
$node->safe_psql('postgres', q(CREATE TABLE u (id int PRIMARY KEY, a text); SELECT esync_enable('u'); INSERT INTO u VALUES (1, 'x')));
is(pull($over, $node, 'postgres'), 1, 'another table');
my $aside = client(undef);
pull($aside, $node, 'postgres');
write_rows($node, 'postgres', 'before', 1, 3);
is(pull($aside, $node, 'postgres'), 3, 'one goes on, one does not');
$node->safe_psql('postgres', q(INSERT INTO u VALUES (2, 'disabled soon'); SELECT esync_disable('u')));
is(pull($aside, $node, 'postgres'), 1, 'what was written before a table was disabled comes');
$node->safe_psql('postgres', q(SELECT esync_enable('u')));
write_rows($node, 'postgres', 'behind', 1, 3);
is(pull($aside, $node, 'postgres'), 3, 'and what comes after');
$node->safe_psql('postgres', q(SELECT esync_disable('u', drop_history => true)));
write_rows($node, 'postgres', 'behind', 4, 6);
is(pull($aside, $node, 'postgres'), 'reset: dropped', 'a history was dropped: who knew the table is reset');
is(pull($over, $node, 'postgres'), 'reset: dropped', 'and who stood in it');
$node->safe_psql('postgres', 'DROP TABLE u');

# ---- recovery to a point in time
$node->safe_psql('postgres', 'ALTER SYSTEM SET synchronous_commit = on');
$node->reload;
$node->backup('base');
write_rows($node, 'postgres', 'point', 1, 10);
my $kept = client(undef);
pull($kept, $node, 'postgres');
my $open = client(undef);
page($open, $node, 'postgres', 10);
$node->safe_psql('postgres', q(SELECT pg_create_restore_point('good')));
write_rows($node, 'postgres', 'undone', 1, 40);
my %undone = (given => client(undef), now => client('now'), open => client(undef));
pull($undone{given}, $node, 'postgres');
page($undone{now}, $node, 'postgres');
page($undone{open}, $node, 'postgres', 10);
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->poll_query_until('postgres', 'SELECT last_archived_wal IS NOT NULL AND last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1) FROM pg_stat_archiver');
# a copy of its files, and the server goes on; for later
$node->stop;
PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir, "$dir/files");
my $back = PostgreSQL::Test::Cluster->new('back');
$back->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
$back->append_conf('postgresql.conf', "recovery_target_name = 'good'\nrecovery_target_action = promote\n");
$back->start;
$back->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
# more than was undone, so that numbers of transactions and events pass those of then
write_rows($back, 'postgres', 'since the point', 1, 70);
is(pull($kept, $back, 'postgres', 13), 70, 'point in time: a cursor of before goes on');
is(faults($kept, $back, 'postgres'), '', 'point in time: the table');
like(pull($open, $back, 'postgres', 50), qr/^\d+$/, 'point in time: so does one with an open page');
is(faults($open, $back, 'postgres'), '', 'point in time: the table again');
is(pull($undone{$_}, $back, 'postgres'), 'reset: timeline', "point in time: a cursor of what was undone is reset ($_)") for sort keys %undone;
$back->stop;

# ---- the files put back, without any recovery
$node->start;
my %set_back = (given => client(undef), now => client('now'));
write_rows($node, 'postgres', 'set back', 1, 40);
pull($set_back{given}, $node, 'postgres');
page($set_back{now}, $node, 'postgres');
my $files = client(undef);
$node->stop;
PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->data_dir);
PostgreSQL::Test::RecursiveCopy::copypath("$dir/files", $node->data_dir);
chmod(0700, $node->data_dir);
$node->start;
like(pull($set_back{$_}, $node, 'postgres'), qr/^reset: /, "files put back: a cursor that is ahead is reset ($_)") for sort keys %set_back;
write_rows($node, 'postgres', 'since the files', 1, 90);
like(pull($set_back{$_}, $node, 'postgres', 5), qr/^reset: /, "files put back: also when the server has passed it ($_)") for sort keys %set_back;

# ---- standbys
my $standby = PostgreSQL::Test::Cluster->new('standby');
$node->backup('second');
$standby->init_from_backup($node, 'second', has_streaming => 1);
$standby->start;
my $primary_one = client(undef);
my $standby_one = client(undef);
my $between = client(undef);
write_rows($node, 'postgres', 'streamed', 1, 20);
$node->wait_for_catchup($standby);
pull($primary_one, $node, 'postgres');
pull($standby_one, $standby, 'postgres');
page($between, $node, 'postgres', 30);
page($between, $standby, 'postgres', 30);
# it lags
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', q(SELECT pg_get_wal_replay_pause_state() = 'paused'));
write_rows($node, 'postgres', 'not replayed', 1, 5);
# a table that the standby does not have yet is not one whose history was dropped: to a cursor without a page that is
# open, nor to one whose page is older or younger than the table
my %open_page = map { $_ => twin($primary_one) } qw(older younger);
page($open_page{older}, $node, 'postgres', 2);
$node->safe_psql('postgres', q(CREATE TABLE newer (id int PRIMARY KEY); SELECT esync_enable('newer')));
page($open_page{$_}, $node, 'postgres', 2) for qw(older younger);
is(pull($primary_one, $node, 'postgres'), 5, 'a standby lags: the primary tells');
my $held = $primary_one->{cursor};
is(pull($primary_one, $standby, 'postgres'), 0, 'a standby lags: nothing new there, and no reset');
is($primary_one->{cursor}, $held, 'a standby lags: the cursor is the same');
is(pull($open_page{$_}, $standby, 'postgres'), 0, "a standby lags: nothing new for who has a page open, and no reset ($_)") for sort keys %open_page;
is(pull($open_page{older}, $node, 'postgres'), 1, 'a standby lags: the primary tells the rest of the page');
is(pull($open_page{younger}, $node, 'postgres'), 3, 'a standby lags: the primary tells the rest of the page, the table known');
pull($between, $node, 'postgres');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
$node->wait_for_catchup($standby);
is(pull($primary_one, $standby, 'postgres'), 0, 'it lags no more: nothing is told twice');
is(pull($standby_one, $standby, 'postgres'), 5, 'it lags no more: who reads there goes on');
is(pull($between, $standby, 'postgres'), 0, 'who goes to and fro is told once');
my ($rc, $out, $err) = $standby->psql('postgres', q(SELECT esync_poll('worker')), on_error_stop => 0);
like($err, qr/cannot execute .* (in a read-only transaction|during recovery)/, 'a consumer polls the primary');

# Promotion, where the primary has told what the standby never got.  One transaction waits for a standby that is not
# there: the standby shows it, the primary does not yet.
my $aware = twin($primary_one);
$node->safe_psql('postgres', q(ALTER SYSTEM SET synchronous_standby_names = 'nobody'; SELECT pg_reload_conf()));
usleep(300_000);
my $waiting = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', q(UPDATE t SET a = 'waits' WHERE id = 1) ],
	'>', \my $waiting_out, '2>', \my $waiting_err);
$standby->poll_query_until('postgres', q(SELECT a = 'waits' FROM t WHERE id = 1));
$standby->safe_psql('postgres', q(ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf()));
$node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM pg_stat_replication));
$node->safe_psql('postgres', q(SET synchronous_commit = local; UPDATE t SET a = 'only here' WHERE id = 2));
is(pull($aware, $node, 'postgres'), 1, 'the primary tells what the standby never gets');
my $lured = twin($aware);
like(pull($lured, $standby, 'postgres'), qr/^[01]$/, 'the standby tells what the primary does not tell yet');
$node->stop('immediate');
IPC::Run::finish($waiting);
$standby->promote;
$standby->safe_psql('postgres', q(ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()));
usleep(300_000);
$standby->safe_psql('postgres', q(UPDATE t SET a = 'promoted' WHERE id = 2));
like(pull($aware, $standby, 'postgres'), qr/^reset: /, 'promoted: who was told what is lost is reset');
like(pull($lured, $standby, 'postgres'), qr/^reset: /, 'promoted: also who has read both');
is(pull($_, $standby, 'postgres'), 2, 'promoted: the others go on') for ($primary_one, $standby_one, $between);
is(faults($_, $standby, 'postgres'), '', 'promoted: the table') for ($primary_one, $standby_one, $between);
is(scalar(@{ $json->decode($standby->safe_psql('postgres', q(SELECT esync_poll('fresh', 10000))))->{changes} }),
	$standby->safe_psql('postgres', 'SELECT count(*) FROM esync.event'), 'promoted: a consumer begins');
write_rows($standby, 'postgres', 'on and on', 1, 3);
is(pull($standby_one, $standby, 'postgres'), 3, 'promoted: and on');
$standby->stop;
done_testing();
