-- Reading: replay, state, as_of on both axes, version, status, and every way to say a key.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
SET datestyle = 'ISO, MDY';
CREATE SCHEMA rd;
SET search_path = rd, public;
CREATE TABLE v (id uuid PRIMARY KEY, title text, p numeric, tags jsonb);
SELECT esync_enable('v');
\set v '00000000-0000-0000-0000-000000000001'
\set w '00000000-0000-0000-0000-000000000002'

-- saved on days 1 .. 5 of November at noon
CREATE FUNCTION day(int) RETURNS void LANGUAGE sql AS $$ SELECT public.esync_context('u' || $1, 'd', submit_timestamp => '2025-11-01 12:00+00'::timestamptz + make_interval(days => $1 - 1)) $$;
BEGIN;
SELECT day(1); INSERT INTO v VALUES (:'v', 'one', 1.0, '{"a": 1}');
SELECT day(2); UPDATE v SET p = 2.00;
SELECT day(3); UPDATE v SET title = NULL, tags = '[]';
SELECT day(3); INSERT INTO v VALUES (:'w', 'two', NULL, NULL);
SELECT day(4); DELETE FROM v WHERE id = :'v';
SELECT day(5); INSERT INTO v VALUES (:'v', 'again', 5, NULL);
COMMIT;

-- NAME: replay: the state after each event, in submit order
SELECT version, event_type, effective_timestamp, patch, state FROM esync_replay('v', :'v');
-- state is null for a row that is not there
SELECT version, state IS NULL AS gone FROM esync_replay('v', :'v') WHERE event_type = 'Deleted';
-- bounded on the submit axis: as_of is the last moment that counts
SELECT version FROM esync_replay('v', :'v', as_of => '2025-11-02 12:00+00');
SELECT version FROM esync_replay('v', :'v', as_of => '2025-11-02 11:59:59.999999+00');
SELECT count(*) FROM esync_replay('v', :'v', as_of => '2025-10-01');
SELECT count(*) FROM esync_replay('v', :'v', '-infinity'), (SELECT count(*) AS all FROM esync_replay('v', :'v', 'infinity')) x;

-- NAME: state at any moment
SELECT d, esync_state('v', :'v', '2025-11-01 13:00+00'::timestamptz + make_interval(days => d - 1)) AS state FROM generate_series(0, 5) d;
SELECT esync_state('v', :'v'), esync_state('v', :'v', 'infinity') = esync_state('v', :'v') AS same;
SELECT esync_state('v', :'v', '-infinity') IS NULL AS none, esync_state('v', '00000000-0000-0000-0000-00000000000f') IS NULL AS unknown;
SELECT esync_state(NULL, :'v') IS NULL AS no_table, esync_state('v', NULL::text) IS NULL AS no_key;

-- NAME: as_of: the whole table then, typed
SELECT d, a.* FROM generate_series(0, 5) d, LATERAL esync_as_of(NULL::v, '2025-11-01 13:00+00'::timestamptz + make_interval(days => d - 1)) a ORDER BY d, id;
SELECT * FROM esync_as_of(NULL::rd.v, 'infinity') EXCEPT ALL SELECT * FROM v;
SELECT count(*) FROM esync_as_of(NULL::v, '-infinity');
-- it joins as a table does
SELECT a.title, v.title AS now FROM esync_as_of(NULL::v, '2025-11-01 13:00+00') a JOIN v USING (id);

-- NAME: known_at: what had reached the server by then
CREATE TABLE k (id int PRIMARY KEY, v text);
SELECT esync_enable('k');
BEGIN; SELECT day(1); INSERT INTO k VALUES (1, 'saved on day 1'); COMMIT;
SELECT clock_timestamp() AS t1 \gset
BEGIN; SELECT day(2); UPDATE k SET v = 'saved on day 2'; COMMIT;
SELECT clock_timestamp() AS t2 \gset
BEGIN; SELECT day(3); UPDATE k SET v = 'saved on day 3'; INSERT INTO k VALUES (2, 'x'); COMMIT;
SELECT esync_state('k', 1, known_at => :'t1')->'v' AS "known 1", esync_state('k', 1, known_at => :'t2')->'v' AS "known 2", esync_state('k', 1)->'v' AS "known all",
	esync_state('k', 1, '2025-11-01 13:00+00', :'t2')->'v' AS "day 1, known 2", esync_state('k', 1, '2025-11-02 13:00+00', :'t1')->'v' AS "day 2, known 1", esync_state('k', 1, known_at => '2025-11-03 13:00+00') AS "known then";
