-- What a constraint refuses of an edit: a conflict of kind constraint, beside what could be applied; or all of it
-- is rejected, where nothing could.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set devices :abs_srcdir '/lib/devices.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA ref;
SET search_path = ref, public;
\set ECHO none
\i :devices
\set ECHO all
CREATE TABLE kind (name text PRIMARY KEY);
CREATE TABLE part (id int PRIMARY KEY, code text CONSTRAINT code_key UNIQUE, low int, high int, title text NOT NULL DEFAULT 't', note text, kind text CONSTRAINT kind_fkey REFERENCES kind,
	late text CONSTRAINT late_fkey REFERENCES kind DEFERRABLE INITIALLY DEFERRED, street text, zip text, CONSTRAINT range CHECK (low <= high), CONSTRAINT place CHECK (street IS NULL OR zip IS NOT NULL));
CREATE UNIQUE INDEX note_key ON part (lower(note)) WHERE note <> 'none';
SELECT esync_enable('part', groups => '{"address": ["street", "zip"]}'), esync_enable('kind');
INSERT INTO kind VALUES ('a'), ('b');
INSERT INTO part SELECT i, 'c' || i, 1, 10, 't', 'n' || i, 'a', 'a', 's', 'z' FROM generate_series(1, 40) i;
CALL long_ago('part'); CALL long_ago('kind');

-- NAME: a CHECK that two edits break together: the rest of the second one is applied
SELECT told(edit('ann', 19, 'part', '{"low": 5}')), told(edit('ben', 20, 'part', '{"high": 3, "title": "ben"}'));
SELECT id, low, high, title FROM part WHERE id = 1;
SELECT * FROM stream('part');
SELECT * FROM ledger('part');
SELECT contenders->0->'constraint' AS none, contenders->1->>'constraint' AS of_it FROM esync_conflicts('part', kind => 'constraint');
SELECT field, version, value, status FROM field_history('part', 1) WHERE field IN ('high', 'title') ORDER BY 1, 2;
SELECT * FROM esync_rejected('part');
SELECT * FROM witness.differences('part');
-- an edit of the field that had not seen it leaves it open; one that had closes it
SELECT told(edit('cid', 18, 'part', '{"high": 8}'));
SELECT field, kind, contenders, status FROM ledger('part');
SELECT told(edit('dan', 21, 'part', '{"high": 9}', 4));
SELECT field, kind, contenders, status, how FROM ledger('part');
-- where the value lost anyway nothing refuses it
SELECT told(edit('eve', 22, 'part', '{"high": 7}', 4)), told(edit('fay', 18, 'part', '{"high": 2, "title": "fay"}', 1));
SELECT id, low, high, title FROM part WHERE id = 1;

-- NAME: UNIQUE, an index on an expression, foreign keys, NOT NULL, a group
SELECT told(edit('ann', 19, 'part', '{"code": "c1", "title": "ann"}', 1, '2')), told(edit('ann', 19, 'part', '{"note": "N1", "title": "ann"}', 1, '3'));
SELECT told(edit('ann', 19, 'part', '{"kind": "x", "title": "ann"}', 1, '4')), told(edit('ann', 19, 'part', '{"late": "x", "title": "ann"}', 1, '5'));
SELECT told(edit('ann', 19, 'part', '{"title": null, "low": 2}', 1, '6')), told(edit('ann', 19, 'part', '{"zip": null, "low": 2}', 1, '7'));
-- two constraints and three fields
SELECT told(edit('ann', 19, 'part', '{"low": 30, "high": 20, "code": "c1", "kind": "b"}', 1, '8'));
SELECT id, code, low, high, title, note, kind, late, street, zip FROM part WHERE id BETWEEN 2 AND 8 ORDER BY id;
SELECT * FROM ledger('part') WHERE id::int BETWEEN 2 AND 8;
SELECT * FROM stream('part', '8');
-- again, by another device: both wait; and by one that had seen the first
SELECT edit('ben', 20, 'part', '{"code": "c3", "low": 3}', 1, '2')->>'status';
SELECT * FROM ledger('part') WHERE id = '2';
SELECT edit('cid', 21, 'part', '{"code": "c4", "low": 4}', 3, '2')->>'status';
SELECT * FROM ledger('part') WHERE id = '2';
-- the device's own next edit has seen what was refused
SELECT edit('dan', 20, 'part', '{"code": "c3", "low": 3}', 1, '9', 1)->>'status', edit('dan', 20, 'part', '{"code": "fine"}', 1, '9', 2)->>'status';
SELECT * FROM ledger('part') WHERE id = '9';
SELECT * FROM witness.differences('part');

