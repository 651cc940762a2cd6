-- esync_undo: edits, conflicts, deletes and creations taken back; and taken back again.
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE ROLE regress_esync_undo;
CREATE ROLE regress_esync_undo_reads;
CREATE SCHEMA un;
SET search_path = un, public;
CREATE TABLE item (id int PRIMARY KEY, a text, b text, street text, zip text, spec jsonb, pin text, CHECK (a <> 'bad'));
SELECT esync_enable('item', groups => '{"address": ["street", "zip"]}', json_merge => '{spec}', mask => '{pin}');
CREATE TABLE soft (id int PRIMARY KEY, a text, gone timestamptz);
SELECT esync_enable('soft', tombstone => 'gone');

-- somebody saved that, having seen that version, that day of a week long ago
CREATE FUNCTION edit(who text, base bigint, day int, statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM esync_context(user_id => who, device_id => 'tablet of ' || who, base_version => base, submit_timestamp => '2025-11-16 12:00Z'::timestamptz + day * interval '1 day');
	EXECUTE statement;
	PERFORM esync_context();
END
$$;
CREATE FUNCTION event(tbl regclass, key text, v bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT event_id FROM esync_history(tbl, key) WHERE version = v $$;
-- undoes a version of a row; what is told of it without numbers that differ from run to run
CREATE FUNCTION undo(key text, v bigint, tbl regclass DEFAULT 'item') RETURNS TABLE (version jsonb, undone jsonb, kept text, shown jsonb, conflicts text) LANGUAGE sql AS $$
SELECT u->'version', u->'undone',
	(SELECT string_agg(format('%s %s%s', k->'field', k->>'reason', ' by v' || (SELECT h.version FROM esync_history(tbl, key) AS h WHERE to_jsonb(h.event_id) = k->'event_id')), ', ') FROM jsonb_array_elements(u->'kept') AS k),
	CASE WHEN u->'row' <> 'null' THEN jsonb_strip_nulls(u->'row') - 'id' - 'gone' || CASE WHEN u->'deleted' = 'true' THEN '{"deleted": true}' ELSE '{}' END::jsonb END,
	(SELECT string_agg(format('%s %s', coalesce(c->>'field', c->>'kind'), c->>'status'), ', ' ORDER BY c->'conflict_id') FROM jsonb_array_elements(u->'conflicts') AS c)
FROM esync_undo(event(tbl, key, v)) AS u
$$;
CREATE FUNCTION ledger(key text, tbl regclass DEFAULT 'item') RETURNS TABLE (n bigint, field text, kind text, base jsonb, contenders text, status text, resolution text) LANGUAGE sql AS $$
SELECT rank() OVER (ORDER BY conflict_id), field, kind, base_value,
	(SELECT string_agg(format('%s: %s%s', c->>'user_id', c->'value', CASE WHEN (c->>'shown')::boolean THEN '*' END), ', ' ORDER BY c->'event_id') FROM jsonb_array_elements(contenders) AS c),
	status, resolution
FROM esync_conflicts(tbl, key, 'all') ORDER BY conflict_id
$$;
-- what an error tells
CREATE FUNCTION fails(statement text) RETURNS TABLE (code text, message text, detail text, hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN QUERY SELECT NULL, 'no error', NULL, NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	message := regexp_replace(message, 'event \d+', 'event n');
	hint := regexp_replace(hint, '\d+', 'n');
	RETURN NEXT;
END
$$;

-- NAME: the last edit, then the one before
INSERT INTO item (id, a, b) VALUES (1, 'a1', 'b1');
UPDATE item SET a = 'a2';
UPDATE item SET a = 'a3', b = 'b3';
SELECT * FROM undo('1', 3);
SELECT * FROM undo('1', 2);
-- once more is an error; an undo is undone like any event
SELECT * FROM fails($$SELECT undo('1', 2)$$);
SELECT * FROM undo('1', 5);
SELECT * FROM undo('1', 4);
SELECT version, event_type, patch, meta - 'from' - 'undoes' AS meta, meta->'undoes' = to_jsonb(event('item', '1', CASE version WHEN 4 THEN 3 WHEN 5 THEN 2 WHEN 6 THEN 5 ELSE 4 END)) AS undoes
FROM esync_history('item', 1) WHERE version > 3;

-- NAME: a field that was changed since is told, and not trampled; and what is below is not what was undone
INSERT INTO item (id, a, b) VALUES (2, 'a1', 'b1');
UPDATE item SET a = 'a2', b = 'b2' WHERE id = 2;
UPDATE item SET a = 'a3' WHERE id = 2;
SELECT * FROM undo('2', 2);
SELECT * FROM undo('2', 3);

-- NAME: contenders: one that lost is undone, and nothing changes but that it contends no more
SELECT edit('office', NULL, 0, $$INSERT INTO item (id, a) VALUES (3, 'old')$$);
SELECT edit('me', 1, 2, $$UPDATE item SET a = 'mine' WHERE id = 3$$), edit('you', 1, 1, $$UPDATE item SET a = 'yours' WHERE id = 3$$);
SELECT * FROM ledger('3');
SELECT * FROM undo('3', 3);
SELECT * FROM ledger('3');
-- it is back: the same conflict is open again
SELECT * FROM undo('3', 4);
SELECT * FROM ledger('3');
-- the one that is shown: the other one shows, and none contradicts it
SELECT * FROM undo('3', 2);
SELECT * FROM ledger('3');
-- whoever had seen neither contends with what is left, and is undone as well
SELECT edit('third', 1, 3, $$UPDATE item SET a = 'third' WHERE id = 3$$);
SELECT * FROM ledger('3');
SELECT edit('fourth', 1, 4, $$UPDATE item SET a = 'fourth' WHERE id = 3$$);
SELECT * FROM undo('3', 8);
SELECT * FROM ledger('3');

-- NAME: a late edit meets an undo: it loses to what was put back, and that is a conflict
SELECT edit('office', NULL, 0, $$INSERT INTO item (id, a) VALUES (4, 'old')$$), edit('me', NULL, 0, $$UPDATE item SET a = 'new' WHERE id = 4$$);
SELECT * FROM undo('4', 2);
SELECT edit('late', 1, 1, $$UPDATE item SET a = 'late' WHERE id = 4$$);
SELECT a FROM item WHERE id = 4;
SELECT n, field, kind, base, contenders, status FROM ledger('4');

-- NAME: a resolution is undone: its conflict is open again, and can be resolved again
SELECT edit('office', NULL, 0, $$INSERT INTO item (id, a) VALUES (5, 'old')$$);
SELECT edit('me', 1, 2, $$UPDATE item SET a = 'mine' WHERE id = 5$$), edit('you', 1, 1, $$UPDATE item SET a = 'yours' WHERE id = 5$$);
SELECT esync_resolve(conflict_id, 'manual', '"decided"') - 'event_id' - 'effective_timestamp' - 'resolved' AS decided FROM esync_conflicts('item', '5');
SELECT * FROM ledger('5');
SELECT * FROM undo('5', 4);
SELECT * FROM ledger('5');
SELECT * FROM undo('5', 5);
SELECT * FROM ledger('5');
SELECT * FROM undo('5', 6);
SELECT esync_resolve(conflict_id, 'manual', '"again"') - 'event_id' - 'effective_timestamp' - 'resolved' AS decided FROM esync_conflicts('item', '5');
SELECT * FROM ledger('5');
-- so is what closed it by superseding
SELECT edit('office', NULL, 0, $$INSERT INTO item (id, a) VALUES (6, 'old')$$);
SELECT edit('me', 1, 2, $$UPDATE item SET a = 'mine' WHERE id = 6$$), edit('you', 1, 1, $$UPDATE item SET a = 'yours' WHERE id = 6$$);
UPDATE item SET a = 'last word' WHERE id = 6;
SELECT * FROM undo('6', 4);
SELECT * FROM ledger('6');

-- NAME: groups go together; masked columns are skipped, and "***" is never written
INSERT INTO item (id, street, zip, pin) VALUES (7, 's1', 'z1', '1');
UPDATE item SET street = 's2', pin = '2' WHERE id = 7;
UPDATE item SET a = 'x' WHERE id = 7;
SELECT version, undone, kept, shown - 'pin' AS shown FROM undo('7', 2);
SELECT street, zip, pin FROM item WHERE id = 7;

-- NAME: inside of a column
INSERT INTO item (id, spec) VALUES (8, '{"dim": {"x": 1, "y": 1}}');
UPDATE item SET spec = '{"dim": {"x": 2, "y": 1}, "new": {"k": 1}}' WHERE id = 8;
UPDATE item SET spec = '{"dim": {"x": 3, "y": 1}, "new": {"k": 1, "l": 2}}' WHERE id = 8;
SELECT * FROM undo('8', 2);
SELECT * FROM undo('8', 3);
SELECT * FROM undo('8', 4);

-- what lay around the place comes back: nothing, something that is no object, a removal, null
INSERT INTO item (id, spec) VALUES (21, '{}'), (22, '{"a": {"b": 1, "c": 1}}'), (23, '{"a": {"b": 1, "c": 2}}'), (24, NULL);
UPDATE item SET spec = '{"a": {"b": {"c": 1}}}' WHERE id = 21;
SELECT * FROM undo('21', 2);
SELECT * FROM undo('21', 3);
SELECT edit('anna', 1, 1, $$UPDATE item SET spec = '{"a": {"b": 2, "c": 1}}' WHERE id = 22$$), edit('ben', 1, 2, $$UPDATE item SET spec = '{"a": 7}' WHERE id = 22$$);
SELECT esync_resolve_row('item', '22', '{"spec/a/b": {"value": 3}}')->'row'->'spec' AS decided;
SELECT * FROM undo('22', 4);
SELECT n, field, contenders, status, resolution FROM ledger('22');
SELECT * FROM undo('22', 5);
SELECT n, field, contenders, status, resolution FROM ledger('22');
SELECT edit('anna', 1, 1, $$UPDATE item SET spec = '{}' WHERE id = 23$$), edit('ben', 1, 2, $$UPDATE item SET spec = '{"a": {"b": 9, "c": 2}}' WHERE id = 23$$);
SELECT * FROM undo('23', 3);
SELECT esync_resolve_row('item', '24', '{"spec/a/b": {"value": 3}}')->'row'->'spec' AS decided;
SELECT * FROM undo('24', 2);
SELECT * FROM undo('24', 3);
-- a column of its own, whose name is a place of another one
CREATE TABLE slashed (id int PRIMARY KEY, spec jsonb, "spec/a" jsonb);
SELECT esync_enable('slashed', json_merge => '{spec, spec/a}');
INSERT INTO slashed VALUES (1, '{}', '{"b": 1}');
UPDATE slashed SET spec = '{"a": {"b": 2}}', "spec/a" = '{"b": 2}';
SELECT * FROM undo('1', 2, 'slashed');
-- each member that comes back knows from which event it is, so that this one can be undone as well
INSERT INTO item (id, spec) VALUES (25, '{"q": 0}');
UPDATE item SET spec = '{"q": 0, "k": 1}' WHERE id = 25;
UPDATE item SET spec = '{"q": 0, "k": 1, "z": 1}' WHERE id = 25;
SELECT esync_resolve_row('item', '25', '{"spec": {"value": {"r": 1}}}')->'row'->'spec' AS decided;
SELECT * FROM undo('25', 4);
SELECT * FROM undo('25', 2);
SELECT * FROM undo('25', 5);
-- so is one that had a part in an object that comes back as a whole
INSERT INTO item (id, spec) VALUES (27, '{}');
UPDATE item SET spec = '{"c": 1}' WHERE id = 27;
UPDATE item SET spec = '{"c": 1, "b": 5}' WHERE id = 27;
UPDATE item SET spec = '5' WHERE id = 27;
SELECT * FROM undo('27', 4);
SELECT * FROM undo('27', 2);
SELECT * FROM undo('27', 6);
SELECT * FROM undo('27', 5);
-- digits after the point are no difference, but come back
INSERT INTO item (id, spec) VALUES (26, '{"x": 1.0}');
UPDATE item SET spec = '{"x": 1.00}' WHERE id = 26;
SELECT * FROM undo('26', 2);

-- NAME: inside of a column that is not merged path by path any more
CREATE TABLE former (id int PRIMARY KEY, j jsonb);
SELECT esync_enable('former', json_merge => '{j}');
INSERT INTO former VALUES (1, '{"k": 1}'), (2, '{"k": 1}');
UPDATE former SET j = '{"k": 1, "z": 1}' WHERE id = 1;
UPDATE former SET j = '{"k": 2, "z": 1}' WHERE id = 1;
SELECT edit('anna', 1, 1, $$UPDATE former SET j = '{"k": 2}' WHERE id = 2$$), edit('ben', 1, 2, $$UPDATE former SET j = '{"k": 3}' WHERE id = 2$$);
SELECT esync_enable('former', json_merge => '{}');
SELECT * FROM undo('1', 3, 'former');
SELECT * FROM undo('1', 4, 'former');
UPDATE former SET j = '{"q": 1}' WHERE id = 1;
SELECT * FROM undo('1', 6, 'former');
SELECT * FROM undo('1', 2, 'former');
SELECT esync_resolve(conflict_id, 'server_wins')->'row'->'j' AS decided FROM esync_conflicts('former', '2');
SELECT * FROM undo('2', 4, 'former');

-- NAME: a delete for good, and back
INSERT INTO item (id, a) VALUES (9, 'x');
UPDATE item SET b = 'y' WHERE id = 9;
DELETE FROM item WHERE id = 9;
SELECT * FROM undo('9', 3);
SELECT * FROM undo('9', 4);
SELECT count(*) FROM item WHERE id = 9;
SELECT * FROM undo('9', 5);

-- NAME: a delete by tombstone, against an edit that its author had not seen
SELECT edit('office', NULL, 0, $$INSERT INTO soft VALUES (1, 'old')$$);
SELECT edit('me', 1, 1, $$UPDATE soft SET a = 'mine' WHERE id = 1$$), edit('you', 1, 2, $$UPDATE soft SET gone = now() WHERE id = 1$$);
SELECT n, field, kind, regexp_replace(contenders, '"gone": "[^"]*"', '"gone": …') AS contenders, status FROM ledger('1', 'soft');
SELECT * FROM undo('1', 3, 'soft');
SELECT status, resolution FROM ledger('1', 'soft');
SELECT * FROM undo('1', 4, 'soft');
SELECT status, resolution FROM ledger('1', 'soft');
SELECT * FROM undo('1', 2, 'soft');
SELECT status, resolution FROM ledger('1', 'soft');

-- NAME: a creation: the row goes, softly where it can; but not from those who edited it since
INSERT INTO soft VALUES (2, 'new');
SELECT * FROM undo('2', 1, 'soft');
SELECT * FROM undo('2', 2, 'soft');
UPDATE soft SET a = 'edited' WHERE id = 2;
SELECT * FROM undo('2', 1, 'soft');
SELECT max(version) FROM esync_history('soft', 2);
SELECT * FROM undo('2', 4, 'soft');
SELECT * FROM undo('2', 1, 'soft');
INSERT INTO item (id, a) VALUES (10, 'new');
SELECT * FROM undo('10', 1);
SELECT * FROM undo('10', 2);

-- NAME: two creations of one key
SELECT esync_save('item', '{"id": 11, "a": "one", "b": "one"}', 0)->'status' AS one, esync_save('item', '{"id": 11, "a": "two"}', 0)->'status' AS two;
SELECT * FROM undo('11', 2);
SELECT status, resolution FROM ledger('11');

-- NAME: what cannot be undone
SET esync.enabled = off;
INSERT INTO item (id, a) VALUES (12, 'before');
RESET esync.enabled;
UPDATE item SET a = 'after' WHERE id = 12;
SELECT * FROM fails($$SELECT undo('12', 1)$$);
UPDATE item SET id = 13 WHERE id = 12;
SELECT * FROM fails($$SELECT undo('12', 2)$$);
SELECT * FROM fails($$SELECT esync_undo(0)$$);
SELECT esync_undo(NULL);
SET esync.enabled = off;
SELECT * FROM fails($$SELECT undo('1', 6)$$);
RESET esync.enabled;
-- what the table refuses is the table's error
ALTER TABLE item DISABLE TRIGGER USER;
ALTER TABLE item ENABLE TRIGGER USER;
INSERT INTO item (id, a) VALUES (14, 'x');
UPDATE item SET a = 'y' WHERE id = 14;
ALTER TABLE item ADD CHECK (a <> 'x' OR id <> 14) NOT VALID;
SELECT code FROM fails($$SELECT undo('14', 2)$$);

-- NAME: a change that went unseen is not trampled
INSERT INTO item (id, a) VALUES (15, 'x');
UPDATE item SET a = 'y' WHERE id = 15;
SET esync.enabled = off;
UPDATE item SET a = 'unseen' WHERE id = 15;
RESET esync.enabled;
SELECT * FROM undo('15', 2);
-- a tombstone that was set unseen, with a field or alone, or cleared: the row is back, or deleted again; and that is undone
INSERT INTO soft VALUES (30, 'a', NULL), (31, 'a', NULL), (32, 'a', '2025-11-16');
SET esync.enabled = off;
UPDATE soft SET gone = '2025-11-17', a = 'unseen' WHERE id = 30;
UPDATE soft SET gone = '2025-11-17' WHERE id = 31;
UPDATE soft SET gone = NULL WHERE id = 32;
RESET esync.enabled;
SELECT esync_rebuild('soft', source => 'table');
SELECT id, e.* FROM generate_series(30, 32) AS id, LATERAL undo(id::text, 2, 'soft') AS e;
SELECT * FROM soft WHERE id >= 30 ORDER BY id;
SELECT id, e.* FROM generate_series(30, 32) AS id, LATERAL undo(id::text, 3, 'soft') AS e;
SELECT * FROM soft WHERE id >= 30 ORDER BY id;
-- not from those who edited it since
UPDATE soft SET a = 'edited' WHERE id = 32;
SELECT * FROM undo('32', 2, 'soft') UNION ALL SELECT * FROM undo('32', 4, 'soft');
SELECT * FROM esync_verify('soft');

-- NAME: a column that was renamed, and one that is gone
INSERT INTO item (id, a, b) VALUES (16, 'a1', 'b1');
UPDATE item SET a = 'a2', b = 'b2' WHERE id = 16;
BEGIN;
ALTER TABLE item RENAME a TO title;
ALTER TABLE item DROP COLUMN b;
SELECT * FROM undo('16', 2);
ROLLBACK;

-- NAME: who may: the right to UPDATE is asked, and policies
GRANT USAGE ON SCHEMA un TO regress_esync_undo, regress_esync_undo_reads;
GRANT SELECT ON item TO regress_esync_undo_reads;
GRANT SELECT, UPDATE ON item TO regress_esync_undo;
CREATE TABLE target AS SELECT event('item', '16', 2) AS e;
GRANT SELECT ON target TO PUBLIC;
SET ROLE regress_esync_undo_reads;
SELECT * FROM fails($$SELECT esync_undo(e) FROM target$$);
SET ROLE regress_esync_undo;
BEGIN;
SELECT esync_undo(e)->'undone' AS undone FROM target;
ROLLBACK;
RESET ROLE;
ALTER TABLE item ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON item USING (id < 10);
SET ROLE regress_esync_undo;
SELECT * FROM fails($$SELECT esync_undo(e) FROM target$$);
RESET ROLE;
ALTER TABLE item DISABLE ROW LEVEL SECURITY;

-- NAME: who may take back what another column has, and rows that policies only show
CREATE TABLE guarded (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('guarded');
INSERT INTO guarded VALUES (1, 'a', 'b');
SELECT edit('me', 1, 2, $$UPDATE guarded SET b = 'mine'$$), edit('you', 1, 1, $$UPDATE guarded SET b = 'yours'$$);
GRANT SELECT, UPDATE (a) ON guarded TO regress_esync_undo;
DELETE FROM target;
INSERT INTO target SELECT event('guarded', '1', 3);
SET ROLE regress_esync_undo;
SELECT * FROM fails($$SELECT esync_undo(e) FROM target$$);
SELECT esync_resolve_all('guarded', 'client_wins');
SELECT 'the session goes on' AS told;
RESET ROLE;
GRANT UPDATE ON guarded TO regress_esync_undo;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON guarded FOR SELECT USING (true);
SET ROLE regress_esync_undo;
SELECT * FROM fails($$SELECT esync_undo(e) FROM target$$);
SELECT * FROM fails($$SELECT esync_resolve_all('guarded', 'client_wins')$$);
RESET ROLE;
ALTER TABLE guarded DISABLE ROW LEVEL SECURITY;
SELECT * FROM ledger('1', 'guarded');

-- NAME: an undo that had left a field is undone: the field is put back, since who had set it later is out
INSERT INTO guarded VALUES (2, 'a1', 'b');
UPDATE guarded SET a = 'a2' WHERE id = 2;
UPDATE guarded SET a = 'a3' WHERE id = 2;
SELECT * FROM undo('2', 2, 'guarded') UNION ALL SELECT * FROM undo('2', 3, 'guarded') UNION ALL SELECT * FROM undo('2', 4, 'guarded');
SELECT * FROM fails('SELECT esync_undo(NULL)');

-- NAME: decisions and undos take the times of the context; a branch says nothing of what was seen
SELECT edit('office', NULL, 0, $$INSERT INTO guarded VALUES (3, 'old', 'b')$$);
SELECT edit('me', 1, 1, $$UPDATE guarded SET a = 'mine' WHERE id = 3$$), edit('you', 1, 2, $$UPDATE guarded SET a = 'yours' WHERE id = 3$$);
BEGIN;
SELECT esync_context(user_id => 'boss', branch_timestamp => '2025-11-17 12:00Z', submit_timestamp => '2025-11-20 12:00Z');
SELECT jsonb_array_length(esync_resolve(conflict_id, 'client_wins')->'resolved') AS closed FROM esync_conflicts('guarded', '3');
SELECT conflicts FROM undo('3', 4, 'guarded');
COMMIT;
SELECT version, event_type, base_version, branch_timestamp, submit_timestamp, effective_timestamp FROM esync_history('guarded', 3) WHERE version > 3;
-- after what was seen, whatever the clock; and not from the future
BEGIN;
SELECT esync_context(user_id => 'boss', submit_timestamp => '2025-11-17 12:00Z');
SELECT undone FROM undo('3', 3, 'guarded');
SELECT esync_context(user_id => 'boss', submit_timestamp => '2999-01-01');
SELECT undone FROM undo('3', 2, 'guarded');
COMMIT;
SELECT version, submit_timestamp < now() - interval '1 day' AS long_ago, effective_timestamp > lag(effective_timestamp) OVER (ORDER BY version) AS after FROM esync_history('guarded', 3) WHERE version > 4;

-- NAME: a conflict of a row that is gone shows what the row holds, which may be what none of its contenders says
SELECT esync_save('guarded', '{"id": 4, "a": "one"}', 0, context => '{"user_id": "me", "submit_timestamp": "2025-11-17T12:00:00Z"}')->'status' AS one, esync_save('guarded', '{"id": 4, "a": "two"}', 0, context => '{"user_id": "you", "submit_timestamp": "2025-11-21T12:00:00Z"}')->'status' AS two;
SELECT edit('third', 1, 2, $$UPDATE guarded SET a = 'third' WHERE id = 4$$), edit('fourth', 1, 3, $$UPDATE guarded SET a = 'fourth' WHERE id = 4$$);
DELETE FROM guarded WHERE id = 4;
SELECT * FROM undo('4', 1, 'guarded') UNION ALL SELECT * FROM undo('4', 2, 'guarded');
SELECT * FROM ledger('4', 'guarded');
SELECT shown_value FROM esync_conflicts('guarded', '4') WHERE field = 'a';

-- NAME: a creation is undone whose default an undo had put back: who contends there is found anew as well
SELECT esync_save('guarded', '{"id": 5, "b": "one"}', 0, context => '{"user_id": "me", "device_id": "d1"}')->'status' AS one;
UPDATE guarded SET a = 'set' WHERE id = 5;
SELECT undone FROM undo('5', 2, 'guarded');
SELECT esync_save('guarded', '{"id": 5, "a": "two"}', 0, context => '{"user_id": "you", "device_id": "d2", "submit_timestamp": "2025-11-17T12:00:00Z"}')->'status' AS two;
SELECT field, contenders, status FROM ledger('5', 'guarded');
SELECT version, kept, shown->'a' AS a, conflicts FROM undo('5', 1, 'guarded');
SELECT field, contenders, status FROM ledger('5', 'guarded');

-- NAME: who had not seen that the row is back does not hold it: the same as if the edit had arrived after the undo
INSERT INTO soft SELECT i, 'old' FROM generate_series(20, 22) AS i;
SELECT edit('anna', 1, 1, format('UPDATE soft SET gone = now() WHERE id = %s', i)), edit('ben', 1, 2, format('UPDATE soft SET a = ''ben'' WHERE id = %s', i)) FROM generate_series(20, 22) AS i;
SELECT esync_resolve(conflict_id, 'client_wins')->'deleted' FROM esync_conflicts('soft') WHERE aggregate_id IN ('20', '21', '22') ORDER BY 1;
SELECT edit('carl', 1, 3, 'UPDATE soft SET a = ''carl'' WHERE id = 20');
SELECT * FROM undo('20', 4, 'soft');
SELECT * FROM undo('21', 4, 'soft');
SELECT edit('carl', 1, 3, 'UPDATE soft SET a = ''carl'' WHERE id = 21');
SELECT id, kind, status, regexp_replace(contenders, '"gone": "[^"]*"', '"gone": …') AS contenders FROM generate_series(20, 21) AS id, LATERAL ledger(id::text, 'soft');
SELECT id, a, gone IS NOT NULL AS gone FROM soft WHERE id BETWEEN 20 AND 22 ORDER BY id;
-- back, and who had seen it does
SELECT * FROM undo('20', 6, 'soft');
UPDATE soft SET a = 'dan' WHERE id = 22;
SELECT * FROM undo('22', 4, 'soft');

-- NAME: what was undone replaces nothing: an edit of before it that comes late stands against who had seen it
INSERT INTO item (id, a) VALUES (31, 'a1');
SELECT esync_submit('{"device_id": "tablet of ann", "events": [{"id": "00000000-0000-4000-8000-000000003102", "seq": 2, "table": "item", "op": "update", "key": "31", "base_version": 1, "set": {"a": "ann 2"}}]}', '{"user_id": "ann"}')->'accepted' AS accepted;
SELECT * FROM undo('31', 2);
SELECT esync_submit('{"device_id": "tablet of ann", "events": [{"id": "00000000-0000-4000-8000-000000003101", "seq": 1, "table": "item", "op": "update", "key": "31", "base_version": 1, "set": {"a": "ann 1"}}]}', '{"user_id": "ann"}')->'conflict' AS conflict;
SELECT edit('ben', 2, 1, $$UPDATE item SET a = 'ben' WHERE id = 31$$);
SELECT field, contenders, status FROM ledger('31');

-- NAME: a group that an undo left with what nobody says any more shows that undo
INSERT INTO item (id, street, zip) VALUES (32, 's1', 'z1');
UPDATE item SET street = 's2' WHERE id = 32;
DELETE FROM item WHERE id = 32;
SELECT undone, kept FROM undo('32', 1);
SELECT esync_resolve_row('item', '32', '{"": {"value": {"deleted": false}}}')->'row'->'street' AS street;
SELECT undone, shown FROM undo('32', 2);
SELECT edit('ann', 1, 1, $$UPDATE item SET zip = 'z9' WHERE id = 32$$);
SELECT field, contenders, status FROM ledger('32');

-- NAME: a key that rows leave and take: who had not seen that contends with edits of the same row alone
CREATE TABLE moved (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('moved');
CREATE FUNCTION late(who text, key int, base int, day int, changed jsonb) RETURNS text LANGUAGE sql AS $$
SELECT r->>'status' FROM jsonb_array_elements(esync_submit(jsonb_build_object('device_id', 'tablet of ' || who, 'events', jsonb_build_array(
	jsonb_build_object('id', gen_random_uuid(), 'table', 'moved', 'key', key::text, 'base_version', base, 'submit_timestamp', '2025-11-16 12:00Z'::timestamptz + day * interval '1 day') ||
	CASE WHEN changed IS NULL THEN '{"op": "delete"}' ELSE jsonb_build_object('op', 'update', 'set', changed) END)), jsonb_build_object('user_id', who))->'results') AS r
$$;
-- a row comes back to its key, and a late edit to what it was: once, as the row is now
INSERT INTO moved VALUES (1, 'a1', 'b1');
UPDATE moved SET id = 2 WHERE id = 1;
UPDATE moved SET id = 1 WHERE id = 2;
SELECT late('ann', 1, 1, 1, '{"a": "ann"}');
SELECT a FROM moved;
SELECT version, event_type, base_version, patch FROM esync_history('moved', 1) WHERE version > 3 AND patch::text LIKE '%ann%';
SELECT field, contenders, status FROM ledger('1', 'moved');
-- a late delete of a row that went to another key, and an edit of the one that has its key now
INSERT INTO moved VALUES (11, 'a1', 'b1');
UPDATE moved SET id = 12 WHERE id = 11;
INSERT INTO moved VALUES (11, 'other', 'other');
SELECT late('ann', 11, 1, 9000, NULL);
SELECT late('ben', 11, 3, 1, '{"b": "ben"}');
SELECT id, b FROM moved WHERE id > 10;
SELECT field, contenders, status FROM ledger('11', 'moved');
-- two late edits of it contradict each other, and nobody who has its key; undone, and back
INSERT INTO moved VALUES (21, 'a1', 'b1');
SELECT late('dan', 21, 1, 1, '{"a": "dan"}');
UPDATE moved SET id = 22 WHERE id = 21;
INSERT INTO moved VALUES (21, 'other', 'other');
SELECT late('ann', 21, 1, 2, '{"a": "ann"}');
SELECT late('ben', 21, 1, 3, '{"a": "ben"}');
SELECT field, contenders, status FROM ledger('21', 'moved');
SELECT late('eve', 21, 4, 4, '{"a": "eve"}');
SELECT field, contenders, status FROM ledger('21', 'moved');
SELECT undone, kept, conflicts FROM undo('21', 6, 'moved');
SELECT field, contenders, status FROM ledger('21', 'moved') WHERE status = 'open';
SELECT undone, kept, conflicts FROM undo('21', 8, 'moved');
SELECT field, contenders, status FROM ledger('21', 'moved') WHERE status = 'open';
SELECT id, a, b FROM moved WHERE id > 20;
-- two late edits of one field, in both orders: the later one shows in the row, whoever has the greater name
INSERT INTO moved VALUES (31, 'a1', 'b1'), (41, 'a1', 'b1');
UPDATE moved SET id = id + 1 WHERE id IN (31, 41);
CREATE TABLE moment AS SELECT clock_timestamp() AS t;
DO $$ BEGIN PERFORM pg_sleep(0.01); END $$;
CREATE FUNCTION after(who text, key int, wait interval, changed jsonb) RETURNS text LANGUAGE sql AS $$
SELECT r->>'status' FROM moment, jsonb_array_elements(esync_submit(jsonb_build_object('device_id', 'tablet of ' || who, 'events', jsonb_build_array(
	jsonb_build_object('id', gen_random_uuid(), 'table', 'moved', 'key', key::text, 'base_version', 1, 'submit_timestamp', t + wait, 'op', 'update', 'set', changed))), jsonb_build_object('user_id', who))->'results') AS r
$$;
SELECT after('eve', 31, '0', '{"a": "eve"}'), after('ann', 31, '1 ms', '{"a": "ann, later"}');
SELECT after('ann', 41, '1 ms', '{"a": "ann, later"}'), after('eve', 41, '0', '{"a": "eve"}');
SELECT id, a FROM moved WHERE id > 30;
SELECT * FROM esync_verify('moved');

-- NAME: a field that goes on showing a creation that was undone is put back by the next undo, and the ledger tells of it
SELECT esync_submit('{"device_id": "tablet of ann", "events": [{"id": "00000000-0000-4000-8000-000000003301", "table": "item", "op": "create", "document": {"id": 33, "a": "a5", "b": "b1"}, "submit_timestamp": "2025-11-20T12:00:00Z"}]}', '{"user_id": "ann"}')->'accepted' AS accepted;
SELECT undone FROM undo('33', 1);
SELECT esync_submit('{"device_id": "tablet of ben", "events": [{"id": "00000000-0000-4000-8000-000000003302", "table": "item", "op": "create", "document": {"id": 33, "a": "a4"}, "submit_timestamp": "2025-11-17T12:00:00Z"}]}', '{"user_id": "ben"}')->'conflict' AS conflict;
SELECT esync_submit('{"device_id": "tablet of dan", "events": [{"id": "00000000-0000-4000-8000-000000003303", "table": "item", "op": "create", "document": {"id": 33, "a": "a5"}, "submit_timestamp": "2025-11-18T12:00:00Z"}]}', '{"user_id": "dan"}')->'conflict' AS conflict;
SELECT esync_resolve_row('item', '33', '{"": {"value": {"deleted": false}}, "b": {"value": "x"}}')->'row'->'a' AS a;
SELECT field, contenders, status FROM ledger('33') WHERE field = 'a';
SELECT undone, shown FROM undo('33', 5);
SELECT field, contenders, status FROM ledger('33') WHERE field = 'a';

-- NAME: table and stream agree
SELECT * FROM esync_verify('item') UNION ALL SELECT * FROM esync_verify('slashed') UNION ALL SELECT * FROM esync_verify('former') UNION ALL SELECT * FROM esync_verify('soft') UNION ALL SELECT * FROM esync_verify('guarded');

SET search_path = public;
DROP SCHEMA un CASCADE;
DROP ROLE regress_esync_undo, regress_esync_undo_reads;
