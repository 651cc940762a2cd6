-- The option on_conflict: conflicts that are decided at once, or not taken.  After each part the witness
-- recomputes rows and places from the raw events.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA pol;
SET search_path = pol, public;
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
		(SELECT string_agg(format('v%s %s%s', x->'version', x->'value', CASE WHEN (x->'shown')::bool THEN '!' END), ', ' ORDER BY x->'version') FROM jsonb_array_elements(c.contenders) x),
		c.status, nullif(c.resolved_by, session_user), c.resolution
	FROM esync_conflicts(t, status => 'all') c ORDER BY conflict_id
$$;
-- tables of one shape for each policy
CREATE PROCEDURE make(name text, options text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, title text, n int, street text, zip text, spec jsonb, gone_at timestamptz)', name);
	EXECUTE format('SELECT public.esync_enable(%L, on_conflict => %L, groups => ''{"address": ["street", "zip"]}'', json_merge => ''{spec}''%s)', name, regexp_replace(name, '_(soft|json)$', ''), options);
	EXECUTE format('INSERT INTO %I SELECT i, ''t'', 0, ''s'', ''z'', ''{"a": {"x": 1, "y": 1}, "b": 1}'' FROM generate_series(1, 9) i', name);
	-- long ago, so that what is saved on a day of November is later
	UPDATE esync.event SET commit_timestamp = '2025-01-01', submit_timestamp = '2025-01-01', branch_timestamp = '2025-01-01', effective_timestamp = '2025-01-01', effective_high = '2025-01-01'
	WHERE table_id = (SELECT table_id FROM esync.tracked_table t WHERE t.relation = name::regclass);
END
$$;
CALL make('server_wins', ''); CALL make('client_wins', ''); CALL make('last_write_wins', ''); CALL make('reject', '');
CALL make('server_wins_json', ''); CALL make('client_wins_json', ''); CALL make('last_write_wins_json', ''); CALL make('reject_json', '');
CALL make('server_wins_soft', ', tombstone => ''gone_at'''); CALL make('client_wins_soft', ', tombstone => ''gone_at'''); CALL make('last_write_wins_soft', ', tombstone => ''gone_at''');

-- NAME: one field: what was there, what came, or what was saved last; the rest is merged
SELECT p, told(edit('ann', 19, p, '{"title": "ann", "n": 1}')), told(edit('ben', 18, p, '{"title": "ben", "zip": "b"}')),
	told(edit('cid', 20, p, '{"title": "cid"}')) FROM unnest('{server_wins,client_wins,last_write_wins}'::text[]) p;
SELECT * FROM server_wins WHERE id = 1;
SELECT * FROM client_wins WHERE id = 1;
SELECT * FROM last_write_wins WHERE id = 1;
SELECT * FROM stream('server_wins');
SELECT * FROM stream('client_wins');
SELECT * FROM stream('last_write_wins');
SELECT p, l.* FROM unnest('{server_wins,client_wins,last_write_wins}'::text[]) p, LATERAL ledger(p::regclass) l;
SELECT p, version, value, nullif(user_id, session_user) AS user_id, status FROM unnest('{server_wins,client_wins,last_write_wins}'::text[]) p, LATERAL field_history(p::regclass, 1, 'title');
SELECT p, d.* FROM unnest('{server_wins,client_wins,last_write_wins}'::text[]) p, LATERAL witness.differences(p::regclass) d;

-- NAME: last_write_wins comes to one end, whatever the order of arrival; so does the merge; the others do not
CREATE TABLE ends (policy text, orders text, title text, n int);
CREATE PROCEDURE orders(p text) LANGUAGE plpgsql AS $$
DECLARE o text; d text; i int := 0;
BEGIN
	FOREACH o IN ARRAY '{ann ben cid,ann cid ben,ben ann cid,ben cid ann,cid ann ben,cid ben ann}'::text[] LOOP
		i := i + 1;
		EXECUTE format('INSERT INTO %I VALUES (100 + %s, ''t'', 0)', p, i);
		UPDATE esync.event SET commit_timestamp = '2025-01-01', submit_timestamp = '2025-01-01', branch_timestamp = '2025-01-01', effective_timestamp = '2025-01-01', effective_high = '2025-01-01'
		WHERE table_id = (SELECT table_id FROM esync.tracked_table t WHERE t.relation = p::regclass) AND aggregate_id = (100 + i)::text;
		FOREACH d IN ARRAY string_to_array(o, ' ') LOOP
			-- ben is the last; two of three say the same of n
			PERFORM edit(d, CASE d WHEN 'ann' THEN 18 WHEN 'ben' THEN 20 ELSE 19 END, p,
				jsonb_build_object('title', d, 'n', CASE d WHEN 'ben' THEN 2 ELSE 1 END), 1, (100 + i)::text);
		END LOOP;
		EXECUTE format('INSERT INTO ends SELECT %L, %L, title, n FROM %I WHERE id = %s', p, o, p, 100 + i);
	END LOOP;