-- what goes on waiting stands beside what the row shows now: an edit that had not seen it, or had seen one of two alone; a policy's decision; an undo
SELECT edit('ann', 18, 'part', '{"high": 0, "title": "ann"}', 1, '21')->>'status', edit('ben', 19, 'part', '{"high": 8}', 1, '21')->>'status';
SELECT field, shown, contenders FROM ledger('part') WHERE id = '21';
SELECT edit('cid', 20, 'part', '{"high": -1, "note": "cid"}', 1, '21')->>'status', edit('dan', 21, 'part', '{"high": 9}', 2, '21')->>'status';
SELECT field, shown, contenders FROM ledger('part') WHERE id = '21';
SELECT esync_undo(max(event_id))->'row'->'high' AS high FROM witness.events('part') WHERE aggregate_id = '21' AND user_id = 'dan';
SELECT field, shown, contenders, status FROM ledger('part') WHERE id = '21';

-- NAME: nothing is left: rejected as a whole, and retryable where a row is wanted
SELECT told(edit('ann', 19, 'part', '{"code": "c1"}', 1, '10')), told(edit('ann', 19, 'part', '{"kind": "x"}', 1, '10')), told(edit('ann', 19, 'part', '{"low": 11, "high": 10}', 1, '10')), told(edit('ann', 19, 'part', '{"zip": null, "street": "x"}', 1, '10'));
SELECT told(edit('ann', 19, 'part', '{"code": "c1", "kind": "x"}', 1, '10'));
SELECT told(send('ann', 19, '{"table": "part", "op": "create", "document": {"id": 50, "code": "c1", "title": "x"}}')), told(send('ann', 19, '{"table": "kind", "op": "delete", "key": "a", "base_version": 1}'));
SELECT count(*) FROM stream('part', '10');
SELECT count(*) FROM esync_rejected('part');
-- an edit that came first and an edit that loses: a merge all the same
SELECT told(edit('ann', 19, 'part', '{"low": 5, "note": "ann"}', 1, '11')), told(edit('ben', 18, 'part', '{"high": 4, "note": "ben"}', 1, '11'));

-- NAME: in a batch the row that is wanted may come later; the others go through
SELECT jsonb_path_query_array(esync_submit('{"device_id": "batch-tablet", "events": [
	{"id": "00000000-0000-0000-0000-0000000000b1", "table": "part", "op": "update", "key": 12, "base_version": 1, "set": {"kind": "new", "title": "one"}},
	{"id": "00000000-0000-0000-0000-0000000000b2", "table": "part", "op": "update", "key": 13, "base_version": 1, "set": {"late": "new", "code": "c1", "title": "two"}},
	{"id": "00000000-0000-0000-0000-0000000000b3", "table": "part", "op": "update", "key": 14, "base_version": 1, "set": {"late": "never", "title": "three"}},
	{"id": "00000000-0000-0000-0000-0000000000b4", "table": "part", "op": "update", "key": 15, "base_version": 1, "set": {"kind": "never", "title": "four"}},
	{"id": "00000000-0000-0000-0000-0000000000b5", "table": "part", "op": "update", "key": 16, "base_version": 1, "set": {"title": "five"}},
	{"id": "00000000-0000-0000-0000-0000000000b6", "table": "kind", "op": "create", "document": {"name": "new"}},
	{"id": "00000000-0000-0000-0000-0000000000b7", "tx": "t", "table": "part", "op": "update", "key": 17, "base_version": 1, "set": {"code": "c1", "title": "seven"}},
	{"id": "00000000-0000-0000-0000-0000000000b8", "tx": "t", "table": "part", "op": "update", "key": 18, "base_version": 1, "set": {"late": "newer", "title": "eight"}},
	{"id": "00000000-0000-0000-0000-0000000000b9", "tx": "t", "table": "kind", "op": "create", "document": {"name": "newer"}}]}'), '$.results[*].status');
SELECT id, code, title, kind, late FROM part WHERE id BETWEEN 12 AND 18 ORDER BY id;
SELECT * FROM ledger('part') WHERE id::int BETWEEN 12 AND 18;
SELECT * FROM witness.differences('part');
SELECT * FROM esync_verify('part');

