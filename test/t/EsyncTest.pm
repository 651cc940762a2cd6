# What the TAP tests of esync share: checks of a stream, and a story with
# everything in it that a dump or an upgrade could lose.

package EsyncTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(install_checks faults_are_none set_story telling go_on set_late late_names kill_server start_killed);

# Makes what faults_are_none and telling need, in a schema of its own.
sub install_checks
{
	my ($node, $db) = @_;
	$node->safe_psql($db, <<'SQL');
CREATE SCHEMA IF NOT EXISTS checks;
-- the stream by itself: versions 1, 2, 3 ..., ids and times that ascend with them; a touch has no time of its own, an edit
-- whose author had not seen all of it may lie earlier on the submit axis
CREATE OR REPLACE FUNCTION checks.faults() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	tbl regclass;
BEGIN
	RETURN QUERY
	SELECT format('table %s, row %s: version %s is its %s. event', table_id, aggregate_id, version, n)
	FROM (SELECT e.*, row_number() OVER w AS n, lag(event_id) OVER w AS previous_id,
			lag(commit_timestamp) OVER w AS previous_commit, lag(effective_timestamp) OVER w AS previous_effective
		FROM esync.event AS e WINDOW w AS (PARTITION BY table_id, aggregate_id ORDER BY version)) AS e
	WHERE version <> n OR event_id <= previous_id OR commit_timestamp < previous_commit
		OR effective_timestamp <= previous_effective AND base_version = version - 1 AND meta->'touch' IS NULL;
	RETURN QUERY SELECT format('event_id %s occurs %s times', event_id, count(*)) FROM esync.event
	GROUP BY event_id HAVING count(*) > 1;
	FOR tbl IN SELECT relation FROM esync.tracked_table WHERE enabled LOOP
		RETURN QUERY SELECT format('verify %s: %s %s %s', tbl, v.aggregate_id, v.problem, v.detail)
		FROM esync_verify(tbl) AS v;
	END LOOP;
END
$$;
-- all that the reading functions say, as text
CREATE OR REPLACE FUNCTION checks.telling() RETURNS SETOF text LANGUAGE plpgsql
SET timezone = 'UTC' SET search_path = public AS $$
DECLARE
	track record;
	k text;
BEGIN
	RETURN QUERY SELECT s::text FROM (SELECT tbl::text, mode, enabled, events, aggregates, oldest, newest, options
		FROM esync_status() ORDER BY options->'table_id') AS s;
	FOR track IN SELECT * FROM esync.tracked_table WHERE relation IS NOT NULL ORDER BY table_id LOOP
		FOR k IN SELECT DISTINCT aggregate_id FROM esync.event WHERE table_id = track.table_id ORDER BY 1 LOOP
			RETURN QUERY SELECT format('%s %s field %s', track.relation, k, h) FROM field_history(track.relation, k) AS h;
			RETURN QUERY SELECT format('%s %s history %s', track.relation, k, h) FROM esync_history(track.relation, k) AS h;
			RETURN QUERY SELECT format('%s %s replay %s', track.relation, k, h) FROM esync_replay(track.relation, k) AS h;
			RETURN QUERY SELECT format('%s %s timeline %s', track.relation, k, h) FROM esync_timeline(track.relation, k) AS h;
			RETURN QUERY SELECT format('%s %s graph %s', track.relation, k, h) FROM esync_graph(track.relation, k) AS h;
			RETURN QUERY SELECT format('%s %s state %s version %s row %s', track.relation, k,
				esync_state(track.relation, k), esync_version(track.relation, k), esync_row(track.relation, k));
		END LOOP;
		RETURN QUERY EXECUTE format('SELECT format(''%%s as of %%s'', %L, r::text) FROM esync_as_of(NULL::%s, ''infinity'') AS r ORDER BY 1',
			track.relation, track.relation);
	END LOOP;
	RETURN QUERY SELECT format('submission %s', s) FROM esync.submission AS s ORDER BY client_event_id;
	RETURN QUERY SELECT format('temporary id %s', i) FROM esync.temporary_id AS i ORDER BY device_id, temporary;
	RETURN QUERY SELECT format('rejected %s', r) FROM esync.rejected AS r ORDER BY rejected_id;
	RETURN QUERY SELECT format('device %s', d) FROM esync.device AS d ORDER BY device_id, user_id;
	-- the table that is gone is told by its events alone
	RETURN QUERY SELECT format('gone: %s %s %s %s', e.aggregate_id, e.version, e.event_type, e.payload)
	FROM esync.event AS e JOIN esync.tracked_table AS t USING (table_id)
	WHERE t.relation IS NULL ORDER BY event_id;
END
$$;
SQL
	return;
}

