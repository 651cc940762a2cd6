-- The option on_conflict: conflicts that are decided at once, or not taken.  After each part the witness
-- recomputes rows and places from the raw events.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set devices :abs_srcdir '/lib/devices.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA pol;
SET search_path = pol, public;
\set ECHO none
\i :devices
\set ECHO all
-- tables of one shape for each policy
CREATE PROCEDURE make(name text, options text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, title text, n int, street text, zip text, spec jsonb, gone_at timestamptz)', name);
	EXECUTE format('SELECT public.esync_enable(%L, on_conflict => %L, groups => ''{"address": ["street", "zip"]}'', json_merge => ''{spec}''%s)', name, regexp_replace(name, '_(soft|json)$', ''), options);
	EXECUTE format('INSERT INTO %I SELECT i, ''t'', 0, ''s'', ''z'', ''{"a": {"x": 1, "y": 1}, "b": 1}'' FROM generate_series(1, 9) i', name);
	CALL long_ago(name::regclass);
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
		CALL long_ago(p::regclass, ARRAY[100 + i]::text[]);
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

-- an edit on top of a decision is no later than it was saved: who saved after it still wins
SELECT edit('ann', 12, 'last_write_wins', '{"title": "ann"}', 1, '9')->>'status', edit('ben', 11, 'last_write_wins', '{"title": "ben"}', 1, '9')->'conflicts'->0->>'resolution',
	edit('ann', 14, 'last_write_wins', '{"title": "on top"}', 4, '9')->>'status', edit('cid', 15, 'last_write_wins', '{"title": "later"}', 1, '9')->'conflicts'->0->>'won', title FROM last_write_wins WHERE id = 9;
SELECT title FROM last_write_wins WHERE id = 9;
SELECT version, event_type, user_id, submit_timestamp, effective_timestamp FROM esync_history('last_write_wins', 9) WHERE version > 1 AND version < 6;
-- of several that say what the row showed, the one that it showed is the winner
SELECT edit('ann', 17, 'server_wins', '{"title": "same"}', 1, '9')->>'status', edit('ben', 18, 'server_wins', '{"title": "same"}', 1, '9')->>'status', edit('cid', 19, 'server_wins', '{"title": "other"}', 1, '9')->'conflicts'->0->>'resolution';
SELECT contenders FROM ledger('server_wins') WHERE id = '9';
SELECT version, user_id, value, status FROM field_history('server_wins', 9, 'title');

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
-- two deletes, and an edit of which neither knew: the later one of them shows
SELECT gone('ann', 17, 'server_wins', '2')->>'status', gone('ben', 18, 'server_wins', '2')->>'status', edit('cid', 19, 'server_wins', '{"title": "cid"}', 1, '2')->>'status';
SELECT contenders, status FROM ledger('server_wins') WHERE id = '2';
-- what comes after: an edit that had not seen the decision, later than what it was for, or earlier
SELECT p, told(edit('cid', 17, p, '{"n": 17}', 1, '5')), told(gone('dan', 21, p, '5')), told(edit('eve', 22, p, '{"n": 22}', 1, '5')) FROM tables WHERE p LIKE 'last_write%';
SELECT p, v.* FROM tables, LATERAL esync_verify(p::regclass) v;

-- NAME: last_write_wins: whether a row lives that a device deleted and then edited, others edited and deleted, does not depend on the order
-- a: the device deletes it, b: edits it on top of that, which brings no row back; c: somebody edits it, d: somebody deletes it; each on one of four days
CREATE TABLE plays AS SELECT row_number() OVER (ORDER BY days, came) + 1000 AS id, days, came FROM
	(SELECT ARRAY[a, b, c, d] AS days FROM generate_series(11, 14) a, generate_series(11, 14) b, generate_series(11, 14) c, generate_series(11, 14) d WHERE a < b AND cardinality(ARRAY(SELECT DISTINCT unnest(ARRAY[a, b, c, d]))) = 4) x,
	(SELECT a || b || c || d AS came FROM unnest('{a,b,c,d}'::text[]) a, unnest('{a,b,c,d}'::text[]) b, unnest('{a,b,c,d}'::text[]) c, unnest('{a,b,c,d}'::text[]) d WHERE cardinality(ARRAY(SELECT DISTINCT unnest(ARRAY[a, b, c, d]))) = 4) y;