-- NAME: what is no constraint of the table, or nobody knows of what, is rejected as a whole
CREATE TABLE watched (id int PRIMARY KEY, v int, title text, secret int CHECK (secret < 5), stored int GENERATED ALWAYS AS (v * 2) STORED CHECK (stored < 100));
CREATE TABLE log (v int CHECK (v < 10));
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF NEW.title = 'no' THEN RAISE EXCEPTION 'no' USING ERRCODE = 'check_violation'; END IF;
	INSERT INTO ref.log VALUES (NEW.v); RETURN NEW; END $$;
CREATE TRIGGER watch BEFORE UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION watch();
SELECT esync_enable('watched', mask => '{secret}');
INSERT INTO watched VALUES (1, 1, 't', 1);
SELECT told(edit('ann', 19, 'watched', '{"v": 20, "title": "x"}')), told(edit('ann', 19, 'watched', '{"v": 3, "title": "no"}')), told(edit('ann', 19, 'watched', '{"secret": 9, "title": "x"}'));
ALTER TABLE watched DISABLE TRIGGER watch;
SELECT told(edit('ann', 19, 'watched', '{"v": 60, "title": "x"}'));
SELECT * FROM watched;
-- on_conflict = reject takes nothing in part; client_wins wants what was refused, and leaves it open
SELECT esync_enable('part', on_conflict => 'reject');
SELECT told(edit('ann', 19, 'part', '{"code": "c1", "title": "x"}', 1, '19'));
SELECT esync_enable('part', on_conflict => 'client_wins');
SELECT told(edit('ann', 19, 'part', '{"title": "x"}', 1, '19')), told(edit('ben', 18, 'part', '{"code": "c1", "title": "y"}', 1, '19'));
SELECT * FROM ledger('part') WHERE id = '19';
SELECT code, title FROM part WHERE id = 19;

-- NAME: what the domain of a column refuses, as what a constraint of the table does
CREATE DOMAIN small AS int CONSTRAINT small_range CHECK (VALUE < 100);
CREATE DOMAIN must AS text NOT NULL;
CREATE TYPE pair AS (a small, b text);
CREATE TABLE typed (id int PRIMARY KEY, v small, name must DEFAULT 'n', list small[], nested pair, code text CONSTRAINT typed_code UNIQUE, title text, w int, grouped small, CONSTRAINT order_of CHECK (w < 50));
SELECT esync_enable('typed', groups => '{"g": ["w", "grouped"]}');
INSERT INTO typed SELECT i, i, 'n', '{1,2}', '(1,x)', 'c' || i, 't', 1, 1 FROM generate_series(1, 9) i;
SELECT told(edit('ann', 19, 'typed', '{"v": 200, "title": "ann"}')), told(edit('ann', 19, 'typed', '{"name": null, "title": "ann"}', 1, '2'));
SELECT told(edit('ann', 19, 'typed', '{"list": [1, 200], "nested": {"a": 300, "b": "y"}, "v": 5, "title": "ann"}', 1, '3')), told(edit('ann', 19, 'typed', '{"grouped": 200, "title": "ann"}', 1, '4'));
-- beside a constraint of the table; where the rest loses
SELECT told(edit('ann', 19, 'typed', '{"v": 200, "code": "c1", "title": "ann"}', 1, '5'));
SELECT edit('ben', 20, 'typed', '{"title": "ben"}', 1, '6')->>'status', told(edit('ann', 19, 'typed', '{"v": 200, "title": "ann"}', 1, '6')) - 'row';
SELECT * FROM typed WHERE id <= 6 ORDER BY id;
SELECT * FROM ledger('typed');
SELECT * FROM stream('typed', '5');
-- nothing is left, in a row that is to come back or to be made, and what is no value of the type at all: rejected as a whole
SELECT told(edit('ann', 19, 'typed', '{"v": 200}', 1, '7')), told(edit('ann', 19, 'typed', '{"v": 200, "w": 60}', 1, '7')), told(edit('ann', 19, 'typed', '{"v": "x", "title": "x"}', 1, '7')), told(edit('ann', 19, 'typed', '{"v": 200, "w": "x", "title": "x"}', 1, '7'));
SELECT send('ann', 19, '{"table": "typed", "op": "delete", "key": 7, "base_version": 1}')->>'status', told(send('ann', 20, '{"table": "typed", "op": "save", "key": 7, "base_version": 2, "set": {"v": 200, "title": "x"}}')), told(send('ann', 19, '{"table": "typed", "op": "create", "document": {"id": 70, "v": 200, "title": "x"}}'));
SELECT id, v, title FROM typed WHERE id >= 7 ORDER BY id;
-- decided; the value is one that the domain takes by then
SELECT code, message FROM unnest('{1,2,5}'::text[]) k, LATERAL witness.refused(format($$SELECT esync_resolve(conflict_id, 'client_wins') FROM esync_conflicts('ref.typed', %L, kind => 'constraint') ORDER BY field DESC LIMIT 1$$, k));
ALTER DOMAIN small DROP CONSTRAINT small_range;
SELECT esync_resolve(conflict_id, 'client_wins')->'row'->'v' AS v FROM esync_conflicts('typed', '1');
SELECT value, confidence, reason FROM esync_suggest('typed', '5', 'v');
SELECT * FROM esync_verify('typed');