END
$$;
CALL orders('server_wins'); CALL orders('client_wins'); CALL orders('last_write_wins');
SELECT policy, title, n, string_agg(orders, ', ' ORDER BY orders) FROM ends GROUP BY policy, title, n ORDER BY 1, 2, 3;
SELECT count(*) FROM esync_conflicts('last_write_wins');
SELECT p, d.* FROM unnest('{server_wins,client_wins,last_write_wins}'::text[]) p, LATERAL witness.differences(p::regclass) d;

-- NAME: a group as a whole, and places inside of a document
SELECT p, edit('ann', 19, p, '{"street": "ann", "spec": {"a": {"x": 2, "y": 1}, "b": 1}}', 1, '2')->>'status',
	edit('ben', 18, p, '{"zip": "ben", "spec": {"a": {"x": 3, "y": 3}, "b": 1}}', 1, '2')->'conflicts'->0->>'kind',
	edit('cid', 20, p, '{"street": "cid", "spec": {"b": 1, "c": 4}}', 1, '2')->'conflicts'->1->>'field' FROM unnest('{server_wins_json,client_wins_json,last_write_wins_json}'::text[]) p;
SELECT 'server_wins', street, zip, spec FROM server_wins_json WHERE id = 2 UNION ALL SELECT 'client_wins', street, zip, spec FROM client_wins_json WHERE id = 2
UNION ALL SELECT 'last_write_wins', street, zip, spec FROM last_write_wins_json WHERE id = 2;
SELECT p, l.* FROM unnest('{server_wins_json,client_wins_json,last_write_wins_json}'::text[]) p, LATERAL ledger(p::regclass) l WHERE id = '2';
SELECT * FROM stream('server_wins_json', '2');
SELECT * FROM stream('last_write_wins_json', '2');
-- whatever the order: the last one took the place away
DO $$ DECLARE o text; d text; i int := 3; BEGIN
	FOREACH o IN ARRAY '{ann ben cid,ann cid ben,ben ann cid,ben cid ann,cid ann ben,cid ben ann}'::text[] LOOP
		FOREACH d IN ARRAY string_to_array(o, ' ') LOOP
			PERFORM edit(d, CASE d WHEN 'ann' THEN 18 WHEN 'ben' THEN 19 ELSE 20 END, 'last_write_wins_json', CASE d WHEN 'ann' THEN '{"spec": {"a": {"x": 2, "y": 1}, "b": 1}}'::jsonb
				WHEN 'ben' THEN '{"spec": {"a": {"x": 3, "y": 3}, "b": 1}}' ELSE '{"spec": {"b": 1, "c": 4}}' END, 1, i::text);
		END LOOP;
		i := i + 1;
	END LOOP;
END $$;
SELECT spec, count(*) FROM last_write_wins_json WHERE id BETWEEN 3 AND 8 GROUP BY spec;
SELECT p, d.* FROM unnest('{server_wins_json,client_wins_json,last_write_wins_json}'::text[]) p, LATERAL esync_verify(p::regclass) d;

-- NAME: a delete against an edit, in both orders, hard and by tombstone
CREATE FUNCTION gone(device text, day int, tbl text, key text, base int DEFAULT 1) RETURNS jsonb LANGUAGE sql AS $$
	SELECT send(device, day, jsonb_build_object('table', tbl, 'op', 'delete', 'key', key, 'base_version', base))
$$;
CREATE VIEW tables AS SELECT p FROM unnest('{server_wins,client_wins,last_write_wins,server_wins_soft,client_wins_soft,last_write_wins_soft}'::text[]) p;
SELECT p, edit('ann', 19, p, '{"title": "ann"}', 1, '3')->>'status', told(gone('ben', 18, p, '3')) FROM tables;
SELECT p, edit('ann', 18, p, '{"title": "ann"}', 1, '4')->>'status', told(gone('ben', 19, p, '4')) FROM tables;
SELECT p, gone('ben', 18, p, '5')->>'status', told(edit('ann', 19, p, '{"title": "ann"}', 1, '5')) FROM tables;
SELECT p, gone('ben', 19, p, '6')->>'status', told(edit('ann', 18, p, '{"title": "ann"}', 1, '6')) FROM tables;
SELECT p, (SELECT string_agg(format('%s: %s', id, s->>'title'), ', ' ORDER BY id) FROM generate_series(3, 6) id, LATERAL esync_state(p::regclass, id) s WHERE s->>'gone_at' IS NULL AND s IS NOT NULL) AS living FROM tables;
SELECT p, v, type, who, patch, flags, meta FROM tables, LATERAL stream(p::regclass, '3') WHERE p NOT LIKE '%soft' AND v > 1;
SELECT p, v, type, who, patch, flags, meta FROM tables, LATERAL stream(p::regclass, '5') WHERE p NOT LIKE '%soft' AND v > 1;
SELECT p, l.field, kind, shown, contenders, status, how FROM tables, LATERAL ledger(p::regclass) l WHERE id IN ('3', '5') AND p NOT LIKE '%soft';
SELECT p, v.* FROM tables, LATERAL esync_verify(p::regclass) v;
-- what comes after: an edit that had not seen the decision, later than what it was for, or earlier
SELECT p, told(edit('cid', 17, p, '{"n": 17}', 1, '5')), told(gone('dan', 21, p, '5')), told(edit('eve', 22, p, '{"n": 22}', 1, '5')) FROM tables WHERE p LIKE 'last_write%';
SELECT p, v.* FROM tables, LATERAL esync_verify(p::regclass) v;

