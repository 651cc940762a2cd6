-- What a constraint refuses of an edit: a conflict of kind constraint, beside what could be applied; or all of it
-- is rejected, where nothing could.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA ref;
SET search_path = ref, public;
-- one edit by itself: a device and its user, saved on a day of November
CREATE FUNCTION send(device text, day int, event jsonb, seq int DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$
	SELECT esync_submit(jsonb_build_object('device_id', device || '-tablet', 'events', jsonb_build_array(
		jsonb_build_object('id', gen_random_uuid(), 'seq', seq, 'submit_timestamp', format('2025-11-%s 10:00Z', day)) || event)),
		jsonb_build_object('user_id', device))->'results'->0
$$;
CREATE FUNCTION edit(device text, day int, tbl text, changed jsonb, base int DEFAULT 1, key text DEFAULT '1', seq int DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$
	SELECT send(device, day, jsonb_build_object('table', tbl, 'op', 'update', 'key', key, 'base_version', base, 'set', changed), seq)
$$;
-- an answer without what differs from run to run
CREATE FUNCTION told(r jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT (r #- '{row,gone_at}') - 'id' - 'effective_timestamp' - 'duplicate' - 'ignored' - 'rejected_id' - 'conflicts' || CASE WHEN r ? 'conflicts' THEN jsonb_build_object('conflicts',
		(SELECT jsonb_agg(c - 'conflict_id' - 'others' || jsonb_build_object('others', (SELECT jsonb_agg(o - 'event_id' - 'device_id') FROM jsonb_array_elements(c->'others') o)))
		FROM jsonb_array_elements(r->'conflicts') c)) ELSE '{}' END
$$;
CREATE FUNCTION stream(tbl regclass, key text DEFAULT '1') RETURNS TABLE (v bigint, base bigint, type text, who text, patch jsonb, flags int, meta jsonb) LANGUAGE sql AS $$
	SELECT version, base_version, event_type, nullif(user_id, session_user), patch, flags,
		meta - 'resolves' - 'confirms' - 'retried_by' || CASE WHEN meta ? 'resolves' THEN jsonb_build_object('resolves', jsonb_array_length(meta->'resolves')) ELSE '{}' END
		|| CASE WHEN meta ? 'confirms' THEN jsonb_build_object('confirms', (SELECT jsonb_agg(format('%s of v%s', c->>'field', x.version)) FROM jsonb_array_elements(meta->'confirms') c
			JOIN witness.events(tbl) x ON x.event_id = (c->>'event_id')::bigint)) ELSE '{}' END
	FROM witness.events(tbl) e WHERE aggregate_id = key ORDER BY version
$$;
CREATE FUNCTION ledger(t regclass) RETURNS TABLE (id text, field text, kind text, base_value jsonb, shown jsonb, contenders text, status text, by text, how text) LANGUAGE sql AS $$
	SELECT c.aggregate_id, c.field, c.kind, c.base_value, c.shown_value,
		(SELECT string_agg(format('v%s %s%s %s', x->'version', x->'value', CASE WHEN (x->'shown')::bool THEN '!' END, x->>'constraint'), ', ' ORDER BY x->'version') FROM jsonb_array_elements(c.contenders) x),
		c.status, nullif(c.resolved_by, session_user), c.resolution
	FROM esync_conflicts(t, status => 'all') c ORDER BY conflict_id
$$;
CREATE TABLE kind (name text PRIMARY KEY);
CREATE TABLE part (id int PRIMARY KEY, code text CONSTRAINT code_key UNIQUE, low int, high int, title text NOT NULL DEFAULT 't', note text, kind text CONSTRAINT kind_fkey REFERENCES kind,
	late text CONSTRAINT late_fkey REFERENCES kind DEFERRABLE INITIALLY DEFERRED, street text, zip text, CONSTRAINT range CHECK (low <= high), CONSTRAINT place CHECK (street IS NULL OR zip IS NOT NULL));
CREATE UNIQUE INDEX note_key ON part (lower(note)) WHERE note <> 'none';
SELECT esync_enable('part', groups => '{"address": ["street", "zip"]}'), esync_enable('kind');
INSERT INTO kind VALUES ('a'), ('b');
INSERT INTO part SELECT i, 'c' || i, 1, 10, 't', 'n' || i, 'a', 'a', 's', 'z' FROM generate_series(1, 20) i;
UPDATE esync.event SET commit_timestamp = '2025-01-01', submit_timestamp = '2025-01-01', branch_timestamp = '2025-01-01', effective_timestamp = '2025-01-01', effective_high = '2025-01-01'
WHERE table_id IN (SELECT table_id FROM esync.tracked_table WHERE schema_name = 'ref');

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
-- on_conflict = reject takes nothing in part; the policies that decide leave what was refused open
SELECT esync_enable('part', on_conflict => 'reject');
SELECT told(edit('ann', 19, 'part', '{"code": "c1", "title": "x"}', 1, '19'));
SELECT esync_enable('part', on_conflict => 'client_wins');
SELECT told(edit('ann', 19, 'part', '{"title": "x"}', 1, '19')), told(edit('ben', 18, 'part', '{"code": "c1", "title": "y"}', 1, '19'));
SELECT * FROM ledger('part') WHERE id = '19';
SELECT code, title FROM part WHERE id = 19;

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

DO $$ BEGIN PERFORM public.esync_disable(relation, true) FROM esync.tracked_table WHERE schema_name = 'ref'; END $$;
DROP SCHEMA ref, witness CASCADE;