-- NAME: a policy that would drop what was refused closes its conflict: at once, or when somebody edits the field
CREATE FUNCTION ends(p text) RETURNS TABLE (field text, contenders text, status text, by text, how text) LANGUAGE sql AS $$ SELECT field, contenders, status, by, how FROM ledger('part') WHERE id = p $$;
SELECT esync_enable('part', on_conflict => 'server_wins');
SELECT edit('ann', 19, 'part', '{"low": 5}', 1, '31')->>'status', told(edit('ben', 20, 'part', '{"high": 3, "title": "ben"}', 1, '31'));
SELECT told(edit('ben', 20, 'part', '{"zip": null, "low": 2, "title": null}', 1, '32'));
SELECT * FROM stream('part', '31');
SELECT id, low, high, title, street, zip FROM part WHERE id IN (31, 32);
SELECT * FROM ledger('part') WHERE id IN ('31', '32');
-- what waits from before the option
SELECT esync_enable('part', on_conflict => 'merge');
SELECT edit('ben', 20, 'part', '{"high": 0, "title": "ben"}', 1, '33')->>'status';
SELECT esync_enable('part', on_conflict => 'server_wins');
SELECT edit('cid', 18, 'part', '{"low": 0}', 1, '33')->>'status';
SELECT * FROM ends('33');
SELECT edit('cid', 18, 'part', '{"high": 8}', 1, '33')->>'status';
SELECT * FROM ends('33');
-- client_wins: whoever comes later wins
SELECT esync_enable('part', on_conflict => 'client_wins');
SELECT edit('ben', 20, 'part', '{"high": 0, "title": "ben"}', 1, '34')->>'status';
SELECT * FROM ends('34');
SELECT edit('cid', 18, 'part', '{"high": 8}', 1, '34')->>'status', high FROM part WHERE id = 34;
SELECT * FROM ends('34');
-- last_write_wins: whoever saved later; of an edit that is earlier what was refused stays the last word, and waits
SELECT esync_enable('part', on_conflict => 'last_write_wins');
SELECT edit('ben', 20, 'part', '{"high": 0, "title": "ben"}', 1, '35')->>'status', edit('cid', 18, 'part', '{"high": 8}', 1, '35')->>'status', edit('eve', 19, 'part', '{"high": 9}', 1, '35')->'conflicts'->0->>'resolution';
SELECT * FROM ends('35');
SELECT edit('dan', 21, 'part', '{"high": 7}', 1, '35')->>'status';
SELECT * FROM ends('35');
-- two that were refused, and one between them
SELECT edit('ann', 19, 'part', '{"high": 0, "title": "ann"}', 1, '36')->>'status', edit('ben', 21, 'part', '{"high": -1, "title": "ben"}', 1, '36')->>'status', edit('cid', 20, 'part', '{"high": 8}', 1, '36')->>'status';
SELECT * FROM ends('36');
SELECT id, low, high, title FROM part WHERE id BETWEEN 33 AND 36 ORDER BY id;
-- the edit that ended it is undone: it waits again
SELECT esync_undo(max(event_id))->>'deleted' FROM witness.events('part') WHERE aggregate_id = '34' AND user_id = 'cid' AND event_type = 'Updated';
SELECT * FROM ends('34');
SELECT * FROM esync_verify('part');

