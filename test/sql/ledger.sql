-- The ledger as merges write it: opened, joined, closed; by plain SQL that names its base.
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA led;
SET search_path = led, public;
CREATE TABLE block (id int PRIMARY KEY, title text, note text, pin text);
CREATE TABLE soft (id int PRIMARY KEY, title text, note text, gone timestamptz);
SELECT esync_enable('block', mask => '{pin}');
SELECT esync_enable('soft', tombstone => 'gone');

-- somebody did that on a device, having seen that version, and saved it that day of a week to come
CREATE FUNCTION edit(who text, base bigint, day int, statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM esync_context(user_id => who, device_id => 'tablet of ' || who, base_version => base,
		submit_timestamp => '2025-11-16 12:00Z'::timestamptz + day * interval '1 day');
	EXECUTE statement;
	PERFORM esync_context();
END
$$;
-- the ledger without its numbers
CREATE TABLE base AS SELECT nextval('esync.conflict_id_seq') AS n;
CREATE VIEW conflicts AS
SELECT conflict_id - n AS n, tbl::text, aggregate_id AS id, field, kind, base_value AS base, shown_value AS shown,
	(SELECT string_agg(format('%s: %s%s', c->>'user_id', c->'value', CASE WHEN (c->>'shown')::boolean THEN '*' END), ', ' ORDER BY c->'event_id')
		FROM jsonb_array_elements(contenders) AS c) AS contenders, status, resolution, resolved_by
FROM base, esync_conflicts(status => 'all', after => n);
-- rows that were made on the Sunday before
CREATE FUNCTION made(statement text) RETURNS void LANGUAGE sql AS $$ SELECT edit('office', NULL, 0, statement) $$;

-- NAME: the example of the design, in both orders of reconnecting
SELECT made($$INSERT INTO block VALUES (1, 'old', 'old', 'p'), (2, 'old', 'old', 'p')$$);
SELECT edit('you', 1, 3, $$UPDATE block SET title = 'yours', note = 'new' WHERE id = 1$$);
SELECT count(*) FROM conflicts;
SELECT edit('me', 1, 4, $$UPDATE block SET title = 'mine' WHERE id = 1$$);
SELECT edit('me', 1, 4, $$UPDATE block SET title = 'mine' WHERE id = 2$$);
SELECT edit('you', 1, 3, $$UPDATE block SET title = 'yours', note = 'new' WHERE id = 2$$);
SELECT * FROM block ORDER BY id;
SELECT * FROM conflicts;
SELECT aggregate_id, version, flags & 128 AS conflict FROM esync.event JOIN esync.tracked_table USING (table_id) WHERE relation = 'block'::regclass ORDER BY 1, 2;
SELECT version, value, status FROM field_history('block', 2, 'title');
SELECT version, value, status FROM field_history('block', 2, 'note');
SELECT tbl::text, open_conflicts FROM esync_status() WHERE tbl::text IN ('block', 'soft') ORDER BY 1;
SELECT * FROM esync_verify('block');

-- NAME: a third one joins under another name of the column; masked columns, equal values and other fields do not
ALTER TABLE block RENAME title TO heading;
SELECT edit('eve', 1, 2, $$UPDATE block SET heading = 'hers', pin = 'q' WHERE id = 1$$);
SELECT edit('dan', 1, 5, $$UPDATE block SET note = 'new', pin = 'r' WHERE id = 1$$);
SELECT * FROM conflicts;
SELECT * FROM block WHERE id = 1;
-- what is undone leaves no trace
BEGIN;
SAVEPOINT s;
SELECT edit('fay', 1, 6, $$UPDATE block SET heading = 'never' WHERE id = 1$$);
SELECT n, shown, contenders FROM conflicts WHERE id = '1';
ROLLBACK TO s;
SELECT n, shown, contenders FROM conflicts WHERE id = '1';
SELECT edit('gus', 1, 1, $$UPDATE block SET heading = 'his' WHERE id = 1$$);
SELECT edit('hal', 1, 7, $$UPDATE block SET heading = 'last' WHERE id = 1$$);
COMMIT;
SELECT n, field, shown, contenders FROM conflicts WHERE id = '1';
SELECT * FROM esync_verify('block');

-- NAME: who has seen some of them replaces these alone; who has seen all decides
SELECT version, user_id FROM esync_history('block', 1);
SELECT edit('eve', 4, 8, $$UPDATE block SET heading = 'hers again' WHERE id = 1$$);
SELECT n, shown, contenders, status FROM conflicts WHERE id = '1';
UPDATE block SET note = 'another field decides nothing' WHERE id = 1;
SELECT n, status FROM conflicts WHERE id = '1';
BEGIN; SELECT esync_context(user_id => 'boss'); UPDATE block SET heading = 'decided' WHERE id = 1; COMMIT;
SELECT * FROM conflicts WHERE id = '1';
SELECT version, value, user_id, status FROM field_history('block', 1, 'heading');
SELECT version, flags & 128 AS conflict FROM esync.event JOIN esync.tracked_table USING (table_id) WHERE relation = 'block'::regclass AND aggregate_id = '1' ORDER BY 1 DESC LIMIT 2;
SELECT c->>'field' AS field, c->>'status' AS status FROM jsonb_array_elements(esync_row('block', '1')->'conflicts') AS c;
-- a late edit opens another one, against the decision
SELECT edit('ivy', 1, 3, $$UPDATE block SET heading = 'late' WHERE id = 1$$);
SELECT * FROM conflicts WHERE id = '1';
SELECT version, value, user_id, status FROM field_history('block', 1, 'heading');
SELECT regexp_replace(line, '^.*?v(?=\d)', 'v') AS line FROM esync_graph('block', 1) AS line WHERE line ~ ' v\d+ ';
SELECT * FROM esync_verify('block');

-- NAME: contenders that come to agree close it
SELECT edit('me', 2, 6, $$UPDATE block SET heading = 'yours' WHERE id = 2$$);
SELECT * FROM conflicts WHERE id = '2';
SELECT * FROM block WHERE id = 2;
SELECT version, value, user_id, status FROM field_history('block', 2, 'heading');

-- NAME: a delete against an edit that it had not seen; the row stays deleted
SELECT made($$INSERT INTO block VALUES (3, 'old', 'old', 'p'), (4, 'old', 'old', 'p')$$);
SELECT edit('you', 1, 3, $$UPDATE block SET note = 'new' WHERE id = 3$$);
SELECT edit('me', 1, 2, $$DELETE FROM block WHERE id = 3$$);
SELECT * FROM conflicts WHERE id = '3';
SELECT field, version, value, status FROM field_history('block', 3) WHERE field IS NULL OR field = 'note';
SELECT regexp_replace(line, '^.*?v(?=\d)', 'v') AS line FROM esync_graph('block', 3) AS line WHERE line ~ ' v\d+ ';
SELECT made($$INSERT INTO soft VALUES (1, 'old', 'old'), (2, 'old', 'old')$$);
SELECT edit('me', 1, 2, $$UPDATE soft SET gone = '2025-11-18' WHERE id = 1$$);
SELECT edit('you', 1, 3, $$UPDATE soft SET note = 'new' WHERE id = 1$$);
SELECT edit('you', 1, 3, $$UPDATE soft SET note = 'new' WHERE id = 2$$);
SELECT edit('me', 1, 2, $$UPDATE soft SET gone = '2025-11-18' WHERE id = 2$$);
SELECT id, title, note, gone IS NOT NULL AS gone FROM soft ORDER BY id;
SELECT id, field, kind, shown, contenders, status FROM conflicts WHERE tbl = 'soft';
SELECT field, version, value, status FROM field_history('soft', 2) WHERE field IN ('note', 'gone');
SELECT * FROM esync_verify('soft');
-- who brings it back, having seen both, decides
UPDATE soft SET gone = NULL WHERE id = 1;
INSERT INTO block VALUES (3, 'again', 'again', 'p');
SELECT id, tbl, kind, shown, status, resolution FROM conflicts WHERE kind = 'delete_edit';
SELECT field, version, value, status FROM field_history('block', 3) WHERE field IS NULL OR field = 'note';
SELECT * FROM esync_verify('soft') UNION ALL SELECT * FROM esync_verify('block');

-- NAME: a row that was deleted for good keeps its conflicts
SELECT edit('you', 1, 3, $$UPDATE block SET note = 'new' WHERE id = 4$$);
SELECT edit('me', 1, 4, $$UPDATE block SET note = 'newer' WHERE id = 4$$);
SELECT field, kind, status FROM conflicts WHERE id = '4';
DELETE FROM block WHERE id = 4;
SELECT field, kind, status FROM conflicts WHERE id = '4';
SELECT * FROM esync_verify('block');

-- NAME: groups and places inside of a json_merge column, through renames
CREATE TABLE doc (id int PRIMARY KEY, street text, zip text, note text, spec jsonb);
SELECT esync_enable('doc', groups => '{"address": ["street", "zip"]}', json_merge => '{spec}');
SELECT made($$INSERT INTO doc VALUES (1, 's', 'z', 'n', '{"dim": {"length": 1, "width": 1}}')$$);
UPDATE doc SET note = 'nobody''s business';
SELECT edit('me', 1, 3, $$UPDATE doc SET street = 'mine', spec = '{"dim": {"length": 2, "width": 1}}' WHERE id = 1$$);
SELECT edit('you', 1, 2, $$UPDATE doc SET zip = 'yours', spec = '{"dim": {"length": 3, "width": 3}}' WHERE id = 1$$);
SELECT * FROM doc;
SELECT field, kind, base, contenders FROM conflicts WHERE tbl = 'doc';
SELECT field, version, value, status FROM field_history('doc', 1) WHERE version > 1;
ALTER TABLE doc RENAME spec TO data;
ALTER TABLE doc RENAME zip TO code;
SELECT edit('eve', 1, 1, $$UPDATE doc SET code = 'hers', data = '{"dim": {"length": 4, "width": 1}}' WHERE id = 1$$);
SELECT field, kind, base, contenders FROM conflicts WHERE tbl = 'doc';
SELECT * FROM esync_verify('doc');
UPDATE doc SET data = jsonb_set(data, '{dim,length}', '5');
SELECT field, status, resolution FROM conflicts WHERE tbl = 'doc';
UPDATE doc SET code = 'ours';
SELECT field, status, resolution FROM conflicts WHERE tbl = 'doc';
SELECT regexp_replace(line, '^.*?v(?=\d)', 'v') AS line FROM esync_graph('doc', 1) AS line WHERE line ~ ' v\d+ ';
SELECT * FROM esync_verify('doc');

-- NAME: a column that joined a group after its conflict was opened: who sets the group having seen all closes that as well
CREATE TABLE joined (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('joined');
SELECT made($$INSERT INTO joined SELECT i, 'a', 'b' FROM generate_series(1, 2) AS i$$);
SELECT edit('me', 1, 3, format($$UPDATE joined SET a = 'mine' WHERE id = %s$$, i)), edit('you', 1, 2, format($$UPDATE joined SET a = 'yours' WHERE id = %s$$, i)) FROM generate_series(1, 2) AS i;
SELECT esync_enable('joined', groups => '{"both": ["a", "b"]}');
SELECT edit('eve', 2, 4, $$UPDATE joined SET b = 'hers' WHERE id = 1$$);
SELECT id, field, contenders, status, resolution FROM conflicts WHERE tbl = 'joined';
SELECT edit('eve', 4, 5, $$UPDATE joined SET b = 'hers too' WHERE id = 1$$), edit('dan', 3, 5, $$UPDATE joined SET b = 'his' WHERE id = 2$$);
SELECT id, field, contenders, status, resolution FROM conflicts WHERE tbl = 'joined';
SELECT * FROM esync_verify('joined');

-- NAME: submitted edits: two creates of one row, and a device that comes to agree
CREATE FUNCTION submit(who text, seq int, op text, rest jsonb) RETURNS TABLE (status text, conflicts jsonb) LANGUAGE sql AS $$
SELECT r->>'status', (SELECT jsonb_agg(c - 'conflict_id' - 'others') FROM jsonb_array_elements(r->'conflicts') AS c)
FROM jsonb_array_elements(esync_submit(jsonb_build_object('device_id', 'tablet of ' || who, 'events', jsonb_build_array(jsonb_build_object(
	'id', md5('ledger ' || who || seq)::uuid, 'seq', seq, 'table', 'led.doc', 'op', op) || rest)), jsonb_build_object('user_id', who))->'results') AS r
$$;
SELECT * FROM submit('me', 1, 'create', '{"document": {"id": 2, "street": "mine", "zip": "z", "note": "same"}, "submit_timestamp": "2025-11-19T12:00:00Z"}');
SELECT * FROM submit('you', 1, 'create', '{"document": {"id": 2, "street": "yours", "zip": "z", "note": "same"}, "submit_timestamp": "2025-11-18T12:00:00Z"}');
SELECT field, kind, base, shown, contenders, status FROM conflicts WHERE tbl = 'doc' AND id = '2';
SELECT * FROM submit('you', 2, 'update', '{"key": 2, "base_version": 0, "set": {"street": "mine"}, "submit_timestamp": "2025-11-20T12:00:00Z"}');
SELECT field, kind, contenders, status, resolution, resolved_by FROM conflicts WHERE tbl = 'doc' AND id = '2';
SELECT * FROM esync_verify('doc');

-- NAME: a row gets another key: its conflicts are found under it, as its history is
SELECT edit('me', 2, 6, $$UPDATE doc SET note = 'mine' WHERE id = 2$$);
SELECT edit('you', 2, 5, $$UPDATE doc SET note = 'yours' WHERE id = 2$$);
UPDATE doc SET id = 20 WHERE id = 2;
SELECT aggregate_id, field, base_value, shown_value, status FROM esync_conflicts('doc', '20');
SELECT c->>'field' AS field, c->>'aggregate_id' AS id FROM jsonb_array_elements(esync_row('doc', '20')->'conflicts') AS c;
SELECT version, value, status FROM field_history('doc', 20, 'note');
-- but not those of a row that has that key since, which settles what was open under the key
INSERT INTO doc VALUES (2, 's', 'z', 'another', '{}');
SELECT edit('me', 7, 8, $$UPDATE doc SET note = 'mine too' WHERE id = 2$$);
SELECT edit('you', 7, 7, $$UPDATE doc SET note = 'yours too' WHERE id = 2$$);
SELECT aggregate_id, field, base_value, shown_value, status FROM esync_conflicts('doc', '20', 'all');
SELECT aggregate_id, field, base_value, shown_value, status FROM esync_conflicts('doc', '2', 'all');
SELECT * FROM esync_verify('doc');

-- NAME: capture paused, a Baseline: the conflict goes on
SET esync.enabled = off;
UPDATE block SET note = 'unseen' WHERE id = 1;
RESET esync.enabled;
UPDATE block SET pin = 'z' WHERE id = 1;
SELECT version, event_type, flags & 128 AS conflict FROM esync.event JOIN esync.tracked_table USING (table_id) WHERE relation = 'block'::regclass AND aggregate_id = '1' ORDER BY 1 DESC LIMIT 2;
SELECT * FROM esync_verify('block');

-- NAME: what was changed unseen is what is shown, and none of the contenders; the conflicts are as open as they were
CREATE TABLE unseen (id int PRIMARY KEY, a int, b int, x int, y int, spec jsonb, c int CONSTRAINT small CHECK (c < 5), gone timestamptz);
SELECT esync_enable('unseen', groups => '{"pair": ["x", "y"]}', json_merge => '{spec}', tombstone => 'gone');
SELECT made($$INSERT INTO unseen VALUES (1, 0, 0, 0, 0, '{"k": 0, "l": {"m": 0}}', 0), (2, 0, 0, 0, 0, '{}', 0)$$);
CREATE VIEW seen AS SELECT field, kind, shown, contenders, status, resolution FROM conflicts WHERE tbl = 'unseen' AND id = '1' ORDER BY n;
SELECT edit('me', 1, 3, $$UPDATE unseen SET a = 1, x = 1, spec = '{"k": 1, "l": {"m": 1}}' WHERE id = 1$$), edit('you', 1, 4, $$UPDATE unseen SET a = 2, y = 2, spec = '{"k": 2, "l": {"m": 2}}' WHERE id = 1$$);
SELECT esync_save('unseen', '{"id": 1, "b": 1, "c": 9}', 1, context => '{"user_id": "him"}')->'status' AS status;
SELECT * FROM seen;
SET esync.enabled = off;
UPDATE unseen SET a = 50, y = 50, spec = '{"k": 50, "l": {"m": 2}}', c = 3 WHERE id = 1;
RESET esync.enabled;
SELECT esync_rebuild('unseen', source => 'table');
SELECT * FROM seen;
-- the edit of something else, undone, leaves them so
UPDATE unseen SET b = 2 WHERE id = 1;
CREATE FUNCTION undone(v bigint) RETURNS jsonb LANGUAGE sql AS $$ SELECT esync_undo(event_id)->'undone' FROM esync_history('unseen', 1) WHERE version = v $$;
SELECT undone(6);
SELECT * FROM seen;

-- NAME: it is undone, and back: nobody has decided
SELECT undone(5);
SELECT * FROM seen;
SELECT undone(8);
SELECT * FROM seen;
SELECT a, x, y, spec, c FROM unseen WHERE id = 1;

-- NAME: an edit that had seen none of it stands against all
SELECT edit('late', 1, 1, $$UPDATE unseen SET a = 7, y = 7 WHERE id = 1$$);
SELECT * FROM seen;
UPDATE unseen SET a = 8, x = 8, spec = '{}', c = 4 WHERE id = 1;
SELECT * FROM seen;

-- NAME: a row that somebody deleted is there again, and nobody told
SELECT edit('you', 1, 3, $$UPDATE unseen SET a = 1 WHERE id = 2$$), edit('me', 1, 2, $$UPDATE unseen SET gone = '2025-11-18' WHERE id = 2$$);
SET esync.enabled = off;
UPDATE unseen SET gone = NULL WHERE id = 2;
RESET esync.enabled;
SELECT kind, shown, contenders ~ '\*' AS any_shown, status FROM conflicts WHERE tbl = 'unseen' AND id = '2';
UPDATE unseen SET b = 1 WHERE id = 2;
SELECT kind, shown, contenders ~ '\*' AS any_shown, status FROM conflicts WHERE tbl = 'unseen' AND id = '2';
SELECT * FROM esync_verify('unseen');

SELECT esync_disable('joined', true), esync_disable('unseen', true), esync_disable('block', true), esync_disable('soft', true), esync_disable('doc', true);
SELECT count(*) FROM conflicts;
RESET search_path;
DROP SCHEMA led CASCADE;
