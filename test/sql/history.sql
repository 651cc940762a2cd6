-- field_history, esync_history, esync_timeline and esync_row.
-- Contexts are recorded here and no more: sql_merge is off.
-- Moments of authors are fixed; commits happen now and are not printed.
SET TIME ZONE 'UTC';
SET DateStyle TO 'ISO';
SET client_min_messages TO warning;
CREATE SCHEMA history;

-- who, on which device, saved at that hour of day 17 (taken an hour before)
CREATE FUNCTION history.at(who text, device text, hour int) RETURNS void LANGUAGE sql AS $$
SELECT esync_context(user_id => who, device_id => device,
	branch_timestamp => '2025-11-17 00:00+00'::timestamptz + make_interval(hours => hour - 1),
	submit_timestamp => '2025-11-17 00:00+00'::timestamptz + make_interval(hours => hour))
$$;

CREATE TABLE history.valve (
	valve_id	uuid PRIMARY KEY,
	pressure	numeric,
	title		text,
	secret		text,
	noise		text,
	changed_at	timestamptz,
	tags		jsonb
);
SELECT esync_enable('history.valve', mask => '{secret}', exclude => '{noise}',
	last_modified => '{changed_at}', sql_merge => false);
\set v '00000000-0000-0000-0000-000000000001'

-- nothing yet
SELECT count(*) FROM field_history('history.valve', :'v');
SELECT count(*) FROM esync_history('history.valve', :'v');
SELECT count(*) FROM esync_timeline('history.valve', :'v');
SELECT esync_row('history.valve', :'v');

BEGIN;
SELECT history.at('ann', 'tablet-1', 8);
INSERT INTO history.valve (valve_id, pressure, title, secret, noise, tags)
VALUES (:'v', 137, 'Main', 'pin', 'n', '{"a": [1, null]}');
COMMIT;
BEGIN;
SELECT history.at('bob', 'tablet-2', 10);
UPDATE history.valve SET pressure = 140, title = NULL WHERE valve_id = :'v';
COMMIT;
BEGIN;
SELECT history.at('ann', 'tablet-1', 12);
UPDATE history.valve SET pressure = 139.5, secret = 'other', noise = 'm' WHERE valve_id = :'v';
COMMIT;
BEGIN;
SELECT history.at('ann', NULL, 13);
UPDATE history.valve SET title = 'Main valve' WHERE valve_id = :'v';
UPDATE history.valve SET noise = 'only' WHERE valve_id = :'v';
COMMIT;

-- one field, newest first
SELECT field, version, event_type, value, previous_value, user_id, device_id, status
FROM field_history('history.valve', :'v', 'pressure');
SELECT branch_timestamp, submit_timestamp, effective_timestamp,
	commit_timestamp > submit_timestamp AS committed_later
FROM field_history('history.valve', :'v', 'title');
-- all fields, in column order; what is excluded or kept by esync has no track
SELECT field, version, value, previous_value, status FROM field_history('history.valve', :'v');
-- SQL NULL where nothing was before, JSON null where null was
SELECT version, value IS NULL AS value_null, previous_value IS NULL AS previous_null
FROM field_history('history.valve', :'v', 'title');

-- both signatures, and the parameters that drivers send
SELECT count(*) FROM field_history('history.valve', :'v'::uuid, 'pressure');
SELECT count(*) FROM field_history('history.valve', upper(:'v'), 'pressure');
PREPARE by_driver AS SELECT count(*) FROM field_history('history.valve', $1, 'pressure');
EXECUTE by_driver(:'v');
SELECT count(*) FROM field_history('history.valve', '00000000-0000-0000-0000-000000000002');
SELECT count(*) FROM field_history('history.valve', NULL::uuid);
SELECT count(*) FROM field_history(NULL, 'x'::text);
SELECT count(*) FROM esync_history('history.valve', NULL::text);