-- NAME: decided by somebody, and undone
SELECT esync_enable('part', on_conflict => 'merge');
CREATE VIEW waiting AS SELECT conflict_id, aggregate_id AS id, (contenders->0->>'event_id')::bigint AS event_id FROM esync_conflicts('part', kind => 'constraint');
SELECT * FROM witness.refused($$SELECT esync_resolve(conflict_id, 'client_wins') FROM ref.waiting WHERE id = '3'$$);
SELECT esync_resolve(conflict_id, 'server_wins')->'row'->'note' FROM waiting WHERE id = '3';
SELECT esync_resolve(conflict_id, 'manual', '"c100"')->'row'->'code' FROM waiting WHERE id = '13';
INSERT INTO kind VALUES ('x');
SELECT esync_resolve_row('part', '4', jsonb_build_object('kind', jsonb_build_object('event_id', event_id)))->'row'->'kind' FROM waiting WHERE id = '4';
SELECT * FROM ledger('part') WHERE id IN ('3', '4', '13');
-- what was decided is undone: it waits again; the event is: it waits no longer, until that is undone
SELECT esync_undo(event_id)->'undone' FROM witness.events('part') WHERE aggregate_id = '13' AND event_type = 'Resolved';
SELECT esync_undo(event_id)->'undone' FROM waiting WHERE id = '14';
SELECT * FROM ledger('part') WHERE id IN ('13', '14');
SELECT esync_undo(max(event_id))->'undone' FROM witness.events('part') WHERE aggregate_id = '14' AND event_type = 'Resolved';
SELECT * FROM ledger('part') WHERE id IN ('13', '14');
SELECT * FROM esync_verify('part');

-- NAME: the key and the tombstone of a creation are nothing that is left
CREATE TABLE soft (id int PRIMARY KEY, a int, b int, c int CHECK (c < 7), gone timestamptz, CHECK (a <= b));
SELECT esync_enable('soft', tombstone => 'gone');
SELECT told(send('ann', 18, '{"table": "soft", "op": "create", "document": {"id": 1, "b": null}}'))->>'status', told(send('ben', 19, '{"table": "soft", "op": "save", "key": 1, "base_version": 0, "set": {"a": 3, "b": 1}}')), told(send('cid', 19, '{"table": "soft", "op": "save", "key": 1, "base_version": 0, "set": {"c": 9}}')), told(send('dan', 19, '{"table": "soft", "op": "save", "key": 1, "base_version": 0, "set": {"c": 9, "b": 5}}'))->>'status';
SELECT * FROM soft;
SELECT * FROM ledger('soft');

-- NAME: partitions
CREATE TABLE split (id int PRIMARY KEY, v int, w int, CONSTRAINT small CHECK (v < 100)) PARTITION BY RANGE (id);
CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (1) TO (100);
CREATE TABLE split_2 (w int, x int, v int, id int NOT NULL, CONSTRAINT small CHECK (v < 100));
ALTER TABLE split_2 DROP COLUMN x;
ALTER TABLE split ATTACH PARTITION split_2 FOR VALUES FROM (100) TO (200);
SELECT esync_enable('split');
INSERT INTO split VALUES (1, 1, 1), (100, 1, 1);
SELECT told(edit('ann', 19, 'split', '{"v": 100, "w": 2}')), told(edit('ann', 19, 'split', '{"v": 100, "w": 2}', 1, '100'));
SELECT * FROM split ORDER BY id;