-- NAME: two creations of one row
SELECT p, send('ann', 18, jsonb_build_object('table', p, 'op', 'create', 'document', '{"id": 50, "title": "ann"}'::jsonb))->>'status',
	told(send('ben', 19, jsonb_build_object('table', p, 'op', 'create', 'document', '{"id": 50, "title": "ben", "n": 3}'::jsonb))) FROM tables WHERE p NOT LIKE '%soft';

-- NAME: reject: nothing is taken, what came is kept, and can be tried again
SELECT told(edit('ann', 19, 'reject', '{"title": "ann"}')), told(edit('ben', 20, 'reject', '{"title": "ben", "n": 5}')), told(edit('ben', 20, 'reject', '{"n": 6}')), told(edit('ben', 21, 'reject', '{"title": "ann"}'));
SELECT told(gone('ben', 20, 'reject', '1')), told(gone('ben', 20, 'reject', '2')), told(edit('ann', 19, 'reject', '{"title": "late"}', 1, '2'));
SELECT told(edit('ann', 19, 'reject_json', '{"street": "a", "spec": {"a": {"x": 5, "y": 1}, "b": 1}}', 1, '3')), told(edit('ben', 20, 'reject_json', '{"zip": "b"}', 1, '3')),
	told(edit('ben', 20, 'reject_json', '{"spec": {"b": 1}}', 1, '3')), told(edit('ben', 20, 'reject_json', '{"spec": {"a": {"x": 1, "y": 1}, "b": 2}}', 1, '3'));
SELECT id, title, n, street, zip, spec FROM reject_json WHERE id = 3;
SELECT told(send('ann', 18, '{"table": "reject", "op": "create", "document": {"id": 50, "title": "ann"}}')), told(send('ben', 19, '{"table": "reject", "op": "create", "document": {"id": 50, "title": "ben"}}'));
SELECT id, title, n, street, zip, spec FROM reject WHERE id IN (1, 2, 50) ORDER BY id;
SELECT aggregate_id, user_id, code, message, event->'set' AS set, tries FROM esync_rejected('reject') ORDER BY rejected_id;
SELECT count(*) FROM esync_conflicts('reject', status => 'all');
-- as it was sent it is refused again; on top of what is there now it is taken
SELECT told(esync_retry(rejected_id)), told(esync_retry(rejected_id, event || '{"base_version": 4}')) FROM esync_rejected('reject') WHERE event->'set' ? 'n';
SELECT * FROM stream('reject');
-- a tx is refused as a whole
SELECT jsonb_path_query_array(esync_submit('{"device_id": "tx-tablet", "events": [
	{"id": "00000000-0000-0000-0000-0000000000a1", "tx": "a", "table": "reject", "op": "update", "key": 7, "base_version": 1, "set": {"n": 1}},
	{"id": "00000000-0000-0000-0000-0000000000a2", "tx": "a", "table": "reject", "op": "update", "key": 1, "base_version": 1, "set": {"title": "tx"}},
	{"id": "00000000-0000-0000-0000-0000000000a3", "table": "reject", "op": "update", "key": 8, "base_version": 1, "set": {"n": 1}}]}'), '$.results[*].code');
SELECT id, n FROM reject WHERE id IN (7, 8) ORDER BY id;
SELECT * FROM witness.differences('reject');

-- NAME: plain SQL
CREATE PROCEDURE late(who text, base bigint, statement text, day int) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.esync_context(who, who || '-tablet', base_version => base, submit_timestamp => format('2025-11-%s 10:00Z', day)::timestamptz);
	EXECUTE statement;
	PERFORM public.esync_context();
