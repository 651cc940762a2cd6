# Twelve writers who linger, roll back, take savepoints and take their
# transaction ids early, and readers of every kind, on the primary and on a hot
# standby.  What they were told is held against the stream itself: nothing is
# missed, nothing comes in the wrong order, and no open transaction holds
# anything up.

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

my $seconds = 11;
my $dir = PostgreSQL::Test::Utils::tempdir;
my $primary = PostgreSQL::Test::Cluster->new('primary');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<'CONF');
log_statement = none
max_connections = 60
autovacuum_naptime = 1s
deadlock_timeout = 100ms
hot_standby_feedback = on
esync.consumer_lease = 300ms
CONF
$primary->start;
$primary->safe_psql('postgres', <<'SQL');
CREATE EXTENSION esync;
CREATE SCHEMA shop;
CREATE TABLE shop.item (id int PRIMARY KEY, tenant text, a text, n int NOT NULL DEFAULT 0);
CREATE TABLE shop.thin (id int PRIMARY KEY, a text, n int NOT NULL DEFAULT 0);
CREATE TABLE shop.log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text);
SELECT esync_enable('shop.item', tenant => 'tenant'), esync_enable('shop.thin', payload => 'changes'), esync_enable('shop.log');
INSERT INTO shop.item SELECT i, CASE WHEN i % 3 = 0 THEN 'a' ELSE 'b' END, 'old' FROM generate_series(1, 100) AS i;
INSERT INTO shop.item VALUES (1000, 'a', 'of the long one');
INSERT INTO shop.thin SELECT i, 'old' FROM generate_series(1, 101) AS i;
SQL
install_checks($primary, 'postgres');
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE checks.ending (at timestamptz);
CREATE TABLE checks.got (reader text, n bigserial, at float8, event_id bigint, tbl text, aggregate_id text, version bigint, deleted boolean, set jsonb);
CREATE TABLE checks.seen (reader text, event_id bigint);
-- tells a page: the clock, then a change a line
CREATE FUNCTION checks.tell(page jsonb, sets boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF (page->>'reset')::boolean THEN
		RAISE EXCEPTION 'reset: %', page->>'reason';
	END IF;
	IF page->'changes' <> '[]' THEN
		RAISE INFO E'@%\n%\n.', extract(epoch FROM clock_timestamp()), (SELECT string_agg(concat_ws(E'\t', c->>'event_id', c->>'table',
			c->>'aggregate_id', c->>'version', c->>'deleted', CASE WHEN sets THEN c->>'set' ELSE '{}' END), E'\n' ORDER BY n)
			FROM jsonb_array_elements(page->'changes') WITH ORDINALITY AS e (c, n));
	END IF;
END
$$;
-- One reader, each poll in a transaction of its own, until all is said.  kind 'now' tells first what it has seen without
-- being told; 'rr' polls thrice in a snapshot (its session is set so); 'own' writes before and after it polls.
CREATE PROCEDURE checks.reader(kind text, start text, max_rows int, pause float8, tables regclass[] DEFAULT NULL,
	device text DEFAULT NULL, tenant text DEFAULT NULL, whole boolean DEFAULT false) LANGUAGE plpgsql AS $$
DECLARE
	at text := start;
	page jsonb;
	ended boolean;
	times int;
	wanted int;
	writes boolean;
BEGIN
	IF kind = 'now' THEN
		COMMIT;
		SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
		page := esync_changes('now');
		at := page->>'cursor';
		RAISE INFO E'@seen\n%\n.', (SELECT string_agg(event_id::text, E'\n') FROM esync.event);
	ELSIF start = 'stamp' THEN
		at := clock_timestamp()::text;
		RAISE INFO E'@stamp\n%\n.', at;
	END IF;
	COMMIT;
	LOOP
		times := 1;
		IF kind = 'rr' THEN
			times := 3;
		END IF;
		ended := EXISTS (SELECT FROM checks.ending);
		FOR i IN 1 .. times LOOP
			wanted := CASE WHEN max_rows > 0 THEN max_rows ELSE 1 + floor(random() * -max_rows) END;
			writes := false;
			IF kind = 'own' AND random() < 0.2 THEN
				-- what is written when the others have stopped reading they would have missed
				PERFORM pg_advisory_xact_lock_shared(1);
				writes := NOT EXISTS (SELECT FROM checks.ending);
			END IF;
			IF writes THEN
				UPDATE shop.thin SET a = 'before' WHERE id = 101;
				PERFORM pg_sleep(0.01);
				page := esync_changes(at, wanted, tables, device, tenant, whole);
				UPDATE shop.thin SET a = 'after' WHERE id = 101;
			ELSE
				page := esync_changes(at, wanted, tables, device, tenant, whole);
			END IF;
			at := page->>'cursor';
			PERFORM checks.tell(page, kind IN ('null', 'rows'));
			IF page->'changes' = '[]' AND (page->>'has_more')::boolean THEN
				RAISE EXCEPTION 'an empty page, and more to come';
			END IF;
		END LOOP;
		COMMIT;
		EXIT WHEN ended AND page->'changes' = '[]';
		IF NOT ended AND NOT (page->>'has_more')::boolean THEN
			PERFORM pg_sleep(pause * random());
			COMMIT;
		END IF;
	END LOOP;
END
$$;
-- the same by poll and ack, by two who share a name; one of ten pages is not acknowledged, and comes again when the lease is over
CREATE PROCEDURE checks.consumer(name text, max_rows int, pause float8) LANGUAGE plpgsql AS $$
DECLARE
	page jsonb;
	ended boolean;
BEGIN
	LOOP
		ended := EXISTS (SELECT FROM checks.ending);
		BEGIN
			page := esync_poll(name, max_rows);
		EXCEPTION WHEN lock_not_available THEN
			page := NULL;
		END;
		COMMIT;
		IF page IS NULL THEN
			PERFORM pg_sleep(0.05);
		ELSE
			PERFORM checks.tell(page, false);
			COMMIT;
			IF page->'changes' = '[]' THEN
				EXIT WHEN ended;
				PERFORM pg_sleep(pause * random());
			ELSIF random() < 0.9 THEN
				BEGIN
					PERFORM esync_ack(name, page->>'cursor');
				EXCEPTION WHEN invalid_parameter_value THEN NULL;	-- too late, the other one has it
				END;
			END IF;
		END IF;
		COMMIT;
	END LOOP;
END
$$;
SQL
$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my %scripts = (
	plain => q(BEGIN; UPDATE shop.item SET n = n + 1 WHERE id = :k; \sleep :us us; COMMIT),
	early => q(BEGIN; SELECT pg_current_xact_id(); \sleep :us us; UPDATE shop.item SET n = n + 1 WHERE id = :k; \sleep :us us;
		UPDATE shop.thin SET n = n + 1, a = 'early' WHERE id = :l; COMMIT),
	savepoints => q(BEGIN; SAVEPOINT a; UPDATE shop.item SET n = -1 WHERE id = :k; ROLLBACK TO a; SAVEPOINT b; UPDATE shop.thin SET n = n + 1 WHERE id = :k;
		SAVEPOINT c; INSERT INTO shop.log (a) VALUES ('kept'); RELEASE c; \sleep :us us; COMMIT),
	rollback => q(BEGIN; UPDATE shop.item SET a = 'lost' WHERE id = :k; INSERT INTO shop.log (a) VALUES ('lost'); \sleep :us us; ROLLBACK),
	again => q(BEGIN; DELETE FROM shop.item WHERE id = :k; \sleep :us us; INSERT INTO shop.item VALUES (:k, 'a', 'again') ON CONFLICT DO NOTHING; COMMIT),
	gone => q(DELETE FROM shop.item WHERE id = :k),
	burst => q(INSERT INTO shop.log (a) SELECT 'burst' FROM generate_series(1, 15)),
	moves => q(UPDATE shop.item SET tenant = CASE tenant WHEN 'a' THEN 'b' ELSE 'a' END WHERE id = :k),
	tablet => q(BEGIN; SET LOCAL esync.device_id = 'tablet'; UPDATE shop.item SET a = 'tablet' || :us WHERE id = :k; COMMIT),
	late => q(SELECT esync_save('shop.item', jsonb_build_object('id', :k, 'n', :us), base_version => 1, context => '{"device_id": "phone", "submit_timestamp": "2025-01-01 00:00Z"}')),
	touch => q(SELECT esync_touch('shop.thin', (:k)::text)),
	upsert => q(INSERT INTO shop.item VALUES (:k, 'b', 'upsert') ON CONFLICT (id) DO UPDATE SET n = shop.item.n + 1, a = 'upsert'),
);
my @files;
for my $name (sort keys %scripts)
{
	append_to_file("$dir/$name.sql", "\\set k random(1, 100)\n\\set l random(1, 100)\n\\set us random(0, 4000)\n"
		. join("\n", map { s/^\s+|\s+$//gr =~ s/\s*\n\s*/ /gr } map { /^\s*\\/ ? $_ : "$_;" } split(/;/, $scripts{$name})) . "\n");
	push @files, '-f', "$dir/$name.sql";
}

# Starts something in psql, in the background.
my %outputs;
sub start_psql
{
	my ($node, $name, $sql) = @_;
	my $file = $outputs{$name} = "$dir/$name.out";
	my @set = $name =~ /_rr$/ ? ('-c', q(SET default_transaction_isolation = 'repeatable read')) : ();
	return IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), @set, '-c', $sql ],
		'>', "$dir/$name.std", '2>', $file);
}

my %kinds = (
	null => q('null', NULL, 500, 0.02),
	small => q('small', NULL, -90, 0.01),
	now => q('now', 'now', 200, 0.03),
	tables => q('tables', NULL, 100, 0.04, tables => '{shop.item}'),
	tenant => q('tenant', NULL, 100, 0.04, tenant => 'a'),
	device => q('device', NULL, 200, 0.04, device => 'tablet'),
	rr => q('rr', NULL, 150, 0.04),
	own => q('own', NULL, 200, 0.04),
	stamp => q('stamp', 'stamp', 200, 0.04),
	rows => q('rows', NULL, 300, 0.05, tables => '{shop.item,shop.thin}', whole => true),
);
my $load = IPC::Run::start([ 'pgbench', '-n', '-c', 12, '-j', 2, '-T', $seconds, '--max-tries', 100, @files, $primary->connstr('postgres') ],
	'>', \my $load_out, '2>', \my $load_err);
usleep(1_000_000);
my %readers;
for my $kind (sort keys %kinds)
{
	$readers{"primary_$kind"} = start_psql($primary, "primary_$kind", "CALL checks.reader($kinds{$kind})");
	next if $kind eq 'own' || $kind eq 'rows';
	$readers{"standby_$kind"} = start_psql($standby, "standby_$kind", "CALL checks.reader($kinds{$kind})");
}
$readers{"primary_$_"} = start_psql($primary, "primary_$_", q(CALL checks.consumer('worker', 100, 0.03))) for 'consumer', 'fellow';
usleep(1_000_000);
# a write that stays open for seven seconds, with more subtransactions than a snapshot lists
my $open_from = time;
my $open = start_psql($primary, 'open', <<'SQL');
DO $$
BEGIN
	FOR i IN 1 .. 80 LOOP
		BEGIN
			UPDATE shop.item SET n = i WHERE id = 1000;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
	PERFORM pg_sleep(7);
	UPDATE shop.item SET n = 100 WHERE id = 1000;
END
$$
SQL
delete $outputs{open};
# meanwhile one client goes to and fro between the servers with one cursor
my (@got, $roaming);
sub roam
{
	my ($node) = @_;
	my $cursor = defined $roaming ? "'$roaming'" : 'NULL';
	my @lines = split /\n/, $node->safe_psql('postgres', <<"SQL");
SELECT coalesce(a->>'cursor', a->>'reason'), c->>'event_id', c->>'table', c->>'aggregate_id', c->>'version', c->>'deleted'
FROM esync_changes($cursor, 300) AS a LEFT JOIN jsonb_array_elements(a->'changes') WITH ORDINALITY AS e (c, n) ON true ORDER BY n
SQL
	my $n = 0;
	for (@lines)
	{
		my ($next, @change) = split /\|/;
		die "who goes to and fro is reset: $next" unless $next =~ /^e1\./;
		$roaming = $next;
		next unless @change;
		push @got, join("\t", 'roaming', time, @change, '{}') . "\n";
		$n++;
	}
	return $n;
}
my $open_to;
my $rounds = 0;
while ($load->pumpable)
{
	roam($_) for ($primary, $standby);
	# and a DBA switches and changes tables; what was in those that are dropped is told to whoever came in time
	$rounds++;
	$primary->safe_psql('postgres', <<"SQL");
CREATE TABLE shop.brief_$rounds (id int PRIMARY KEY, a text);
SELECT esync_enable('shop.brief_$rounds');
INSERT INTO shop.brief_$rounds VALUES (1, 'x'), (2, 'y');
ALTER TABLE shop.brief_$rounds RENAME a TO b;
ALTER TABLE shop.log ADD COLUMN round_$rounds int DEFAULT $rounds;
UPDATE shop.brief_$rounds SET b = 'z';
ALTER TABLE shop.log DROP COLUMN round_$rounds;
SELECT esync_disable('shop.brief_$rounds');
DROP TABLE shop.brief_$rounds;
SQL
	$open_to //= time if !$open->pumpable;
	$load->pump_nb;
	$open->pump_nb if !$open_to;
	usleep(50_000);
}
$open_to //= time;
IPC::Run::finish($_) for ($open, $load);
is($load_err =~ s/^pgbench .*\n//mgr, '', 'no writer gave up');
# from here on nobody writes, the reader that does included
$primary->safe_psql('postgres', 'BEGIN; SELECT pg_advisory_xact_lock(1); INSERT INTO checks.ending VALUES (now()); COMMIT');
my $ended = time;
for my $name (sort keys %readers)
{
	IPC::Run::finish($readers{$name});
	is($readers{$name}->full_result(0), 0, "$name: read to the end") or diag(substr(slurp_file($outputs{$name}), -500));
}
note(sprintf 'readers were through %.1f s after the writers', time - $ended);

1 while roam($primary);
$primary->wait_for_catchup($standby);
is(roam($standby), 0, 'who goes to and fro is through on both');
$readers{roaming} = undef;

# what they were told, into a table
my (@seen, %stamp, %longest);
for my $name (grep { $readers{$_} } sort keys %readers)
{
	my ($at, $last);
	for (split /\n/, slurp_file($outputs{$name}))
	{
		if (/INFO:  \@(\S+)/)
		{
			$at = $1;
			next if $at !~ /^\d/;
			my $gap = $at - ($last // $at);
			$longest{$name} = $gap if $at > $open_from && ($last // 0) < $open_to && $gap > ($longest{$name} // 0);
			$last = $at;
		}
		elsif (!defined $at || $_ eq '.') { undef $at; }
		elsif ($at eq 'seen') { push @seen, "$name\t$_\n"; }
		elsif ($at eq 'stamp') { $stamp{$name} = $_; }
		else { push @got, "$name\t$at\t" . s/\\/\\\\/gr . "\n"; }
	}
}
# the two consumers are one reader
s/^primary_fellow/primary_consumer/ for @got;
my @at = map { (split /\t/)[1] } @got;
append_to_file("$dir/got", join '', @got[sort { $at[$a] <=> $at[$b] || $a <=> $b } 0 .. $#got]);
is(scalar(grep { !defined $longest{"primary_$_"} } 'consumer', 'fellow'), 0, 'both who share a consumer were given something');
delete $readers{primary_fellow};
append_to_file("$dir/seen", join '', @seen);
$primary->safe_psql('postgres', "\\copy checks.got (reader, at, event_id, tbl, aggregate_id, version, deleted, set) FROM '$dir/got'");
$primary->safe_psql('postgres', "\\copy checks.seen FROM '$dir/seen'");
$primary->safe_psql('postgres', <<'SQL');
DELETE FROM checks.got WHERE tbl LIKE 'shop.brief%';
DELETE FROM checks.seen USING esync.event AS e JOIN esync.tracked_table AS t USING (table_id)
WHERE seen.event_id = e.event_id AND t.table_name LIKE 'brief%';
-- a row that is gone belongs to the tenant that had it last
CREATE TABLE checks.event AS
SELECT *, lag(owner) OVER row AS former, lag(flags & 1 = 1) OVER row AS was_gone
FROM (SELECT *, first_value(tenant) OVER (PARTITION BY table_id, aggregate_id, nth ORDER BY version) AS owner
	FROM (SELECT t.table_name, e.*, count(e.tenant) OVER (PARTITION BY e.table_id, aggregate_id ORDER BY version) AS nth
		FROM esync.event AS e JOIN esync.tracked_table AS t USING (table_id) WHERE t.relation IS NOT NULL) AS e) AS e
WINDOW row AS (PARTITION BY table_id, aggregate_id ORDER BY version);
CREATE UNIQUE INDEX ON checks.event (event_id);
ANALYZE checks.event, checks.got;
CREATE AGGREGATE checks.merge(jsonb) (sfunc = jsonb_concat, stype = jsonb, initcond = '{}');
SQL
my $events = $primary->safe_psql('postgres', 'SELECT count(*) FROM esync.event');
cmp_ok($events, '>', 10000, "there was load ($events events)");

# which events a reader should have been told, by the stream itself
my %should = (
	tables => q(table_name = 'item'),
	tenant => q(owner = 'a' OR former = 'a' AND NOT was_gone),
	device => q(device_id IS DISTINCT FROM 'tablet'),
	rows => q(table_name IN ('item', 'thin')),
);
# What a reader missed, for whoever looks for the fault.
sub missed_by
{
	my ($name, $should) = @_;
	return "$name missed: " . $primary->safe_psql('postgres', <<"SQL");
SELECT table_name, aggregate_id, version, event_id, event_type, flags, xid, commit_timestamp FROM checks.event
WHERE ($should) AND event_id NOT IN (SELECT event_id FROM checks.got WHERE reader = '$name') ORDER BY event_id LIMIT 10
SQL
}
for my $name (sort keys %readers)
{
	my ($kind) = $name =~ /_?([^_]*)$/;
	my $should = $should{$kind} // 'true';
	$should = qq(event_id NOT IN (SELECT event_id FROM checks.seen WHERE reader = '$name')) if $kind eq 'now';
	$should = qq(commit_timestamp >= '$stamp{$name}') if $kind eq 'stamp';
	is( $primary->safe_psql('postgres', <<"SQL"), '0|0|0|0', "$name: missed, not meant, twice, in the wrong order") or diag(missed_by($name, $should));
WITH got AS (SELECT * FROM checks.got WHERE reader = '$name'),
	should AS (SELECT event_id FROM checks.event WHERE $should)
SELECT (SELECT count(*) FROM should WHERE event_id NOT IN (SELECT event_id FROM got)),
	CASE WHEN '$kind' = 'stamp' THEN 0 ELSE (SELECT count(*) FROM got WHERE event_id NOT IN (SELECT event_id FROM should)) END,
	CASE WHEN '$kind' = 'consumer' THEN 0 ELSE (SELECT count(*) - count(DISTINCT event_id) FROM got) END,
	(SELECT count(*) FROM (SELECT version - lag(version) OVER (PARTITION BY tbl, aggregate_id ORDER BY n) AS step
		FROM (SELECT DISTINCT ON (event_id) * FROM got ORDER BY event_id, n) AS first) AS s WHERE step <= 0)
SQL
	# an event carries the key and the version that the stream has
	is( $primary->safe_psql('postgres', <<"SQL"), '0', "$name: each is what the stream has");
SELECT count(*) FROM checks.got AS g LEFT JOIN checks.event AS e USING (event_id) WHERE reader = '$name'
	AND (g.tbl, g.aggregate_id, g.version) IS DISTINCT FROM ('shop.' || e.table_name, e.aggregate_id, e.version)
SQL
	next if grep { $kind eq $_ } 'tenant', 'device', 'stamp', 'roaming', 'consumer';
	my $longest = $longest{$name} // 99;
	cmp_ok($longest, '<', 4, sprintf '%s: longest silence beside an open transaction (%.2f s)', $name, $longest);
}
is($primary->safe_psql('postgres', q(SELECT count(*) > count(DISTINCT event_id) FROM checks.got WHERE reader = 'primary_consumer')),
	't', 'a page that was not acknowledged came again');
is( $primary->safe_psql('postgres', q(SELECT count(*) FROM checks.got AS g JOIN checks.event AS e USING (event_id)
		WHERE reader ~ 'tenant' AND deleted <> (owner <> 'a' OR e.flags & 1 = 1))), '0', 'who leaves the tenant is told as deleted');

# a client that writes what it is told holds what the table holds
for my $name ('primary_null', 'standby_null', 'primary_rows')
{
	for my $table ('item', 'thin')
	{
		is( $primary->safe_psql('postgres', <<"SQL"), '0', "$name: the copy of shop.$table is the table");
WITH told AS (SELECT *, max(version) FILTER (WHERE deleted) OVER (PARTITION BY aggregate_id) AS gone
	FROM checks.got WHERE reader = '$name' AND tbl = 'shop.$table'),
	copy AS (SELECT aggregate_id, checks.merge(set ORDER BY n) AS row FROM told WHERE NOT deleted AND version > coalesce(gone, 0) GROUP BY 1)
SELECT count(*) FROM copy FULL JOIN shop.$table AS t ON t.id::text = aggregate_id WHERE to_jsonb(t) IS DISTINCT FROM copy.row
SQL
	}
}
faults_are_none($primary, 'postgres', 'nothing is wrong in the end');

# One poll, and it is there: beside a transaction that wrote, one that took its id early, and one with many subtransactions.
my $held = IPC::Run::start([ 'psql', '-XAtq', '-d', $primary->connstr('postgres') ], '<', \my $held_in, '>', \my $held_out, '2>', \my $held_err);
my $early = IPC::Run::start([ 'psql', '-XAtq', '-d', $primary->connstr('postgres') ], '<', \my $early_in, '>', \my $early_out, '2>', \my $early_err);
$held_in = "BEGIN;\nUPDATE shop.item SET a = 'held' WHERE id = 1000;\n"
	. join('', map { "SAVEPOINT s$_; UPDATE shop.item SET n = $_ WHERE id = 1000;\n" } 1 .. 80) . "\\echo held\n";
$early_in = "BEGIN;\nSELECT pg_current_xact_id() > '0';\n\\echo early\n";
IPC::Run::pump($held) until $held_out =~ /held/;
IPC::Run::pump($early) until $early_out =~ /early/;

# What a cursor has next, and the cursor after it.
sub poll
{
	my ($node, $cursor) = @_;
	return split /\n/, $node->safe_psql('postgres', <<"SQL");
SELECT coalesce(string_agg(format('%s:%s', c->>'table', c->'set'->>'a'), ' ' ORDER BY n), ''), a->>'cursor'
FROM esync_changes('$cursor', 10000) AS a LEFT JOIN jsonb_array_elements(a->'changes') WITH ORDINALITY AS e (c, n) ON true GROUP BY a
SQL
}
my %cursor;
for my $node ($primary, $standby)
{
	$primary->wait_for_catchup($standby);
	$cursor{ $node->name } = $node->safe_psql('postgres', q(SELECT esync_changes('now')->>'cursor'));
}
my @told;
for my $round (1 .. 3)
{
	# the one that was early writes now; one that began later has written before it
	if ($round == 2)
	{
		$early_in .= "UPDATE shop.thin SET a = 'at last' WHERE id = 1;\nCOMMIT;\n\\echo done\n";
		IPC::Run::pump($early) until $early_out =~ /done/;
	}
	elsif ($round == 3)
	{
		$held_in .= "COMMIT;\n\\echo done\n";
		IPC::Run::pump($held) until $held_out =~ /done/;
	}
	$primary->safe_psql('postgres', "UPDATE shop.thin SET a = 'round $round' WHERE id = 2");
	$primary->wait_for_catchup($standby);
	for my $node ($primary, $standby)
	{
		my ($line) = poll($node, $cursor{ $node->name });
		my ($text, $next) = $line =~ /^(.*)\|(.*)$/;
		$cursor{ $node->name } = $next;
		push @told, $text =~ s/(shop.item:\S*\s?)+/held /r;
	}
}
$_->finish for ($held, $early);

# who polls between two writes of a transaction that is not the latest is told both when it has committed
my $own = IPC::Run::start([ 'psql', '-XAtq', '-d', $primary->connstr('postgres') ], '<', \my $own_in, '>', \my $own_out, '2>', \my $own_err);
$own_in = "BEGIN;\nUPDATE shop.thin SET a = 'one' WHERE id = 3;\n\\echo written\n";
IPC::Run::pump($own) until $own_out =~ /written/;
$primary->safe_psql('postgres', q(UPDATE shop.thin SET a = 'another' WHERE id = 4));
$own_in .= "SELECT 'cursor ' || (esync_changes('$cursor{primary}')->>'cursor');\nUPDATE shop.thin SET a = 'two' WHERE id = 3;\nCOMMIT;\n\\echo done\n";
IPC::Run::pump($own) until $own_out =~ /done/;
$own->finish;
my ($between) = $own_out =~ /^cursor (\S+)/m;
is((poll($primary, $between))[0] =~ s/\|.*//r, 'shop.thin:one shop.thin:two', 'a transaction that polls between its writes');
is($told[0], 'shop.thin:round 1', 'primary: one poll beside an open transaction');
is($told[1], 'shop.thin:round 1', 'standby: one poll beside an open transaction');
is($told[2], 'shop.thin:at last shop.thin:round 2', 'primary: one that took its id early is told when it commits');
is($told[3], 'shop.thin:at last shop.thin:round 2', 'standby: one that took its id early is told when it commits');
is($told[4], 'held shop.thin:round 3', 'primary: what was held is told when it commits');
is($told[5], 'held shop.thin:round 3', 'standby: what was held is told when it commits');

$standby->stop;
$primary->stop;
done_testing();