-- NAME: of a row that is gone no constraint can be asked: what it refused waits until there is a row again
CREATE TABLE away (id int PRIMARY KEY, a int CHECK (a < 90), b int, u int UNIQUE, spec jsonb CHECK ((spec->>'n')::int < 9));
SELECT esync_enable('away', json_merge => '{spec}');
INSERT INTO away SELECT i, 1, 1, i, '{"n": 1, "m": 1}' FROM generate_series(1, 3) AS i;
SELECT told(edit('ann', 19, 'away', '{"a": 95, "b": 7}')), told(edit('ann', 19, 'away', '{"a": 95, "b": 7}', 1, '2')), told(edit('ann', 19, 'away', '{"spec": {"n": 10, "m": 2}, "b": 7}', 1, '3'));
DELETE FROM away;
CREATE FUNCTION waiting(p text) RETURNS bigint LANGUAGE sql AS $$ SELECT conflict_id FROM esync_conflicts('ref.away', p) WHERE kind = 'constraint' $$;
CREATE FUNCTION fails(statement text) RETURNS TABLE (code text, message text, detail text, hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN QUERY SELECT NULL, 'no error', NULL, NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN NEXT;
END $$;
SELECT * FROM fails($$SELECT esync_resolve(waiting('1'), 'client_wins')$$);
SELECT code, detail FROM unnest(ARRAY[$$esync_resolve(waiting('1'), 'manual', '96')$$, $$esync_resolve_row('away', '1', '{"a": {"value": 97}}')$$, $$esync_resolve_row('away', '1', '"client_wins"')$$,
	$$esync_resolve(waiting('3'), 'client_wins')$$]) AS call, LATERAL fails('SELECT ' || call);
-- in bulk it is left, with a warning
SET client_min_messages TO notice;
SELECT esync_resolve_all('away', 'client_wins');
SET client_min_messages TO warning;
SELECT id, field, status FROM ledger('away');
-- what the stream says stays: that asks no constraint; and with the row the table is asked, and what stands in the way says what to do
SELECT esync_resolve(waiting('2'), 'server_wins')->'deleted' AS deleted, esync_resolve(waiting('3'), 'server_wins')->'deleted' AS deleted;
SELECT code, hint FROM fails($$SELECT esync_resolve_row('away', '1', '{"": {"value": {"deleted": false}}, "a": {"value": 95}}')$$);
SELECT code, hint FROM fails($$INSERT INTO away VALUES (4, 1, 1, 1, '{}'); SELECT esync_undo(max(event_id)) FROM esync_history('away', 1) WHERE event_type = 'Deleted'$$);
SELECT esync_undo(max(event_id))->'row' AS back FROM esync_history('away', 1) WHERE event_type = 'Deleted';
SELECT code, hint FROM fails($$SELECT esync_resolve(waiting('1'), 'client_wins')$$);
SELECT id, field, status, how FROM ledger('away');
SELECT * FROM esync_verify('away');

-- NAME: who may not read a column is not told what was refused of it
CREATE ROLE regress_esync_partial;
GRANT USAGE ON SCHEMA ref TO regress_esync_partial;
GRANT SELECT (id, title), UPDATE ON part TO regress_esync_partial;
SET ROLE regress_esync_partial;
SELECT version, meta FROM public.esync_history('ref.part', 2) WHERE meta ? 'refused';
SELECT field, contenders FROM public.esync_conflicts('ref.part', '2');
RESET ROLE;
SELECT version, meta FROM esync_history('part', 2) WHERE meta ? 'refused';
DROP OWNED BY regress_esync_partial;
DROP ROLE regress_esync_partial;

-- NAME: what a device showed may be nothing that its column takes by now: that is wrong with no edit
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN low AS float8;
CREATE TABLE retyped (id int PRIMARY KEY, n numeric, s text, m mood, d low, g1 numeric, g2 int, title text);
SELECT esync_enable('retyped', groups => '{"g": ["g1", "g2"]}');
INSERT INTO retyped SELECT i, 1.5, 'long text', 'sad', 500, 1.5, 1, 't' FROM generate_series(1, 4) i;
CALL long_ago('retyped');
ALTER TABLE retyped ALTER n TYPE int, ALTER s TYPE varchar(4) USING left(s, 4), ALTER g1 TYPE int;
ALTER TYPE mood RENAME VALUE 'sad' TO 'blue';
UPDATE retyped SET d = 5;
ALTER DOMAIN low ADD CHECK (VALUE < 100);
SELECT told(edit('ann', 19, 'retyped', '{"n": 7, "s": "q", "m": "ok", "d": 7, "title": "ann"}'))->'status';
-- all that was shown is said, and one value of it changed
SELECT told(send('ann', 19, '{"table": "retyped", "op": "update", "key": 2, "base": {"n": 1.5, "s": "long text", "m": "sad", "d": 500}, "document": {"n": 1.5, "s": "new", "m": "sad", "d": 500}}'))->'status',
	told(send('ann', 19, '{"table": "retyped", "op": "update", "key": 2, "base": {"n": 2.5, "m": "sad"}, "set": {"s": "new"}}'));
-- later than what became of the values: a group is left without the one that its column does not take
SELECT esync_save('retyped', '{"id": 3, "g2": 3, "n": 8}', 1)->'row'->'g1' AS g1;
BEGIN;
SELECT esync_context(base_version => 1);
UPDATE retyped SET n = 9, m = 'ok', title = 't' WHERE id = 4;
COMMIT;
SELECT * FROM retyped ORDER BY id;
SELECT id, field, contenders, status FROM ledger('retyped');
SELECT told(edit('ann', 19, 'retyped', '{"n": 6.5}', 1, '4'));
SELECT * FROM esync_verify('retyped');

DO $$ BEGIN PERFORM public.esync_disable(relation, true) FROM esync.tracked_table WHERE schema_name = 'ref'; END $$;
DROP SCHEMA ref, witness CASCADE;