SELECT version FROM esync_replay('k', 1, known_at => :'t2');
SELECT * FROM esync_as_of(NULL::k, 'infinity', :'t2');
SELECT * FROM esync_as_of(NULL::k, 'infinity', '-infinity');
SELECT * FROM esync_as_of(NULL::k, '2025-11-02 13:00+00', :'t2');

-- NAME: a ground is before all time on the submit axis, and known when it was written
CREATE TABLE g (id int PRIMARY KEY, v text);
INSERT INTO g VALUES (1, 'old'), (2, 'untouched');
SELECT esync_enable('g');
BEGIN; SELECT day(2); UPDATE g SET v = 'new' WHERE id = 1; COMMIT;
SELECT esync_state('g', 1, '1999-01-01'), esync_state('g', 1, '2025-11-02 13:00+00'), esync_state('g', 1, 'infinity', '1999-01-01') AS unknown_then;
-- a row without events: its state is not in the stream, its version is that of the ground to come
SELECT esync_state('g', 2), esync_version('g', 2);

-- NAME: a state in the past has the columns of today
ALTER TABLE k ADD COLUMN extra int DEFAULT 7;
ALTER TABLE k RENAME COLUMN v TO text;
SELECT * FROM esync_as_of(NULL::k, '2025-11-02 13:00+00');
SELECT esync_state('k', 1, '2025-11-01 13:00+00');
ALTER TABLE k DROP COLUMN extra;
ALTER TABLE k ALTER id TYPE bigint;
SELECT * FROM esync_as_of(NULL::k, '2025-11-02 13:00+00');

-- NAME: version: of the head; 0 or null for none; 1 for a row without events
SELECT esync_version('v', :'v'), esync_version('v', :'w'::uuid), esync_version('v', '00000000-0000-0000-0000-00000000000f') AS unknown, esync_version('g', 2) AS ground, esync_version('g', 3) AS none;
DELETE FROM g WHERE id = 2;
SELECT esync_version('g', 2);
-- as of the statement's snapshot: the row and its version belong together
WITH up AS (UPDATE g SET v = v || '!' WHERE id = 1 RETURNING esync_version('g', id) AS before) SELECT before, esync_version('g', 1) AS same_snapshot FROM up;
SELECT esync_version('g', 1);

-- NAME: keys: uuid, int, text, literal, ROW, composite, JSON, prepared statement
SELECT count(*) FILTER (WHERE s IS NOT NULL) AS found, count(*) FROM (VALUES (esync_state('v', :'v'::uuid)), (esync_state('v', :'v'::text)), (esync_state('v', :'v')), (esync_state('v', upper(:'v'))),
	(esync_state('v', '{00000000-0000-0000-0000-000000000001}')), (esync_state('v', :'v'::varchar))) x (s);
CREATE TABLE c (a int, b text, at timestamptz, v int, PRIMARY KEY (b, a, at));
SELECT esync_enable('c');
INSERT INTO c VALUES (1, 'x,"y', '2025-01-01 12:00+00', 1);
UPDATE c SET v = 2;
CREATE TYPE ck AS (b text, a int, at timestamptz);
SELECT aggregate_id FROM witness.stream('c') WHERE version = 1;
SET timezone = 'Asia/Kathmandu';
SELECT count(*) FILTER (WHERE s = 2) AS found, count(*) FROM (VALUES (esync_version('c', ROW('x,"y', 1, '2025-01-01 12:00+00'))), (esync_version('c', ROW('x,"y'::text, 1::bigint, timestamptz '2025-01-01 13:00+01'))),
	(esync_version('c', ROW('x,"y', 1, '2025-01-01 12:00+00')::ck)), (esync_version('c', '["x,\"y", 1, "2025-01-01T12:00:00+00:00"]')), (esync_version('c', ' [ "x,\"y" , 1 , "2025-01-01 17:45:00" ]'::text)),
	(esync_version('c', '{"a": 1, "at": "2025-01-01T12:00:00Z", "b": "x,\"y"}')), (esync_version('c', jsonb_build_object('a', 1, 'b', 'x,"y', 'at', '2025-01-01 12:00Z')))) x (s);