CREATE PROCEDURE play(p text) LANGUAGE plpgsql AS $$
DECLARE r plays; x text; ids text[] := ARRAY(SELECT p.id::text FROM plays p);
BEGIN
	EXECUTE format('INSERT INTO %I SELECT id, ''t'', 0 FROM plays', p);
	CALL long_ago(p::regclass, ids);
	FOR r IN SELECT * FROM plays LOOP
		FOREACH x IN ARRAY string_to_array(r.came, NULL) LOOP
			PERFORM CASE x WHEN 'a' THEN send('ann', r.days[1], jsonb_build_object('table', p, 'op', 'delete', 'key', r.id, 'base_version', 1), 1)
				WHEN 'b' THEN edit('ann', r.days[2], p, '{"n": 2}', 1, r.id::text, 2) WHEN 'c' THEN edit('cid', r.days[3], p, '{"title": "cid"}', 1, r.id::text) ELSE gone('dan', r.days[4], p, r.id::text) END;
		END LOOP;
	END LOOP;
END
$$;
CALL play('last_write_wins'); CALL play('last_write_wins_soft');
-- it lives if c is later than both deletes; then with all that was edited
SELECT p, days, array_agg(DISTINCT CASE WHEN s->>'gone_at' IS NULL AND s IS NOT NULL THEN format('%s %s', s->'title', s->'n') ELSE 'gone' END) AS ends, days[3] > greatest(days[1], days[4]) AS living, count(*) AS orders
FROM unnest('{last_write_wins,last_write_wins_soft}'::text[]) p, plays, LATERAL esync_state(p::regclass, id) s GROUP BY p, days ORDER BY 1, 2;
-- an undo of an edit is no edit: what was saved between the one that stands and the one that was undone takes the row
DO $$
DECLARE p text;
BEGIN
	FOREACH p IN ARRAY '{last_write_wins,last_write_wins_soft}'::text[] LOOP
		EXECUTE format('INSERT INTO %I VALUES (2001, ''t'', 0)', p);
		UPDATE esync.event SET commit_timestamp = '2025-01-01', submit_timestamp = '2025-01-01', branch_timestamp = '2025-01-01', effective_timestamp = '2025-01-01', effective_high = '2025-01-01'
		WHERE table_id = (SELECT table_id FROM esync.tracked_table t WHERE t.relation = p::regclass) AND aggregate_id = '2001';
		PERFORM edit('ann', 11, p, '{"title": "ann"}', 1, '2001'), edit('ben', 13, p, '{"n": 13}', 1, '2001');
		PERFORM esync_undo(event_id) FROM esync_history(p::regclass, 2001) WHERE version = 3;
		PERFORM gone('cid', 12, p, '2001');
	END LOOP;
END
$$;
SELECT p, event_type, h.meta->'deleted' AS deleted, h.submit_timestamp FROM unnest('{last_write_wins,last_write_wins_soft}'::text[]) p, LATERAL esync_history(p::regclass, 2001) h WHERE version > 4;
SELECT count(*) FROM last_write_wins WHERE id = 2001;
SELECT p, v.* FROM unnest('{last_write_wins,last_write_wins_soft}'::text[]) p, LATERAL esync_verify(p::regclass) v;

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

-- of an edit that loses wholly, where another trigger might have kept the row from being written
CREATE FUNCTION as_it_is() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER as_it_is BEFORE UPDATE ON client_wins FOR EACH ROW EXECUTE FUNCTION as_it_is();
CREATE TRIGGER as_it_is BEFORE UPDATE ON server_wins FOR EACH ROW EXECUTE FUNCTION as_it_is();
SELECT p, told(edit('ann', 19, p, '{"title": "ann"}', 1, '9')) FROM unnest('{server_wins,client_wins}'::text[]) p;
BEGIN;
SELECT esync_context(user_id => 'ben', device_id => 'ben-tablet', base_version => 1, submit_timestamp => '2025-11-18 10:00Z');
UPDATE client_wins SET title = 'ben' WHERE id = 9;
COMMIT;
BEGIN;
SELECT esync_context(user_id => 'ben', device_id => 'ben-tablet', base_version => 1, submit_timestamp => '2025-11-18 10:00Z');
UPDATE server_wins SET title = 'ben' WHERE id = 9;
COMMIT;
SELECT p, s.v, s.base, s.type, s.who, s.patch FROM unnest('{server_wins,client_wins}'::text[]) p, LATERAL stream(p::regclass, '9') s WHERE s.v > 1;
SELECT p, l.field, l.contenders, l.status, l.how FROM unnest('{server_wins,client_wins}'::text[]) p, LATERAL ledger(p::regclass) l WHERE l.id = '9';
SELECT p, d.* FROM unnest('{server_wins,client_wins}'::text[]) p, LATERAL witness.differences(p::regclass) d WHERE d.aggregate_id = '9';
DROP TRIGGER as_it_is ON client_wins;
DROP TRIGGER as_it_is ON server_wins;
-- of one that loses wholly, and never reaches the row: what leaves the row as it is is decided; else the conflict is open, and tells what the row shows
CREATE TABLE suppressed (id int PRIMARY KEY, title text);
CREATE TRIGGER suppress BEFORE UPDATE ON suppressed FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
SELECT esync_enable('suppressed');
INSERT INTO suppressed SELECT i, 't' FROM generate_series(1, 6) AS i;
CALL long_ago('suppressed');
UPDATE suppressed SET title = 'now';
CREATE PROCEDURE loses(policy text, key int) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM esync_enable('suppressed', on_conflict => policy);
	PERFORM esync_context(user_id => 'ann', base_version => 1, submit_timestamp => '2025-11-19 10:00Z');
	EXECUTE format('UPDATE suppressed SET title = %L WHERE id = %s', policy, key);
	PERFORM esync_context();
