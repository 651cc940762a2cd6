-- esync_graph: lanes as git log --graph draws them.
-- Commits happen now: their time is blotted out.
SET TIME ZONE 'Asia/Tokyo';	-- the drawing is in UTC all the same
SET DateStyle TO 'ISO';
SET client_min_messages TO warning;
CREATE SCHEMA graph;
CREATE TABLE graph.block (id int PRIMARY KEY, pressure float8, title text, note text, extra text);
SELECT esync_enable('graph.block', sql_merge => false);	-- contexts are recorded, and no more
CREATE FUNCTION graph.draw(key int, color boolean DEFAULT false) RETURNS SETOF text LANGUAGE sql AS $$
SELECT regexp_replace(line, '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?=  v)', '(time of the commit)')
FROM esync_graph('graph.block', key, color) AS line
$$;

-- nobody was away
BEGIN; SELECT esync_context(user_id => 'ann'); INSERT INTO graph.block VALUES (1, 137, 'Main'); COMMIT;
BEGIN; SELECT esync_context(user_id => 'bob'); UPDATE graph.block SET pressure = 138 WHERE id = 1; COMMIT;
SELECT * FROM graph.draw(1);

-- one author was
BEGIN;
SELECT esync_context(user_id => 'ann', device_id => 'tablet-1',
	branch_timestamp => clock_timestamp(), submit_timestamp => clock_timestamp());
UPDATE graph.block SET pressure = 140, title = NULL WHERE id = 1;
COMMIT;
SELECT regexp_replace(line, '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', '(now)')
FROM esync_graph('graph.block', 1) AS line;

-- a week of three that reconnect in the wrong order: lanes beside each other,
-- a lane that is used again, and one for the two events of a device that overlap.
-- Made by hand, because commits cannot be dated otherwise.
INSERT INTO esync.event (event_id, xid, version, base_version, branch_timestamp, submit_timestamp,
	commit_timestamp, effective_timestamp, effective_high, epoch, table_id, flags, row_xmin, event_type,
	aggregate_id, user_id, device_id, db_role, patch, payload)
SELECT nextval('esync.event_id_seq'), pg_current_xact_id(), v, v - 1, branch, submit, commit,
	submit, max(submit) OVER (ORDER BY v), 1, table_id, 0, '0', type, '2', who, device, 'nobody',
	e.patch::jsonb, e.payload::jsonb
FROM esync.tracked_table, LATERAL (VALUES
	(1, '2025-11-10 06:00+00'::timestamptz, '2025-11-10 18:00+00'::timestamptz, '2025-11-11 09:00+00'::timestamptz,
		'Created', 'ann', 'tablet-1', '[]', '{"id": 2, "note": null, "extra": null, "title": "Pump", "pressure": 10}'),
	(2, '2025-11-18 06:00+00', '2025-11-20 06:00+00', '2025-11-21 06:00+00', 'Updated', 'bob', 'tablet-2',
		'[{"op": "replace", "path": "/title", "value": "Pump of bob"}]', NULL),
	(3, '2025-11-17 06:00+00', '2025-11-19 06:00:00.75+00', '2025-11-21 07:00+00', 'Updated', 'ann', 'tablet-1',
		'[{"op": "replace", "path": "/pressure", "value": 11}, {"op": "replace", "path": "/title", "value": "Pump of ann"}]', NULL),
	(4, '2025-11-18 07:00+00', '2025-11-18 08:00+00', '2025-11-22 08:00+00', 'Updated', 'cleo', 'phone',
		'[{"op": "replace", "path": "/note", "value": "n"}]', NULL),
	(5, '2025-11-22 09:00+00', '2025-11-22 09:00+00', '2025-11-22 09:00+00', 'Updated', 'bob', NULL,
		'[{"op": "replace", "path": "/note", "value": null}]', NULL),
	(6, '2025-11-22 12:00+00', '2025-11-23 09:00+00', '2025-11-24 09:00+00', 'Updated', 'cleo', 'phone',
		'[{"op": "replace", "path": "/note", "value": "weiß"}]', NULL),
	(7, '2025-11-22 12:00+00', '2025-11-25 09:00+00', '2025-11-25 09:00+00', 'Deleted', 'cleo', 'phone', '[]', NULL)
	) AS e (v, branch, submit, commit, type, who, device, patch, payload)
WHERE relation = 'graph.block'::regclass;
SELECT * FROM esync_graph('graph.block', 2) AS line;
SELECT at AT TIME ZONE 'UTC' AS at, moment, lane, event_type, user_id FROM esync_timeline('graph.block', 2);

-- moments out of order: copied after it was saved
BEGIN;
SELECT esync_context(user_id => 'ann', device_id => 'tablet-1',
	branch_timestamp => '2025-11-18 12:00+00', submit_timestamp => '2025-11-18 11:00+00');
INSERT INTO graph.block VALUES (3);
COMMIT;
SELECT * FROM graph.draw(3);
-- and copied after it was committed
BEGIN;
SELECT esync_context(user_id => 'bob', device_id => 'tablet-2',
	branch_timestamp => '2099-01-01 12:00+00', submit_timestamp => '2025-11-19 11:00+00');
UPDATE graph.block SET note = 'from the future' WHERE id = 3;
COMMIT;
SELECT * FROM graph.draw(3);

-- long values are cut by characters, many fields are counted, terminals are left in peace
BEGIN;
SELECT esync_context(user_id => E'an\nn', device_id => E'\033[31m');
INSERT INTO graph.block VALUES (4, 1, repeat('ä', 100), 'n', 'e');
COMMIT;
BEGIN;
SELECT esync_context(user_id => 'ann');
UPDATE graph.block SET pressure = 2, title = repeat('ö', 37), note = repeat('n', 39), extra = NULL WHERE id = 4;
UPDATE graph.block SET title = 't', note = 'n', extra = '"' WHERE id = 4;
DELETE FROM graph.block WHERE id = 4;
COMMIT;
SELECT * FROM graph.draw(4);

-- colours: each line is reset at its end
SELECT replace(line, E'\033', '^') FROM esync_graph('graph.block', 2, true) AS line;
SELECT bool_and(line LIKE E'%\033[0m') AS reset,
	bool_and(regexp_replace(line, E'\033\\[[0-9;]*m', '', 'g') IN (SELECT esync_graph('graph.block', 2))) AS same
FROM esync_graph('graph.block', 2, true) AS line;

-- other keys, no such row
SELECT count(*) FROM esync_graph('graph.block', '2');
SELECT count(*) FROM esync_graph('graph.block', 99);
SELECT count(*) FROM esync_graph('graph.block', NULL::int);

SELECT esync_disable('graph.block', drop_history => true);
DROP SCHEMA graph CASCADE;