END
$$;
DO $$ DECLARE p text; BEGIN FOR p IN SELECT * FROM tables LOOP
	CALL late('ann', 1, format('UPDATE %I SET title = ''ann'', n = 1 WHERE id = 7', p), 19);
	CALL late('ben', 1, format('UPDATE %I SET title = ''ben'', zip = ''b'' WHERE id = 7', p), 18);
	CALL late('ann', 1, format('UPDATE %I SET title = ''ann'' WHERE id = 8', p), 19);
	CALL late('ben', 1, CASE WHEN p LIKE '%soft' THEN format('UPDATE %I SET gone_at = now() WHERE id = 8', p) ELSE format('DELETE FROM %I WHERE id = 8', p) END, 18);
END LOOP; END $$;
SELECT p, esync_state(p::regclass, 7)->'title' AS title, esync_state(p::regclass, 7)->'zip' AS zip, (esync_state(p::regclass, 8)->>'gone_at' IS NULL AND esync_state(p::regclass, 8) IS NOT NULL) AS living,
	(SELECT string_agg(format('%s %s', type, who), ', ' ORDER BY v) FROM stream(p::regclass, '7')) AS "7", (SELECT string_agg(format('%s %s', type, who), ', ' ORDER BY v) FROM stream(p::regclass, '8')) AS "8" FROM tables;
SELECT count(*) FROM tables, LATERAL esync_conflicts(p::regclass);
SELECT p, v.* FROM tables, LATERAL esync_verify(p::regclass) v;
CALL late('ann', 1, $$UPDATE reject SET title = 'a' WHERE id = 9$$, 19);
SELECT * FROM witness.refused($$CALL pol.late('ben', 1, 'UPDATE pol.reject SET title = ''b'', n = 9 WHERE id = 9', 20)$$);
SELECT * FROM witness.refused($$CALL pol.late('ben', 1, 'DELETE FROM pol.reject WHERE id = 9', 20)$$);
CALL late('ben', 1, $$UPDATE reject SET n = 9 WHERE id = 9$$, 20);
UPDATE reject SET title = 'now' WHERE id = 9;
SELECT title, n FROM reject WHERE id = 9;

-- NAME: a decision that the database refuses leaves the conflict open
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent_id int REFERENCES parent, title text);
SELECT esync_enable('child', on_conflict => 'client_wins'), esync_enable('parent', on_conflict => 'server_wins');
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1, 't');
SELECT told(gone('ben', 18, 'child', '1')), told(gone('ben', 18, 'parent', '1'));
SELECT told(edit('ann', 19, 'child', '{"title": "ann"}'));
SELECT * FROM child;
SELECT * FROM ledger('child');
SELECT * FROM stream('child');
SELECT * FROM witness.differences('child');

-- NAME: the policy may change; what is open stays so until somebody edits it
SELECT esync_enable('child', on_conflict => 'merge');
INSERT INTO child VALUES (2, 2, 't');
SELECT edit('ann', 19, 'child', '{"title": "ann"}', 1, '2')->>'status', edit('ben', 20, 'child', '{"title": "ben"}', 1, '2')->>'status';
SELECT esync_enable('child', on_conflict => 'client_wins');
SELECT count(*) FROM esync_conflicts('child', '2');
SELECT told(edit('cid', 18, 'child', '{"title": "cid"}', 1, '2'));
SELECT * FROM ledger('child') WHERE id = '2';
SELECT * FROM child;

-- NAME: where row security forbids the decision, the edit is merged and its conflict stays open
CREATE ROLE pol_rows;
GRANT USAGE ON SCHEMA pol TO pol_rows;
CREATE TABLE guarded (id int PRIMARY KEY, t text);
SELECT esync_enable('guarded', on_conflict => 'server_wins');
INSERT INTO guarded SELECT i, 't' FROM generate_series(1, 2) i;
UPDATE guarded SET t = 'locked';
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON guarded USING (true) WITH CHECK (t <> 'locked');
GRANT SELECT, UPDATE, DELETE ON guarded TO pol_rows;
SET ROLE pol_rows;
SELECT esync_save('guarded', '{"id": 1, "t": "mine"}', 1, '{"user_id": "ann"}')->>'status';
SELECT esync_save('guarded', '{"id": 2, "t": "mine"}', 1, '{"user_id": "ann"}')->>'status';
RESET ROLE;
SELECT * FROM guarded ORDER BY id;
SELECT aggregate_id, field, shown_value, status FROM esync_conflicts('guarded', status => 'all');
SELECT * FROM esync_verify('guarded');
ALTER TABLE guarded DISABLE ROW LEVEL SECURITY;
DROP OWNED BY pol_rows;
DROP ROLE pol_rows;

DO $$ BEGIN PERFORM public.esync_disable(relation, true) FROM esync.tracked_table WHERE schema_name = 'pol'; END $$;
DROP SCHEMA pol, witness CASCADE;