# One test: every stream of the database is whole and agrees with its table.
sub faults_are_none
{
	my ($node, $db, $name) = @_;
	is($node->safe_psql($db, 'SELECT * FROM checks.faults()'), '', $name);
	return;
}

# All that the reading functions say.
sub telling
{
	my ($node, $db) = @_;
	return $node->safe_psql($db, 'SELECT * FROM checks.telling()');
}

# Tables of many kinds with a history, in a database that has the extension.
sub set_story
{
	my ($node, $db) = @_;
	install_checks($node, $db);
	$node->safe_psql($db, <<'SQL');
CREATE ROLE reader;
CREATE TYPE mood AS ENUM ('well', 'bad');
CREATE TABLE "Blocks" (early int, id uuid PRIMARY KEY, title text, "vSet Pressure" numeric, note text,
	doc jsonb, bytes bytea, at timestamptz, mood mood, twice text GENERATED ALWAYS AS (title || title) STORED);
SELECT esync_enable('"Blocks"', aggregate_type => 'block', mask => '{note}',
	groups => '{"plate": ["title", "vSet Pressure"]}', json_merge => '{doc}');
INSERT INTO "Blocks" (early, id, title, "vSet Pressure", note, doc, bytes, at, mood)
SELECT i, ('00000000-0000-0000-0000-00000000000' || i)::uuid, 'title ' || i, i + 0.50, 'secret',
	'{"a": [1, 2]}', '\x00ff', '2025-01-01 12:00+02', 'well' FROM generate_series(1, 4) AS i;
UPDATE "Blocks" SET title = 'before the renaming' WHERE early = 1;
ALTER TABLE "Blocks" RENAME title TO "Title";
UPDATE "Blocks" SET "Title" = 'after the renaming', mood = 'bad' WHERE early = 1;
UPDATE "Blocks" SET early = 20 WHERE early = 2;
-- the numbers of all columns after this one change in a dump
ALTER TABLE "Blocks" DROP early;
ALTER TABLE "Blocks" ADD late text DEFAULT 'fast default';
UPDATE "Blocks" SET late = 'set', note = 'another' WHERE "Title" = 'after the renaming';
BEGIN;
SELECT esync_context(user_id => 'anna', device_id => 'tablet', branch_timestamp => '2025-01-02 00:00Z',
	submit_timestamp => '2025-01-03 00:00Z', meta => '{"reason": "calibrated"}');
UPDATE "Blocks" SET "vSet Pressure" = 9.00 WHERE "Title" = 'title 3';
COMMIT;
DELETE FROM "Blocks" WHERE "Title" = 'title 4';
ALTER TABLE "Blocks" DROP doc;

CREATE TABLE pairs (a int, b text, v float8, PRIMARY KEY (a, b));
INSERT INTO pairs VALUES (1, 'older than the tracking', 0.1);
SELECT esync_enable('pairs', payload => 'changes', retention => '1 year');
INSERT INTO pairs VALUES (1, 'x', 0.1), (2, 'y', 'NaN');
UPDATE pairs SET v = v + 0.2 WHERE b = 'x';
UPDATE pairs SET b = 'moved' WHERE b = 'y';

CREATE TABLE parts (id int, region text, v int) PARTITION BY LIST (region);
CREATE TABLE parts_eu (v int, region text, id int);
ALTER TABLE parts ATTACH PARTITION parts_eu FOR VALUES IN ('eu');
CREATE TABLE parts_us PARTITION OF parts FOR VALUES IN ('us');
ALTER TABLE parts ALTER id SET NOT NULL;
SELECT esync_enable('parts', key => '{id}', tenant => 'region', notify => true);
INSERT INTO parts VALUES (1, 'eu', 1), (2, 'us', 1);
UPDATE parts SET region = 'us' WHERE id = 1;

CREATE TABLE soft (id bigint PRIMARY KEY, v text, changed timestamptz, gone timestamptz);
SELECT esync_enable('soft', tombstone => 'gone', last_modified => '{changed}');
INSERT INTO soft VALUES (1, 'x'), (2, 'y');
UPDATE soft SET gone = '2025-01-01' WHERE id = 1;
UPDATE soft SET gone = NULL WHERE id = 1;
UPDATE soft SET gone = '2025-01-01' WHERE id = 2;

CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent_id int REFERENCES parent ON DELETE CASCADE);
SELECT esync_enable('parent'), esync_enable('child', links => '{"parent_id": "parent"}', sql_merge => false);
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1), (2, 2);
DELETE FROM parent WHERE id = 2;

