-- What a constraint refused, and undos: of the event, of who decided or answered, and of these undos again.
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA ru;
SET search_path = ru, public;
CREATE TABLE gauge (id int PRIMARY KEY, a int, c int CONSTRAINT small CHECK (c < 5), x int, y int, CONSTRAINT ascending CHECK (x < y));
SELECT esync_enable('gauge', groups => '{"span": ["x", "y"]}');
INSERT INTO gauge SELECT i, 0, 0, 0, 1 FROM generate_series(1, 9) AS i;
-- an edit of which c, or the span, is refused; its event
CREATE FUNCTION refused(key int, device text, changed jsonb, base int DEFAULT 1) RETURNS bigint LANGUAGE sql AS $$
	SELECT esync_submit(jsonb_build_object('device_id', device, 'events', jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'table', 'gauge', 'op', 'update', 'key', key::text, 'base_version', base, 'set', changed))));
	SELECT max(event_id) FROM esync_history('gauge', key)
$$;
CREATE FUNCTION event(key int, v bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT event_id FROM esync_history('gauge', key) WHERE version = v $$;
-- undoes a version; which conflicts are told of
CREATE FUNCTION undo(key int, v bigint) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s %s', c->>'kind', c->>'status'), ', ' ORDER BY c->'conflict_id') FROM jsonb_array_elements(esync_undo(event(key, v))->'conflicts') AS c
$$;
CREATE FUNCTION ledger(key text) RETURNS TABLE (field text, kind text, base jsonb, shown jsonb, contenders text, status text, resolution text) LANGUAGE sql AS $$
	SELECT field, kind, base_value, shown_value,
		(SELECT string_agg(format('v%s %s%s', c->'version', c->'value', CASE WHEN c ? 'constraint' THEN ' ' || (c->>'constraint') WHEN c->'shown' = 'true' THEN '!' END), ', ' ORDER BY c->'version') FROM jsonb_array_elements(contenders) AS c),
		status, resolution
	FROM esync_conflicts('gauge', key, 'all') ORDER BY conflict_id
$$;

-- NAME: a decision closes it; undone, it waits; that undone, it is closed again; and once more
SELECT refused(1, 'ann', '{"a": 1, "c": 9}') > 0 AS sent;
SELECT esync_resolve(conflict_id, 'manual', '3')->'row' AS row FROM esync_conflicts('gauge', '1');
SELECT undo(1, 3);
SELECT * FROM ledger('1');
SELECT undo(1, 4);
SELECT * FROM ledger('1');
SELECT c FROM gauge WHERE id = 1;
SELECT undo(1, 5);
SELECT * FROM ledger('1');

-- NAME: by a strategy that sets nothing new, too
SELECT refused(2, 'ann', '{"a": 1, "c": 9}') > 0 AS sent;
SELECT jsonb_array_length(esync_resolve(conflict_id, 'server_wins')->'resolved') AS closed FROM esync_conflicts('gauge', '2');
SELECT undo(2, 3), undo(2, 4);
SELECT * FROM ledger('2');

-- NAME: the event is undone, and then who decided: nothing waits; the event is back: it does
SELECT refused(3, 'ann', '{"a": 1, "c": 9}') > 0 AS sent;
SELECT jsonb_array_length(esync_resolve(conflict_id, 'manual', '3')->'resolved') AS closed FROM esync_conflicts('gauge', '3');
SELECT undo(3, 2), undo(3, 3);
SELECT * FROM ledger('3');
SELECT undo(3, 4);
SELECT * FROM ledger('3');

-- NAME: a decision is undone, but somebody who had seen what was refused has set the field since
SELECT refused(4, 'ann', '{"a": 1, "c": 9}') > 0 AS sent;
SELECT jsonb_array_length(esync_resolve(conflict_id, 'server_wins')->'resolved') AS closed FROM esync_conflicts('gauge', '4');
UPDATE gauge SET c = 4 WHERE id = 4;
SELECT undo(4, 3);
SELECT * FROM ledger('4');
SELECT undo(4, 4);
SELECT * FROM ledger('4');

-- NAME: two wait; one is undone, and back
SELECT refused(5, 'ann', '{"a": 1, "c": 9}') > 0 AS sent, refused(5, 'ben', '{"a": 2, "c": 8}') > 0 AS too;
SELECT * FROM ledger('5') WHERE kind = 'constraint';
SELECT undo(5, 2);
SELECT * FROM ledger('5') WHERE kind = 'constraint';
SELECT undo(5, 4);
SELECT * FROM ledger('5') WHERE kind = 'constraint';
-- somebody sets the field: both are answered; that is undone, and back
UPDATE gauge SET c = 3 WHERE id = 5;
SELECT undo(5, 6);
SELECT * FROM ledger('5') WHERE kind = 'constraint';
SELECT undo(5, 7);
SELECT * FROM ledger('5') WHERE kind = 'constraint';

-- NAME: a group; an undo of something else leaves it as it is
SELECT refused(6, 'ann', '{"a": 1, "x": 9, "y": 9}') > 0 AS sent;
UPDATE gauge SET a = 2 WHERE id = 6;
SELECT undo(6, 3);
SELECT * FROM ledger('6');
SELECT jsonb_array_length(esync_resolve(conflict_id, 'manual', '{"x": 1, "y": 2}')->'resolved') AS closed FROM esync_conflicts('gauge', '6');
SELECT undo(6, 5), undo(6, 6);
SELECT * FROM ledger('6');

-- NAME: an expected version before the refused edit has not seen it
SELECT esync_save('gauge', '{"id": 7, "a": 5}')->'version' AS version, refused(7, 'ann', '{"a": 1, "c": 9}') > 0 AS sent;
\set VERBOSITY sqlstate
SELECT esync_resolve_row('gauge', '7', '{"c": {"value": 2}}', 2);
\set VERBOSITY default
SELECT field, kind, status FROM ledger('7');
SELECT jsonb_array_length(esync_resolve_row('gauge', '7', '{"c": {"value": 2}}', 3)->'resolved') AS closed;
SELECT * FROM esync_verify('gauge');

-- NAME: a device's edits in the wrong order: the later one was refused, too, and is what waits; undone, the other does
CREATE FUNCTION sent(key int, seq int, changed jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT r->>'status' FROM jsonb_array_elements(esync_submit(jsonb_build_object('device_id', 'eve', 'events', jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'seq', seq, 'table', 'gauge', 'op', 'update', 'key', key::text, 'base_version', 1, 'set', changed))))->'results') AS r
$$;
INSERT INTO gauge VALUES (10, 0, 0, 0, 1);
SELECT sent(10, 2, '{"a": 2, "c": 8}');
SELECT sent(10, 1, '{"a": 1, "c": 9}');
SELECT * FROM ledger('10');
SELECT undo(10, 2);
SELECT * FROM ledger('10');
SELECT undo(10, 4);
SELECT * FROM ledger('10');