SELECT esync_version('c', ROW(c.b, c.a, c.at)) FROM c;
RESET timezone;
SET TIME ZONE 'UTC';
PREPARE q AS SELECT esync_version('k', $1);
EXECUTE q (1);
EXECUTE q ('2');
PREPARE qi (int) AS SELECT esync_version('k', $1);
EXECUTE qi (1);
PREPARE qb (bigint, text) AS SELECT esync_version('k', $1), (SELECT count(*) FROM field_history('k', $1, 'text')), (SELECT count(*) FROM esync_history('k', $2));
EXECUTE qb (1, '1');
DEALLOCATE ALL;
-- by column of a query, for each row
SELECT k.id, h.count, r.n, esync_version('k', k.id) FROM k, LATERAL (SELECT count(*) FROM esync_history('k', k.id)) h, LATERAL (SELECT count(*) AS n FROM esync_replay('k', k.id::text)) r ORDER BY 1;

-- NAME: deleted rows can be read
CREATE TABLE x (id int PRIMARY KEY, v text);
SELECT esync_enable('x');
INSERT INTO x VALUES (1, 'a');
UPDATE x SET v = 'last';
DELETE FROM x;
SELECT esync_state('x', 1) IS NULL AS gone, esync_version('x', 1);
SELECT version, event_type, state FROM esync_replay('x', 1);
SELECT version, event_type, payload FROM esync_history('x', 1);
SELECT field, version, value, status FROM field_history('x', 1);
SELECT esync_row('x', '1')->'deleted' AS deleted, esync_row('x', '1')->'row' AS "row";

-- NAME: status: one row a table, with numbers that are true
SELECT tbl, mode, enabled, events, aggregates, bytes = pg_total_relation_size('esync.event_' || (options->>'table_id')) AS bytes, oldest = (SELECT min(commit_timestamp) FROM witness.events(tbl)) AS oldest,
	newest = (SELECT max(commit_timestamp) FROM witness.events(tbl)) AS newest, open_conflicts, rejected FROM esync_status() WHERE options->>'schema' = 'rd';
SELECT options - 'table_id' - 'since' AS options FROM esync_status() WHERE tbl = 'v'::regclass;
SELECT esync_disable('x');
SELECT enabled, events FROM esync_status() WHERE tbl = 'x'::regclass;
CREATE TABLE empty (id int PRIMARY KEY);
SELECT esync_enable('empty');
SELECT events, aggregates, oldest, newest FROM esync_status() WHERE tbl = 'empty'::regclass;