-- a conflict that is open and one that was decided, of a column that has another name since
CREATE TABLE disputed (id int PRIMARY KEY, title text);
SELECT esync_enable('disputed');
INSERT INTO disputed VALUES (1, 'old'), (2, 'old');
UPDATE disputed SET title = 'one';
BEGIN; SELECT esync_context(user_id => 'ben', base_version => 1); UPDATE disputed SET title = 'two' WHERE id = 1; COMMIT;
BEGIN; SELECT esync_context(user_id => 'ben', base_version => 1); UPDATE disputed SET title = 'two' WHERE id = 2; COMMIT;
ALTER TABLE disputed RENAME title TO heading;
UPDATE disputed SET heading = 'decided' WHERE id = 2;

CREATE TABLE idle (id int PRIMARY KEY, v text);
SELECT esync_enable('idle');
INSERT INTO idle VALUES (1, 'x');
SELECT esync_disable('idle');
UPDATE idle SET v = 'not recorded';

CREATE TABLE gone (id int PRIMARY KEY, v text);
SELECT esync_enable('gone');
INSERT INTO gone VALUES (1, 'x');
UPDATE gone SET v = 'y';
DROP TABLE gone;
CREATE TABLE dropped_history (id int PRIMARY KEY);
SELECT esync_enable('dropped_history'), esync_disable('dropped_history', drop_history => true);

-- edits that were handed in: one under a temporary id, one that was rejected
CREATE TABLE handed (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text CHECK (v <> 'bad'));
SELECT esync_enable('handed');
CREATE FUNCTION checks.handed() RETURNS jsonb LANGUAGE sql SET search_path = public AS $$
SELECT esync_submit('{"device_id": "tablet", "events": [
	{"id": "a0000000-0000-0000-0000-000000000001", "seq": 1, "table": "handed", "op": "create", "document": {"id": "tmp:1", "v": "good"}},
	{"id": "a0000000-0000-0000-0000-000000000002", "seq": 2, "table": "handed", "key": "tmp:1", "op": "update", "base_version": 1, "set": {"v": "bad"}}]}')
$$;
SELECT checks.handed();

-- what a DBA hangs onto a leaf
CREATE INDEX blocks_by_user ON esync.event_1 (user_id);
ALTER TABLE esync.event_1 ENABLE ROW LEVEL SECURITY;
CREATE POLICY only_mine ON esync.event_1 FOR SELECT TO reader USING (db_role = current_user);
GRANT SELECT ON esync.event_1 TO reader;
CREATE PUBLICATION of_blocks FOR TABLE esync.event_1;
SQL
	is( $node->safe_psql($db, q(SELECT count(*), min(table_id) FROM esync.tracked_table WHERE table_name = 'Blocks')),
		'1|1', 'the story is set');
	return;
}