-- NAME: a policy: who sets the field later, or saved it later, drops what was refused, seen or not; undone, it waits; that undone, it is dropped again
CREATE PROCEDURE story(p text, key int, ann text, ben text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM esync_enable('gauge', on_conflict => p, groups => '{"span": ["x", "y"]}');
	PERFORM esync_context(submit_timestamp => '2025-11-01 12:00Z');
	INSERT INTO gauge VALUES (key, 0, 0, 0, 1);
	PERFORM esync_context();
	PERFORM esync_save('gauge', jsonb_build_object('id', key, 'a', 1, 'c', 9, 'x', 7), 1, context => jsonb_build_object('user_id', 'ann', 'submit_timestamp', ann));
	PERFORM esync_save('gauge', jsonb_build_object('id', key, 'c', 3, 'y', 2), 1, context => jsonb_build_object('user_id', 'ben', 'submit_timestamp', ben));
END
$$;
CREATE FUNCTION waiting(key int) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s %s%s', field, status, ': ' || resolution), ', ' ORDER BY field) FROM esync_conflicts('gauge', key::text, 'all') WHERE kind = 'constraint'
$$;
-- the last event of a row is undone; what waits then
CREATE FUNCTION back(key int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM esync_undo(max(event_id)) FROM esync_history('gauge', key);
	RETURN waiting(key);
END
$$;
CALL story('client_wins', 11, '2025-11-04T12:00:00Z', '2025-11-09T12:00:00Z');
CALL story('client_wins', 12, '2025-11-09T12:00:00Z', '2025-11-04T12:00:00Z');
SELECT id, a, c, x, y, waiting(id) FROM gauge WHERE id >= 11 ORDER BY id;
SELECT id, back(id), back(id), back(id), back(id) FROM gauge WHERE id >= 11 ORDER BY id;
-- another edit, undone, does nothing to it
UPDATE gauge SET a = 5 WHERE id >= 11;
SELECT id, back(id), back(id) FROM gauge WHERE id >= 11 ORDER BY id;
-- so it is with the refused edit itself, out and back
SELECT id, undo(id, 2), waiting(id), back(id) FROM gauge WHERE id >= 11 ORDER BY id;
SELECT id, a, c, x, y FROM gauge WHERE id >= 11 ORDER BY id;
CALL story('last_write_wins', 13, '2025-11-04T12:00:00Z', '2025-11-09T12:00:00Z');
CALL story('last_write_wins', 14, '2025-11-09T12:00:00Z', '2025-11-04T12:00:00Z');
SELECT id, a, c, x, y, waiting(id) FROM gauge WHERE id >= 13 ORDER BY id;
SELECT id, back(id), back(id), back(id), back(id) FROM gauge WHERE id >= 13 ORDER BY id;
-- another edit, undone, does nothing to it
UPDATE gauge SET a = 5 WHERE id >= 13;
SELECT id, back(id), back(id) FROM gauge WHERE id >= 13 ORDER BY id;
-- so it is with the refused edit itself, out and back
SELECT id, undo(id, 2), waiting(id), back(id) FROM gauge WHERE id >= 13 ORDER BY id;
SELECT id, a, c, x, y FROM gauge WHERE id >= 13 ORDER BY id;

-- NAME: another policy since leaves what waits as it is
CALL story('merge', 15, '2025-11-04T12:00:00Z', '2025-11-09T12:00:00Z');
SELECT waiting(15);
SELECT esync_enable('gauge', on_conflict => 'client_wins', groups => '{"span": ["x", "y"]}');
UPDATE gauge SET a = 5 WHERE id = 15;
SELECT back(15), back(15);
SELECT esync_enable('gauge', groups => '{"span": ["x", "y"]}');
SELECT * FROM esync_verify('gauge');

-- NAME: what a row showed that is gone is told still
CREATE TABLE gone (id int PRIMARY KEY, a int, b int, t text, CHECK (a + b < 10));
SELECT esync_enable('gone');
INSERT INTO gone VALUES (1, 1, 1, 't');
SELECT esync_save('gone', '{"id": 1, "a": 8}', 1, context => '{"user_id": "ann"}')->>'status', esync_save('gone', '{"id": 1, "b": 8, "t": "ben"}', 1, context => '{"user_id": "ben"}')->>'status',
	esync_save('gone', '{"id": 1, "t": "cid", "b": 0}', 1, context => '{"user_id": "cid"}')->>'status';
DELETE FROM gone;
SELECT esync_undo(event_id)->'undone' FROM esync_history('gone', 1) WHERE version = 2;
SELECT field, shown_value, jsonb_path_query_array(contenders, '$[*].value') AS values FROM esync_conflicts('gone');
SELECT esync_disable('gone', true);

SELECT esync_disable('gauge', true);
SET search_path = public;
DROP SCHEMA ru CASCADE;