-- NAME: verify finds what was planted
CREATE TABLE p (id int PRIMARY KEY, v text);
SELECT esync_enable('p');
INSERT INTO p SELECT i, 'a' FROM generate_series(1, 8) i;
UPDATE p SET v = 'b';
UPDATE p SET v = 'c';
DELETE FROM p WHERE id = 8;
SELECT count(*) FROM esync_verify('p');
SELECT 'esync.event_' || table_id AS leaf FROM esync.tracked_table WHERE relation = 'p'::regclass \gset
ALTER TABLE p DISABLE TRIGGER USER;
UPDATE p SET v = 'planted' WHERE id = 1;
DELETE FROM p WHERE id = 2;
INSERT INTO p VALUES (8, 'back');
ALTER TABLE p ENABLE TRIGGER USER;
DELETE FROM :leaf WHERE aggregate_id = '3' AND version = 2;
UPDATE :leaf SET payload = payload || '{"v": "forged"}' WHERE aggregate_id = '4' AND version = 3;
UPDATE :leaf SET patch = '[{"op": "replace", "path": "/v", "value": "forged"}]' WHERE aggregate_id = '5' AND version = 3;
UPDATE :leaf SET event_id = 1 WHERE aggregate_id = '6' AND version = 3;
SELECT aggregate_id, problem, regexp_replace(detail::text, '(event_id": )\d{2,}', '\1N', 'g') AS detail FROM esync_verify('p') ORDER BY 1, 2;
-- of one row
SELECT problem FROM esync_verify('p', '4');
SELECT count(*) FROM esync_verify('p', '7');
SELECT esync_row('p', '1')->'drift'->0->>'problem' AS drift;
-- and of the table
ALTER TABLE p DISABLE TRIGGER "0_esync_truncate";
ALTER TABLE p DROP CONSTRAINT p_pkey;
SELECT problem, detail FROM esync_verify('p') WHERE aggregate_id IS NULL;
SELECT indexrelid::regclass AS index FROM pg_index WHERE indrelid = :'leaf'::regclass AND indisunique \gset
DROP INDEX :index;
SELECT problem FROM esync_verify('p') WHERE aggregate_id IS NULL;

-- NAME: every reader agrees with the witness for every version
CREATE TABLE m (id int PRIMARY KEY, a int, b text, gone timestamptz);
SELECT esync_enable('m', payload => 'changes', tombstone => 'gone');
INSERT INTO m SELECT i, 0, 'row' FROM generate_series(1, 5) i;
DO $$
BEGIN
	FOR i IN 1 .. 200 LOOP
		CASE i % 7
		WHEN 0 THEN DELETE FROM rd.m WHERE id = i % 5 + 1;
		WHEN 1 THEN INSERT INTO rd.m VALUES (i % 5 + 1, i, 'again') ON CONFLICT (id) DO UPDATE SET a = i;
		WHEN 2 THEN UPDATE rd.m SET gone = CASE WHEN gone IS NULL THEN '2025-01-01 00:00+00'::timestamptz END WHERE id = i % 5 + 1;
		ELSE UPDATE rd.m SET a = i, b = 'edit ' || i WHERE id = i % 5 + 1;
		END CASE;
	END LOOP;
END $$;
SELECT count(*) > 100 AS enough FROM witness.events('m');
CREATE VIEW expected AS SELECT aggregate_id, version, event_type, effective_timestamp, witness.replay(event_type, patch, payload) OVER (PARTITION BY aggregate_id ORDER BY version) AS state FROM witness.events('rd.m');
SELECT count(*) AS replay FROM expected e FULL JOIN (SELECT i::text AS aggregate_id, r.* FROM generate_series(1, 5) i, esync_replay('m', i) r) r USING (aggregate_id, version) WHERE e.state IS DISTINCT FROM r.state;
SELECT count(*) AS history FROM expected e FULL JOIN (SELECT i::text AS aggregate_id, r.* FROM generate_series(1, 5) i, esync_history('m', i) r) r USING (aggregate_id, version)
WHERE e.state IS DISTINCT FROM r.payload AND e.state IS NOT NULL;
SELECT count(*) AS state FROM expected e WHERE e.state IS DISTINCT FROM esync_state('m', aggregate_id, effective_timestamp);
SELECT count(*) AS as_of FROM expected x, LATERAL (
	SELECT jsonb_object_agg(then_row.id, to_jsonb(then_row) - 'gone') AS doc FROM esync_as_of(NULL::m, x.effective_timestamp) then_row) a, LATERAL (
	SELECT jsonb_object_agg(l.aggregate_id, l.state - 'gone') FILTER (WHERE l.state IS NOT NULL) AS doc
	FROM (SELECT DISTINCT ON (aggregate_id) * FROM expected e WHERE e.effective_timestamp <= x.effective_timestamp ORDER BY aggregate_id, version DESC) l) b
WHERE x.version % 5 = 0 AND a.doc IS DISTINCT FROM b.doc;
SELECT * FROM witness.differences('m');

SELECT count(esync_disable(relation, true)) FROM esync.tracked_table WHERE schema_name = 'rd';
DROP SCHEMA rd, witness CASCADE;