# A column renamed, and one dropped, with no event since.
sub set_late
{
	my ($node, $db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION esync');
	install_checks($node, $db);
	$node->safe_psql($db, <<'SQL');
CREATE TABLE item (early text, id int PRIMARY KEY, a text, b text);
SELECT esync_enable('item');
INSERT INTO item VALUES ('x', 1, 'one', 'x');
UPDATE item SET a = 'two';
ALTER TABLE item DROP early;
ALTER TABLE item RENAME b TO c;
ALTER TABLE item RENAME a TO b;
SQL
	late_names($node, $db, 'where it was made');
	return;
}

# Kills a server as a crash would, and waits until its children have left the shared memory.
sub kill_server
{
	my ($node) = @_;
	my ($pid) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	$node->kill9;
	for (1 .. 100)
	{
		last unless kill(0, $pid);
		usleep(100_000);
	}
	return;
}

# Starts a server that was killed.
sub start_killed
{
	my ($node) = @_;
	for (1 .. 100)
	{
		return if $node->start(fail_ok => 1);
		usleep(100_000);
	}
	die 'the server did not come back';
}

# Tests: the history of a renamed column is told under its new name.
sub late_names
{
	my ($node, $db, $what) = @_;
	is( $node->safe_psql($db, q(SELECT field, version, value FROM field_history('item', 1))),
		"id|1|1\nb|2|\"two\"\nb|1|\"one\"\nc|1|\"x\"\nearly|1|\"x\"",
		"$what: names that no event has seen are known");
	faults_are_none($node, $db, "$what: nothing is wrong with them");
	return;
}

# Tests: writes go on where the story stopped, in a new epoch or not.
sub go_on
{
	my ($node, $db, $what, $epochs) = @_;
	my $last = $node->safe_psql($db, 'SELECT max(event_id) FROM esync.event');
	my $hung = $node->safe_psql($db, <<'SQL');
SELECT indexname FROM pg_indexes WHERE indexname = 'blocks_by_user'
UNION ALL SELECT policyname || ' for ' || roles::text FROM pg_policies WHERE tablename = 'event_1'
UNION ALL SELECT pubname || ' of ' || tablename FROM pg_publication_tables
UNION ALL SELECT 'granted ' || has_table_privilege('reader', 'esync.event_1', 'SELECT');
SQL
	is( $hung,
		"blocks_by_user\nonly_mine for {reader}\nof_blocks of event_1\ngranted true",
		"$what: what hung on the leaf is there");

	$node->safe_psql($db, <<'SQL');
UPDATE "Blocks" SET "Title" = 'new life' WHERE "Title" = 'after the renaming';
UPDATE pairs SET v = 7 WHERE b = 'x';
UPDATE parts SET v = v + 1;
UPDATE soft SET v = 'new' WHERE id = 1;
DELETE FROM parent;
BEGIN; SELECT esync_context(user_id => 'eve', base_version => 1); UPDATE disputed SET heading = 'three' WHERE id = 1; COMMIT;
BEGIN; SELECT esync_context(user_id => 'eve', base_version => 1); UPDATE disputed SET heading = 'three' WHERE id = 2; COMMIT;
SELECT esync_enable('idle');
UPDATE idle SET v = 'recorded again';
CREATE TABLE fresh (id int PRIMARY KEY);
SELECT esync_enable('fresh');
INSERT INTO fresh VALUES (1);
SQL
	is( $node->safe_psql($db, qq(
		SELECT t.table_name, e.aggregate_id, e.version, e.event_type, e.patch
		FROM esync.event e JOIN esync.tracked_table t USING (table_id)
		WHERE e.event_id > $last ORDER BY 1, 2, 3)),
		<<'EVENTS' =~ s/\n\z//r, "$what: events go on at the next version, with a Baseline only where something changed");
Blocks|00000000-0000-0000-0000-000000000001|5|Updated|[{"op": "replace", "path": "/Title", "value": "new life"}, {"op": "replace", "path": "/vSet Pressure", "value": 1.50}]
child|1|2|Deleted|[]
disputed|1|4|Updated|[{"op": "replace", "path": "/heading", "value": "three"}]
disputed|2|5|Updated|[{"op": "replace", "path": "/heading", "value": "three"}]
fresh|1|1|Created|[]
idle|1|2|Baseline|[{"op": "replace", "path": "/v", "value": "not recorded"}]
idle|1|3|Updated|[{"op": "replace", "path": "/v", "value": "recorded again"}]
pairs|[1, "x"]|3|Updated|[{"op": "replace", "path": "/v", "value": 7}]
parent|1|2|Deleted|[]
parts|1|3|Updated|[{"op": "replace", "path": "/v", "value": 2}]
parts|2|2|Updated|[{"op": "replace", "path": "/v", "value": 2}]
soft|1|4|Updated|[{"op": "replace", "path": "/v", "value": "new"}]
EVENTS
	is( $node->safe_psql($db, qq(SELECT DISTINCT epoch FROM esync.event WHERE event_id > $last)),
		$epochs, "$what: they are of the right epoch");
	is( $node->safe_psql($db, 'SELECT count(DISTINCT epoch) = max(epoch) FROM esync.life'),
		't', "$what: each epoch is known");
	is( $node->safe_psql($db, q(SELECT string_agg(value #>> '{}', ' < ') FROM field_history('"Blocks"', '00000000-0000-0000-0000-000000000001', 'Title'))),
		'new life < after the renaming < before the renaming < title 1', "$what: a renamed column keeps its history");
	is( $node->safe_psql($db, q(SELECT value FROM field_history('"Blocks"', '00000000-0000-0000-0000-000000000002', 'early'))),
		"20\n2", "$what: so does a dropped one");
	is( $node->safe_psql($db, q(SELECT aggregate_id, field, status, jsonb_array_length(contenders), conflict_id = max(conflict_id) OVER ()
			FROM esync_conflicts('disputed', status => 'all') ORDER BY conflict_id)),
		"1|heading|open|3|f\n2|heading|closed|2|f\n2|heading|open|2|t", "$what: open conflicts are joined, decided ones reopened as new ones");
	faults_are_none($node, $db, "$what: nothing is wrong");
	is($node->safe_psql($db, q(SELECT r->'ids' || (r->'results'->0) - 'effective_timestamp', r->'results'->1->'code', (SELECT tries FROM esync_rejected())
			FROM checks.handed() AS r)),
		'{"id": "a0000000-0000-0000-0000-000000000001", "tmp:1": 1, "status": "accepted", "version": 1, "duplicate": true}|"constraint"|1', "$what: a batch that is handed in again");
	return;
}

1;