-- names and tables that are not there
SELECT * FROM field_history('history.valve', :'v', 'presure');
\echo :LAST_ERROR_SQLSTATE
CREATE TABLE history.plain (id int PRIMARY KEY);
SELECT * FROM field_history('history.plain', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM field_history('history.valve', :'v', 'noise');
SELECT count(*) FROM field_history('history.valve', :'v', 'changed_at');

-- one row an event; a last_modified column is no part of a patch
SELECT version, event_type, base_version, patch, payload - 'changed_at' AS payload,
	user_id, device_id, meta
FROM esync_history('history.valve', :'v');

-- a renamed column keeps its track, a dropped one stays readable
ALTER TABLE history.valve RENAME COLUMN title TO "Title of it";
ALTER TABLE history.valve DROP COLUMN tags;
ALTER TABLE history.valve ADD COLUMN level int DEFAULT 5;
ALTER TABLE history.valve ADD COLUMN remark text;
BEGIN;
SELECT history.at('bob', 'tablet-2', 14);
UPDATE history.valve SET "Title of it" = 'Spare', level = 6, remark = 'r' WHERE valve_id = :'v';
COMMIT;
SELECT field, version, value, previous_value, status FROM field_history('history.valve', :'v')
WHERE field NOT IN ('valve_id', 'pressure', 'secret');
SELECT field, version, value FROM field_history('history.valve', :'v', 'Title of it');
SELECT field, version, value, status FROM field_history('history.valve', :'v', 'tags');
-- its former name does as well; 42703 is a name that nothing ever had
SELECT DISTINCT field FROM field_history('history.valve', :'v', 'title');
SELECT field_history('history.valve', :'v', 'titel');

-- a hard delete is a row of its own, and so is what brings the row back
BEGIN;
SELECT history.at('cleo', 'desk', 15);
DELETE FROM history.valve WHERE valve_id = :'v';
COMMIT;
SELECT field, version, event_type, value, previous_value, status
FROM field_history('history.valve', :'v', 'level');
SELECT version, event_type, patch, payload ->> 'level' AS level
FROM esync_history('history.valve', :'v') WHERE event_type = 'Deleted';
SELECT esync_row('history.valve', :'v') -> 'row' AS row, esync_row('history.valve', :'v') -> 'deleted' AS deleted;
BEGIN;
SELECT history.at('cleo', 'desk', 16);
INSERT INTO history.valve (valve_id, pressure, level) VALUES (:'v', 1, 2);
COMMIT;
SELECT field, version, event_type, value, previous_value, status
FROM field_history('history.valve', :'v', 'level');
SELECT version, event_type, status FROM field_history('history.valve', :'v') WHERE field IS NULL;

-- a tombstone has a track, and no row of its own
CREATE TABLE history.soft (id int PRIMARY KEY, t text, deleted_at timestamptz);
SELECT esync_enable('history.soft', tombstone => 'deleted_at', sql_merge => false);
BEGIN; SELECT history.at('ann', 'tablet-1', 8); INSERT INTO history.soft VALUES (1, 'a'); COMMIT;
BEGIN; SELECT history.at('ann', 'tablet-1', 9);
UPDATE history.soft SET deleted_at = '2025-11-17 09:00+00' WHERE id = 1; COMMIT;
BEGIN; SELECT history.at('bob', 'tablet-2', 10);
UPDATE history.soft SET deleted_at = NULL WHERE id = 1; COMMIT;
SELECT field, version, event_type, value, previous_value, status FROM field_history('history.soft', 1);

-- a row that was there before esync: its ground is a Baseline
CREATE TABLE history.old (id int PRIMARY KEY, t text);
INSERT INTO history.old VALUES (1, 'before'), (2, 'untouched');
SELECT esync_enable('history.old', sql_merge => false);
BEGIN; SELECT history.at('ann', 'tablet-1', 8); UPDATE history.old SET t = 'after' WHERE id = 1; COMMIT;
SELECT field, version, event_type, value, previous_value, effective_timestamp, status
FROM field_history('history.old', 1);
SELECT moment, lane, event_type, patch FROM esync_timeline('history.old', 1);
SELECT esync_row('history.old', '2');
SELECT esync_row('history.old', '3');

-- a change of key: the track goes on under the new key
CREATE TABLE history.pair (a text, b int, c text, d text, PRIMARY KEY (a, b));
SELECT esync_enable('history.pair', sql_merge => false);
BEGIN; SELECT history.at('ann', 'tablet-1', 8); INSERT INTO history.pair VALUES ('x', 1, 'c1', 'd1'); COMMIT;
BEGIN; SELECT history.at('ann', 'tablet-1', 9); UPDATE history.pair SET c = 'c2'; COMMIT;
BEGIN; SELECT history.at('bob', 'tablet-2', 10); UPDATE history.pair SET b = 2, d = 'd2'; COMMIT;
BEGIN; SELECT history.at('bob', 'tablet-2', 11); UPDATE history.pair SET c = 'c3'; COMMIT;
SELECT field, version, event_type, value, previous_value, status
FROM field_history('history.pair', ROW('x', 2));
SELECT count(*) FROM field_history('history.pair', '["x", 2]');
SELECT field, version, event_type, value, status FROM field_history('history.pair', ROW('x', 1));
SELECT version, event_type, patch, payload FROM esync_history('history.pair', ROW('x', 2));

-- what happened unseen is found at the next write, and is a Baseline's
CREATE TABLE history.drift (id int PRIMARY KEY, t text, u text);
SELECT esync_enable('history.drift', sql_merge => false);
BEGIN; SELECT history.at('ann', 'tablet-1', 8);
INSERT INTO history.drift VALUES (1, 'a', 'b'), (2, 'a', 'b'); COMMIT;
SET esync.enabled = off;
UPDATE history.drift SET t = 'unseen' WHERE id = 1;
RESET esync.enabled;
BEGIN; SELECT history.at('ann', 'tablet-1', 9); UPDATE history.drift SET u = 'c' WHERE id = 1; COMMIT;
SELECT field, version, event_type, value, previous_value, user_id, status
FROM field_history('history.drift', 1);

-- late events, as they will come by esync_submit: made by hand here.
-- Two creates of one key, each naming a column; an edit saved earlier than one
-- committed before it; a default is no edit, but is what the next edit replaced.
CREATE TABLE history.late (id int PRIMARY KEY, a text DEFAULT 'default', b text DEFAULT 'default');
SELECT esync_enable('history.late');
INSERT INTO esync.event (event_id, xid, version, base_version, branch_timestamp, submit_timestamp,
	commit_timestamp, effective_timestamp, effective_high, epoch, table_id, flags, row_xmin, event_type,
	aggregate_id, user_id, device_id, db_role, patch, payload)
SELECT nextval('esync.event_id_seq'), pg_current_xact_id(), v, base, at, at, '2025-11-30 00:00+00',
	at, max(at) OVER (ORDER BY v), 1, table_id, 0, '0', type, '1', who, who || '-tablet', 'nobody',
	e.patch::jsonb, e.payload::jsonb
FROM esync.tracked_table, LATERAL (VALUES
	(1, 0, '2025-11-17 10:00+00'::timestamptz, 'Created', 'ann',
		'[{"op": "add", "path": "/id", "value": 1}, {"op": "add", "path": "/a", "value": "ann"}]',
		'{"a": "ann", "b": "default", "id": 1}'),
	(2, 0, '2025-11-17 09:00+00', 'Created', 'bob',
		'[{"op": "add", "path": "/id", "value": 1}, {"op": "add", "path": "/b", "value": "bob"}]',
		'{"a": "ann", "b": "bob", "id": 1}'),
	(3, 2, '2025-11-17 12:00+00', 'Updated', 'ann',
		'[{"op": "replace", "path": "/a", "value": "later"}]', '{"a": "later", "b": "bob", "id": 1}'),
	(4, 2, '2025-11-17 11:00+00', 'Updated', 'bob',
		'[{"op": "replace", "path": "/a", "value": "earlier"}]', '{"a": "later", "b": "bob", "id": 1}'),
	(5, 3, '2025-11-17 12:30+00', 'Deleted', 'ann', '[]', '{"a": "later", "b": "bob", "id": 1}'),
	(6, 2, '2025-11-17 12:15+00', 'Updated', 'bob',
		'[{"op": "replace", "path": "/b", "value": null}, {"op": "replace", "path": "/a~1b/c", "value": 1}]',
		NULL)
	) AS e (v, base, at, type, who, patch, payload)
WHERE relation = 'history.late'::regclass;
SELECT field, version, event_type, value, previous_value, user_id, status
FROM field_history('history.late', 1);
SELECT version, event_type, payload FROM esync_history('history.late', 1);

-- payload 'changes': what is not stored is computed, and is the same
CREATE TABLE history.full (id int PRIMARY KEY, a int, b text, s text, deleted_at timestamptz);
CREATE TABLE history.changes (LIKE history.full INCLUDING ALL);
SELECT esync_enable('history.full', mask => '{s}');
SELECT esync_enable('history.changes', mask => '{s}', payload => 'changes');
CREATE PROCEDURE history.both(command text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format(command, 'history.full');
	EXECUTE format(command, 'history.changes');
END
$$;
CALL history.both('INSERT INTO %s VALUES (1, 1, ''one'', ''secret'')');
CALL history.both('UPDATE %s SET a = 2');
CALL history.both('UPDATE %s SET b = NULL, s = ''other''');
CALL history.both('DELETE FROM %s');
CALL history.both('INSERT INTO %s VALUES (1, 3, ''three'', ''secret'')');
CALL history.both('UPDATE %s SET a = 4, b = ''four''');
SELECT count(*) AS events, count(e.payload) AS stored FROM esync.event e
JOIN esync.tracked_table t USING (table_id) WHERE t.relation = 'history.changes'::regclass;
SELECT c.version, c.event_type, c.payload, c.payload = f.payload AS same
FROM esync_history('history.changes', 1) c JOIN esync_history('history.full', 1) f USING (version)
ORDER BY 1;

-- for any run of statements: the newest bar of a field is what the row shows,
-- each bar replaced the one below it, and the last event left what the row is
CREATE TABLE history.fuzz (id int PRIMARY KEY, a int, b text, c jsonb);
SELECT esync_enable('history.fuzz');
CREATE PROCEDURE history.run(statements int) LANGUAGE plpgsql AS $$
DECLARE
	k int;
BEGIN
	FOR i IN 1 .. statements LOOP
		k := 1 + floor(random() * 6);
		PERFORM esync_context(user_id => 'u' || k, device_id => CASE WHEN random() < 0.7 THEN 'd' || k END,
			submit_timestamp => CASE WHEN random() < 0.7 THEN
				'2025-11-17 00:00+00'::timestamptz + random() * interval '1 week' END);
		CASE floor(random() * 8)
			WHEN 0 THEN INSERT INTO history.fuzz VALUES (k, i, 'inserted', NULL) ON CONFLICT DO NOTHING;
			WHEN 1 THEN DELETE FROM history.fuzz WHERE id = k;
			WHEN 2 THEN UPDATE history.fuzz SET id = id + 100 WHERE id = k AND NOT EXISTS (
				SELECT FROM history.fuzz WHERE id = k + 100);
			WHEN 3 THEN UPDATE history.fuzz SET b = NULL, c = jsonb_build_object('i', i) WHERE id % 100 = k;
			WHEN 4 THEN UPDATE history.fuzz SET b = 'set', c = 'null' WHERE id % 100 = k;
			ELSE UPDATE history.fuzz SET a = i WHERE id % 100 = k;
		END CASE;
	END LOOP;
END
$$;
SELECT setseed(0.25);
CALL history.run(500);
SELECT count(*) > 300 AS many, count(DISTINCT event_type) AS types FROM esync.event
JOIN esync.tracked_table USING (table_id) WHERE relation = 'history.fuzz'::regclass;
SELECT f.id, h.field, h.value, to_jsonb(f) -> h.field AS shown
FROM history.fuzz f, field_history('history.fuzz', f.id) h
WHERE h.status = 'current' AND h.field IS NOT NULL AND h.value <> to_jsonb(f) -> h.field;
SELECT count(*) = 4 * (SELECT count(*) FROM history.fuzz) AS all_current
FROM history.fuzz f, field_history('history.fuzz', f.id) h WHERE h.status = 'current' AND h.field IS NOT NULL;
SELECT count(*) > 300 AS many, count(*) FILTER (WHERE previous_value IS DISTINCT FROM below) AS broken
FROM (SELECT h.previous_value, lead(h.value) OVER (PARTITION BY k, h.field ORDER BY h.n) AS below
	FROM (SELECT DISTINCT aggregate_id AS k FROM esync.event JOIN esync.tracked_table USING (table_id)
		WHERE relation = 'history.fuzz'::regclass) a,
		field_history('history.fuzz', k) WITH ORDINALITY AS h (field, version, event_id, event_type, value,
		previous_value, user_id, device_id, branch_timestamp, submit_timestamp, commit_timestamp,
		effective_timestamp, status, n)
	WHERE h.field IS NOT NULL) chain;
SELECT f.id FROM history.fuzz f WHERE to_jsonb(f) IS DISTINCT FROM (
	SELECT payload FROM esync_history('history.fuzz', f.id) WITH ORDINALITY ORDER BY ordinality DESC LIMIT 1);
SELECT f.id FROM history.fuzz f WHERE to_jsonb(f) IS DISTINCT FROM esync_row('history.fuzz', f.id::text) -> 'row';

-- branch, submit and commit of two authors whose work overlaps
CREATE TABLE history.lane (id int PRIMARY KEY, t text);
SELECT esync_enable('history.lane', sql_merge => false);
INSERT INTO history.lane VALUES (1, 'plain');
BEGIN;
SELECT esync_context(user_id => 'ann', device_id => 'tablet-1',
	branch_timestamp => '2025-11-17 06:00+00', submit_timestamp => '2025-11-19 06:00+00');
UPDATE history.lane SET t = 'ann';
COMMIT;
BEGIN;
SELECT esync_context(user_id => 'bob', device_id => 'tablet-2',
	branch_timestamp => '2025-11-18 06:00+00', submit_timestamp => '2025-11-20 06:00+00');
UPDATE history.lane SET t = 'bob';
COMMIT;
BEGIN;
SELECT esync_context(user_id => 'ann', device_id => 'tablet-1',
	branch_timestamp => '2025-11-18 12:00+00', submit_timestamp => '2025-11-18 11:00+00');
UPDATE history.lane SET t = 'ann again';
COMMIT;
SELECT CASE WHEN moment <> 'commit' THEN at END AS at, moment, lane, event_type, user_id, device_id, patch
FROM esync_timeline('history.lane', 1);

-- the whole document
SELECT jsonb_object_keys(esync_row('history.pair', '["x", 2]')) AS member ORDER BY 1;
SELECT r - 'fields' - 'timeline' AS head FROM esync_row('history.pair', '["x", 2]') r;
SELECT f -> 'field' AS field, f -> 'current_value' AS current_value,
	jsonb_array_length(f -> 'history') AS bars, f #> '{history,0,value}' AS newest
FROM jsonb_array_elements(esync_row('history.pair', '["x", 2]') -> 'fields') f;
SELECT (f #> '{history,1}') - 'event_id' - 'commit_timestamp' AS bar
FROM jsonb_array_elements(esync_row('history.pair', '["x", 2]') -> 'fields') f
WHERE f ->> 'field' = 'c';
SELECT e -> 'version' AS version, e -> 'event_type' AS event_type, e ? 'payload' AS payload
FROM jsonb_array_elements(esync_row('history.pair', '["x", 2]') -> 'timeline') e;
SELECT f -> 'field' AS field, f -> 'current_value' AS current_value
FROM jsonb_array_elements(esync_row('history.valve', :'v') -> 'fields') f
WHERE f ->> 'field' <> 'changed_at';
-- times are UTC whatever the session says
SET TIME ZONE 'Asia/Tokyo';
SELECT e -> 'submit_timestamp' AS submitted
FROM jsonb_array_elements(esync_row('history.pair', '["x", 2]') -> 'timeline') e LIMIT 1;
SET TIME ZONE 'UTC';

-- columns that the caller may not read
CREATE ROLE history_reader;
GRANT USAGE ON SCHEMA history TO history_reader;
SET ROLE history_reader;
SELECT * FROM field_history('history.pair', ROW('x', 2));
RESET ROLE;
GRANT SELECT (a, b, c) ON history.pair TO history_reader;
GRANT SELECT (valve_id, pressure) ON history.valve TO history_reader;
SET ROLE history_reader;
SELECT field, version, value FROM field_history('history.pair', ROW('x', 2));
SELECT * FROM field_history('history.pair', ROW('x', 2), 'd');
SELECT * FROM field_history('history.valve', :'v', 'tags');
SELECT version, patch, payload FROM esync_history('history.pair', ROW('x', 2));
SELECT patch FROM esync_timeline('history.pair', ROW('x', 2)) WHERE moment = 'commit';
SELECT r -> 'row' AS row, r::text LIKE '%d2%' AS leaks FROM esync_row('history.pair', '["x", 2]') r;
RESET ROLE;

-- rows that policies hide
CREATE TABLE history.own (id int PRIMARY KEY, owner text, t text);
SELECT esync_enable('history.own');
INSERT INTO history.own VALUES (1, 'history_reader', 'mine'), (2, 'someone', 'theirs'), (3, 'history_reader', 'gone');
DELETE FROM history.own WHERE id = 3;
ALTER TABLE history.own ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON history.own USING (owner = current_user);
GRANT SELECT ON history.own TO history_reader;
SET ROLE history_reader;
SELECT id, (SELECT count(*) FROM field_history('history.own', id)) AS bars,
	(SELECT count(*) FROM esync_history('history.own', id)) AS events,
	(SELECT count(*) FROM esync_timeline('history.own', id)) AS moments,
	(SELECT count(*) FROM esync_graph('history.own', id)) AS lines
FROM generate_series(1, 3) id;
SELECT esync_row('history.own', id::text) - 'fields' - 'timeline' AS row FROM generate_series(1, 4) id;
RESET ROLE;

-- switched off: the history stays
SELECT esync_disable('history.old');
SELECT count(*) FROM field_history('history.old', 1);

SELECT esync_disable(t::regclass, drop_history => true)
FROM unnest('{history.fuzz,history.drift,history.late,history.valve,history.soft,history.old,history.pair,history.full,history.changes,history.lane,history.own}'::text[]) t;
DROP SCHEMA history CASCADE;
DROP ROLE history_reader;