END
$$;
CALL loses('server_wins', 1); CALL loses('client_wins', 2); CALL loses('last_write_wins', 3); CALL loses('merge', 4);
SELECT id, title FROM suppressed WHERE id < 5 ORDER BY id;
SELECT i, s.v, s.base, s.type, s.patch, s.meta FROM generate_series(1, 4) i, LATERAL stream('suppressed', i::text) s WHERE s.v > 2;
SELECT id, field, shown, contenders, status, how FROM ledger('suppressed');
-- where it reaches the row after all it is decided
DROP TRIGGER suppress ON suppressed;
CREATE TRIGGER as_it_is BEFORE UPDATE ON suppressed FOR EACH ROW EXECUTE FUNCTION as_it_is();
CALL loses('client_wins', 5); CALL loses('last_write_wins', 6);
SELECT id, title FROM suppressed WHERE id IN (5, 6) ORDER BY id;
SELECT id, field, shown, contenders, status, how FROM ledger('suppressed') WHERE id IN ('5', '6');
SELECT * FROM witness.differences('suppressed') WHERE problem !~ 'conflict';

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

-- NAME: columns of json_merge whose names have a slash or a tilde
CREATE TABLE odd (id int PRIMARY KEY, "a~c" jsonb, "a/b" jsonb);
SELECT esync_enable('odd', json_merge => '{"a~c","a/b"}', on_conflict => 'server_wins');
INSERT INTO odd SELECT i, '{"k": 1, "p/q": 1}', '{"k": 1, "p~": 1}' FROM generate_series(1, 3) i;
CREATE FUNCTION odd(who text, v int, id int) RETURNS text LANGUAGE sql AS $$
	SELECT esync_save('odd', format('{"id": %s, "a~c": {"k": %s, "p/q": %2$s}, "a/b": {"k": %2$s, "p~": %2$s}}', id, v)::jsonb, 1,
		context => jsonb_build_object('user_id', who))->>'status' $$;
SELECT odd('ann', 2, 1), odd('ben', 3, 1);
SELECT esync_enable('odd', on_conflict => 'last_write_wins');
SELECT odd('ann', 2, 2), odd('ben', 3, 2);
SELECT esync_enable('odd', on_conflict => 'merge');
SELECT odd('ann', 2, 3), odd('ben', 3, 3);
SELECT * FROM odd ORDER BY id;
SELECT aggregate_id, field, base_value, shown_value, resolution FROM esync_conflicts('odd', status => 'all');
SELECT * FROM esync_verify('odd');

-- NAME: late edits of a row that has another key by now are decided there, and leave nothing open under the former one
CREATE TABLE moved (id int PRIMARY KEY, a int);
SELECT esync_enable('moved');
INSERT INTO moved SELECT i, 0 FROM generate_series(1, 21, 10) i;
UPDATE moved SET id = id + 1;
CREATE FUNCTION moved(policy text, key int) RETURNS TABLE (first text, second text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM esync_enable('moved', on_conflict => policy);
	first := esync_save('moved', jsonb_build_object('id', key, 'a', 5), 1, '{"user_id": "ann", "device_id": "d"}')->>'status';
	second := esync_save('moved', jsonb_build_object('id', key, 'a', 6), 1, '{"user_id": "ben", "device_id": "e"}')->>'status';
	RETURN NEXT;
END
$$;
SELECT p, m.* FROM (VALUES ('server_wins', 1), ('client_wins', 11), ('last_write_wins', 21)) AS v (p, key), moved(p, key) m;
SELECT * FROM moved ORDER BY id;
SELECT aggregate_id, field, base_value, shown_value, status, resolution FROM esync_conflicts('moved', status => 'all') ORDER BY conflict_id;
SELECT * FROM esync_verify('moved');

DO $$ BEGIN PERFORM public.esync_disable(relation, true) FROM esync.tracked_table WHERE schema_name = 'pol'; END $$;
DROP SCHEMA pol, witness CASCADE;
