-- What is new since a cursor, and what is to be written then.
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA chg;
SET search_path = chg, public;
CREATE TABLE doc (id int PRIMARY KEY, title text, note text, n int);
CREATE TABLE part (a int, b text, v numeric, PRIMARY KEY (a, b));
CREATE TABLE tree (id uuid PRIMARY KEY, data jsonb, x int, gone timestamptz, seen timestamptz);
CREATE TABLE other (id int PRIMARY KEY, x int);
SELECT esync_enable('doc'), esync_enable('part', payload => 'changes'),
	esync_enable('tree', payload => 'changes', json_merge => '{data}', tombstone => 'gone', last_modified => '{seen}');

-- what a call answers, without what differs from run to run
CREATE FUNCTION told(answer jsonb) RETURNS TABLE (tbl text, id text, version int, type text, set jsonb, deleted boolean, conflict jsonb)
LANGUAGE sql AS $$
SELECT c->>'table', c->>'aggregate_id', (c->>'version')::int, c->>'event_type', (c->'set') - 'seen', (c->>'deleted')::boolean, c->'conflict'
FROM jsonb_array_elements(answer->'changes') WITH ORDINALITY AS x (c, place) ORDER BY place
$$;
CREATE FUNCTION frame(answer jsonb) RETURNS TABLE (changes int, has_more boolean, reset boolean, reason text, cursor boolean)
LANGUAGE sql AS $$
SELECT jsonb_array_length(answer->'changes'), (answer->>'has_more')::boolean, (answer->>'reset')::boolean, answer->>'reason', answer->>'cursor' IS NOT NULL
$$;
CREATE FUNCTION fails(statement text) RETURNS TABLE (code text, message text, hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN QUERY SELECT NULL, 'no error', NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN NEXT;
END
$$;
-- somebody did that on a device, having seen that version, and saved it that day of a week long ago
CREATE FUNCTION edit(who text, base bigint, day int, statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM esync_context(user_id => who, device_id => 'tablet of ' || who, base_version => base,
		submit_timestamp => '2025-11-16 12:00Z'::timestamptz + day * interval '1 day');
	EXECUTE statement;
	PERFORM esync_context();
END
$$;
-- a client: it applies a change iff its version is greater than the one that it holds
CREATE TABLE client (name text, tbl text, id text, version bigint, row jsonb, PRIMARY KEY (name, tbl, id));
CREATE TABLE cursors (name text PRIMARY KEY, cursor text, pages int);
CREATE PROCEDURE pull(who text, page int, tables regclass[], whole boolean DEFAULT false) LANGUAGE plpgsql AS $$
DECLARE
	answer jsonb;
	c jsonb;
	last bigint := 0;
BEGIN
	INSERT INTO cursors VALUES (who, NULL, 0) ON CONFLICT DO NOTHING;
	LOOP
		answer := esync_changes((SELECT cursor FROM cursors WHERE name = who), page, tables, rows => whole);
		ASSERT NOT (answer->>'reset')::boolean, answer->>'reason';
		ASSERT jsonb_array_length(answer->'changes') = page OR NOT (answer->>'has_more')::boolean, 'a page that is not full says that there is more';
		FOR c IN SELECT * FROM jsonb_array_elements(answer->'changes') LOOP
			ASSERT (c->>'event_id')::bigint > last, 'a run is not in the order of events';
			last := (c->>'event_id')::bigint;
			INSERT INTO client AS old VALUES (who, c->>'table', c->>'aggregate_id', (c->>'version')::bigint,
				CASE WHEN NOT (c->>'deleted')::boolean THEN c->'set' END)
			ON CONFLICT (name, tbl, id) DO UPDATE SET version = excluded.version,
				row = CASE WHEN NOT (c->>'deleted')::boolean THEN coalesce(old.row, '{}') || excluded.row END
			WHERE old.version < excluded.version;
		END LOOP;
		UPDATE cursors SET cursor = answer->>'cursor', pages = pages + 1 WHERE name = who;
		IF NOT (answer->>'has_more')::boolean THEN
			EXIT;
		END IF;
	END LOOP;
END
$$;
-- where a client differs from the tables: nowhere
CREATE FUNCTION differs(who text) RETURNS TABLE (tbl text, id text, version bigint, client jsonb, server jsonb) LANGUAGE sql AS $$
SELECT coalesce(c.tbl, s.tbl), coalesce(c.id, s.id), c.version, c.row, s.row
FROM (SELECT 'chg.doc' AS tbl, id::text, to_jsonb(doc) AS row FROM doc
	UNION ALL SELECT 'chg.part', jsonb_build_array(a, b)::text, to_jsonb(part) FROM part
	UNION ALL SELECT 'chg.tree', id::text, to_jsonb(tree) FROM tree WHERE gone IS NULL) AS s
FULL JOIN (SELECT * FROM client WHERE name = who AND row IS NOT NULL) AS c ON c.tbl = s.tbl AND c.id = s.id
WHERE c.row IS DISTINCT FROM s.row
$$;
-- events of a table by esync.event alone
CREATE FUNCTION stream(rel regclass) RETURNS SETOF bigint LANGUAGE sql AS $$
SELECT e.event_id FROM esync.event e JOIN esync.tracked_table t USING (table_id) WHERE t.relation = rel
$$;

-- NAME: from the beginning, and from where one is
SELECT esync_changes('now', tables => '{doc,part}')->>'cursor' AS c0 \gset
SELECT * FROM frame(esync_changes(:'c0', tables => '{doc,part}'));
INSERT INTO doc VALUES (1, 'one', NULL, 1), (2, 'two', 'b', 2);
INSERT INTO part VALUES (1, 'x', 1.50);
UPDATE doc SET n = 10, note = 'changed' WHERE id = 1;
UPDATE part SET v = 2;
DELETE FROM doc WHERE id = 2;
SELECT * FROM told(esync_changes(NULL, tables => '{doc,part}'));
SELECT * FROM told(esync_changes(:'c0', tables => '{doc,part}'));
SELECT c - 'event_id' - 'branch_timestamp' - 'submit_timestamp' - 'commit_timestamp' - 'effective_timestamp' - 'user_id' AS change,
	c->>'effective_timestamp' = c->>'commit_timestamp' AS "saved when it came"
FROM jsonb_array_elements(esync_changes(:'c0', tables => '{part}')->'changes') AS c;
SELECT jsonb_object_agg(key, jsonb_typeof(value)) FROM jsonb_each(esync_changes(:'c0', 1, '{doc}'));
-- the whole row each time, at that version
SELECT * FROM told(esync_changes(:'c0', tables => '{doc,part}', rows => true));

-- NAME: pages, of which none is empty while there is more
SELECT f.*, answer->>'cursor' AS c1 FROM esync_changes(:'c0', 4, '{doc,part}') AS answer, frame(answer) AS f \gset p1_
SELECT :p1_changes AS changes, :'p1_has_more' AS has_more;
SELECT f.*, answer->>'cursor' AS c1 FROM esync_changes(:'p1_c1', 4, '{doc,part}') AS answer, frame(answer) AS f \gset p2_
SELECT :p2_changes AS changes, :'p2_has_more' AS has_more;
SELECT * FROM frame(esync_changes(:'p2_c1', 4, '{doc,part}'));
SELECT page, f.changes, f.has_more FROM unnest('{1,5,6,7}'::int[]) AS page, frame(esync_changes(:'c0', page, '{doc,part}')) AS f ORDER BY page;
-- a cursor can be used again, with what came since behind it
SELECT count(*), string_agg(version::text, ' ') FROM told(esync_changes(:'p1_c1', 4, '{doc,part}'));
UPDATE doc SET n = 11 WHERE id = 1;
SELECT count(*), string_agg(version::text, ' ') FROM told(esync_changes(:'p1_c1', 4, '{doc,part}'));
SELECT * FROM told(esync_changes(:'p2_c1', tables => '{doc,part}'));

-- NAME: late edits: what the row took of them, and what is in conflict
SELECT esync_changes('now', tables => '{doc,part,tree}')->>'cursor' AS c1 \gset
SELECT edit('office', NULL, 0, $$INSERT INTO doc VALUES (4, 'long', 'ago', 1)$$), edit('office', NULL, 0, $$INSERT INTO part VALUES (4, 'z', 1)$$);
SELECT edit('ann', 1, 2, $$UPDATE doc SET title = 'me', n = 20 WHERE id = 4$$);
SELECT edit('bob', 1, 1, $$UPDATE doc SET title = 'you', note = 'late' WHERE id = 4$$);
SELECT edit('cid', 1, 1, $$UPDATE doc SET title = 'they' WHERE id = 4$$);
SELECT edit('ann', 1, 2, $$UPDATE part SET v = 3 WHERE a = 4$$);
SELECT edit('bob', 1, 1, $$UPDATE part SET v = 4 WHERE a = 4$$);
SELECT * FROM told(esync_changes(:'c1', tables => '{doc,part}'));
-- decided, it is in conflict no more
SELECT count(esync_resolve(conflict_id, 'last_write_wins')) FROM esync_conflicts('part');
SELECT * FROM told(esync_changes(:'c1', tables => '{part}'));
-- taken back, it is open again, and whoever had closed it is told
SELECT count(esync_undo(event_id)) FROM esync_history('part', ROW(4, 'z'::text)) WHERE event_type = 'Resolved';
SELECT * FROM told(esync_changes(:'c1', tables => '{part}')) WHERE type = 'Resolved';
-- a device is not told what it did itself
SELECT c->>'user_id' AS user_id, c->>'device_id' AS device_id, c->'version' AS version
FROM jsonb_array_elements(esync_changes(:'c1', tables => '{doc}', device_id => 'tablet of ann')->'changes') AS c;
-- so its cursor is of no use to another device, nor to who wants all; the other way round it is
SELECT esync_changes('now', tables => '{doc}', device_id => 'tablet of ann')->>'cursor' AS anns, esync_changes('now', tables => '{doc}')->>'cursor' AS anybodys \gset
SELECT reset, reason, changes FROM unnest(ARRAY['tablet of ann', 'tablet of ben', NULL]) AS device, frame(esync_changes(:'anns', tables => '{doc}', device_id => device));
SELECT reset, reason, changes FROM frame(esync_changes(:'anybodys', tables => '{doc}', device_id => 'tablet of ben'));

-- NAME: a column that is merged inside comes as a whole; so does a row that comes back
SELECT edit('office', NULL, 0, $$INSERT INTO tree (id, data, x) VALUES ('00000000-0000-0000-0000-000000000001', '{"a": 1, "b": {"c": 1}}', 1)$$);
SELECT edit('ann', 1, 2, $$UPDATE tree SET data = '{"a": 2, "b": {"c": 1}}'$$);
SELECT edit('bob', 1, 1, $$UPDATE tree SET data = '{"a": 1, "b": {"c": 5}}', x = 2$$);
SELECT edit('cid', 1, 1, $$UPDATE tree SET data = '{"a": 9, "b": {"c": 1}}'$$);
SELECT edit('cid', 1, 3, $$UPDATE tree SET data = '[]'$$);
SELECT edit('bob', 1, 2, $$UPDATE tree SET data = '{"a": 1, "b": {"c": 6}}'$$);
UPDATE tree SET gone = now();
SELECT edit('dan', 7, 9, $$UPDATE tree SET x = 7$$);
UPDATE tree SET gone = NULL;
SELECT * FROM told(esync_changes(:'c1', tables => '{tree}'));
-- columns that last_modified keeps come with what the row took, and only then
SELECT c->'version' AS version, c->'set' ? 'seen' AS seen FROM jsonb_array_elements(esync_changes(:'c1', tables => '{tree}')->'changes') AS c;

-- NAME: a change of key is the two events that it is; composite keys are objects
UPDATE doc SET id = 3 WHERE id = 1;
INSERT INTO part VALUES (2, 'y "z"', NULL);
SELECT c->'key' AS key, c->'version' AS version, c->>'event_type' AS type, c->'set' AS set, c->'deleted' AS deleted
FROM (SELECT jsonb_array_elements(esync_changes(:'c1', tables => '{doc,part}')->'changes') AS c) AS x
WHERE c->>'event_type' <> 'Updated' AND c->>'event_type' <> 'Resolved';

-- NAME: columns that were renamed, dropped, added, masked and excluded
CREATE TABLE col (id int PRIMARY KEY, was text, dropped text, secret text, never text);
SELECT esync_enable('col', mask => '{secret}', exclude => '{never}');
INSERT INTO col VALUES (1, 'a', 'b', 's', 'x');
UPDATE col SET was = 'c', dropped = 'd', secret = 't', never = 'y';
ALTER TABLE col RENAME was TO now;
ALTER TABLE col DROP dropped;
ALTER TABLE col ADD added int DEFAULT 7;
UPDATE col SET now = 'e', never = 'z';
SELECT version, type, set FROM told(esync_changes(NULL, tables => '{col}'));
SELECT version, set FROM told(esync_changes(NULL, tables => '{col}', rows => true));
SELECT c->'patch' AS patch FROM jsonb_array_elements(esync_changes(NULL, tables => '{col}')->'changes') AS c;

-- NAME: what happened unseen: the ground, drift, a row that is gone or came
CREATE TABLE dri (id int PRIMARY KEY, a text, b text);
INSERT INTO dri VALUES (1, 'a', 'b'), (2, 'c', 'd'), (3, 'e', 'f');
SELECT esync_enable('dri');
UPDATE dri SET a = 'x' WHERE id < 3;
SET esync.enabled = off;
UPDATE dri SET b = 'unseen' WHERE id = 1;
DELETE FROM dri WHERE id = 2;
RESET esync.enabled;
UPDATE dri SET a = 'y' WHERE id = 1;
INSERT INTO dri VALUES (2, 'again', NULL);
SELECT id, version, type, set, deleted FROM told(esync_changes(NULL, tables => '{dri}'));

-- NAME: a row touched is told again, whole, and nothing else comes of it
SELECT esync_changes('now')->>'cursor' AS c2 \gset
SELECT esync_touch('doc', '3');
SELECT esync_touch('dri', '3');
SELECT esync_touch('part', '{"a": 1, "b": "x"}');
SELECT esync_touch('tree', '00000000-0000-0000-0000-000000000001');
SELECT esync_touch('doc', '2');
SELECT * FROM told(esync_changes(:'c2', tables => '{doc,dri,part,tree}'));
SELECT version, event_type, patch, meta FROM esync_history('doc', 3) ORDER BY event_id DESC LIMIT 1;
SELECT field, version, event_type, value, status FROM field_history('doc', 3) WHERE event_type <> 'Updated';
SELECT tbl, v.* FROM unnest('{doc,dri,part,tree}'::regclass[]) AS tbl, esync_verify(tbl) AS v;
SELECT esync_state('doc', 3) = to_jsonb(doc) AS same FROM doc WHERE id = 3;
-- late edits take their places as ever, and so does one that had seen it
SELECT esync_touch('doc', '4');
SELECT version, event_type, effective_timestamp FROM esync_replay('doc', 4);
SELECT edit('eve', 4, 3, $$UPDATE doc SET note = 'later than bob' WHERE id = 4$$), edit('fay', 5, 2, $$UPDATE doc SET n = 30 WHERE id = 4$$);
SELECT version, base_version, event_type, effective_timestamp, patch FROM esync_history('doc', 4) WHERE version > 4;
SELECT field, value, version, status FROM field_history('doc', 4) WHERE status = 'current';
-- a creation that was touched is undone all the same
INSERT INTO doc VALUES (50, 'x', 'y', 1);
SELECT esync_touch('doc', '50');
SELECT esync_undo((SELECT min(event_id) FROM esync_history('doc', 50)))->>'deleted' AS deleted;
SELECT count(*) FROM doc WHERE id = 50;
SELECT * FROM fails($$SELECT esync_touch('doc', '99')$$);
SELECT * FROM fails($$SELECT esync_touch('doc', 'x')$$);
SELECT * FROM fails($$SELECT esync_touch('other', '1')$$);
SELECT * FROM fails($$SELECT esync_touch('doc', NULL)$$);
SELECT * FROM fails($$SET LOCAL transaction_read_only = on; SELECT esync_touch('doc', '3')$$);

-- NAME: a time that last_modified keeps is that of the row, also where a payload is not stored and the row was left as it was
CREATE TABLE kept (id int PRIMARY KEY, a int, b text, at timestamptz);
CREATE FUNCTION big() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.b := upper(NEW.b); RETURN NEW; END $$;
CREATE TRIGGER big BEFORE INSERT OR UPDATE ON kept FOR EACH ROW EXECUTE FUNCTION big();
SELECT esync_enable('kept', payload => 'changes', last_modified => '{at}', on_conflict => 'last_write_wins');
INSERT INTO kept VALUES (1, 1, 'x'), (2, 1, 'x');
-- one whose create of the same key loses, one whose value the trigger turns back
SELECT esync_save('kept', '{"id": 1, "a": 3}', base_version => 0, context => jsonb_build_object('device_id', 'd8', 'submit_timestamp', now() - interval '1 hour'))->>'status' AS status;
SELECT esync_save('kept', '{"id": 2, "b": "x"}', base_version => 1, context => '{"device_id": "d8"}')->>'status' AS status;
SELECT t.id, t.version, t.type, t.set - 'at' AS set, (t.set->>'at')::timestamptz = kept.at AS as_in_row
FROM told(esync_changes(NULL, tables => '{kept}')) AS t JOIN kept ON kept.id::text = t.id ORDER BY t.id, t.version;
SELECT id, version, (payload->>'at')::timestamptz = at AS as_in_row FROM kept, LATERAL esync_history('kept', id) ORDER BY id, version;
SELECT id, (esync_state('kept', id)->>'at')::timestamptz = at AS as_in_row FROM kept ORDER BY id;
-- it moves with what is not told, too: a masked column
SELECT esync_enable('kept', mask => '{b}');
SELECT esync_changes('now', tables => '{kept}')->>'cursor' AS kept \gset
UPDATE kept SET b = 'secret' WHERE id = 1;
UPDATE kept SET a = 4, b = 'other' WHERE id = 2;
SELECT t.id, t.set - 'at' AS set, (t.set->>'at')::timestamptz = kept.at AS as_in_row
FROM told(esync_changes(:'kept', tables => '{kept}')) AS t JOIN kept ON kept.id::text = t.id ORDER BY t.id;
SELECT esync_disable('kept', true);
DROP TABLE kept;
-- and a late deletion by the tombstone that loses leaves the time as it was
CREATE TABLE kept (id int PRIMARY KEY, gone timestamptz, at timestamptz);
SELECT esync_enable('kept', payload => 'changes', last_modified => '{at}', tombstone => 'gone', on_conflict => 'server_wins');
INSERT INTO kept VALUES (1);
UPDATE kept SET gone = '2025-11-01';
UPDATE kept SET gone = NULL;
BEGIN;
SELECT esync_context(device_id => 'd8', base_version => 1, submit_timestamp => '2025-11-02');
UPDATE kept SET gone = '2025-11-02';
COMMIT;
SELECT t.version, t.type, t.set - 'at' AS set, (t.set->>'at')::timestamptz = kept.at AS as_in_row
FROM told(esync_changes(NULL, tables => '{kept}')) AS t JOIN kept ON kept.id::text = t.id ORDER BY t.version;
SELECT (esync_state('kept', 1)->>'at')::timestamptz = at AS as_in_row FROM kept;
SELECT esync_disable('kept', true);
DROP TABLE kept;

-- NAME: clients that pull now and then, by pages of every size, hold what the tables hold
UPDATE tree SET data = '{"a": 1, "b": {"c": 1}}';
CALL pull('one', 1, '{doc,part,tree}');
CALL pull('big', 10000, '{doc,part,tree}');
CALL pull('whole', 7, '{doc,part,tree}', true);
DO $$
DECLARE
	tablets text[] := '{ann,bob,cid}';
BEGIN
	PERFORM setseed(0.42);
	FOR i IN 1..150 LOOP
		CASE (random() * 6)::int
			WHEN 0 THEN INSERT INTO doc VALUES ((random() * 9)::int, 'new ' || i, NULL, i) ON CONFLICT (id) DO UPDATE SET title = 'again ' || i;
			WHEN 1 THEN DELETE FROM doc WHERE id = (random() * 9)::int;
			WHEN 2 THEN UPDATE doc SET id = id + 10 WHERE id = (random() * 9)::int AND NOT EXISTS (SELECT FROM doc WHERE id >= 10);
			WHEN 3 THEN UPDATE tree SET gone = CASE WHEN gone IS NULL THEN now() END WHERE random() < 0.3;
			WHEN 4 THEN INSERT INTO part VALUES ((random() * 3)::int, 'p', i) ON CONFLICT (a, b) DO UPDATE SET v = i;
			ELSE
				PERFORM edit(tablets[1 + (random() * 2)::int], greatest(1, esync_version('doc', d.id) - (random() * 3)::int), (random() * 9)::int,
					format('UPDATE doc SET %s WHERE id = %s', CASE (random() * 3)::int WHEN 0 THEN 'n = ' || i WHEN 1 THEN 'title = ''t' || i || '''' ELSE 'note = ''n' || i || ''', n = -' || i END, d.id))
				FROM (SELECT id FROM doc ORDER BY random() LIMIT 1) AS d;
				PERFORM edit(tablets[1 + (random() * 2)::int], greatest(1, esync_version('tree', t.id) - (random() * 3)::int), (random() * 9)::int,
					format('UPDATE tree SET data = %L, x = %s WHERE id = %L', jsonb_set(t.data, CASE (random() * 2)::int WHEN 0 THEN '{a}' WHEN 1 THEN '{b,c}' ELSE '{z}' END::text[], to_jsonb(i)), i, t.id))
				FROM (SELECT id, data FROM tree ORDER BY random() LIMIT 1) AS t;
		END CASE;
		COMMIT;
		IF i % 10 = 0 THEN
			CALL pull('one', 1, '{doc,part,tree}');
			CALL pull('whole', 7, '{doc,part,tree}', true);
		END IF;
		IF i % 37 = 0 THEN
			CALL pull('big', 10000, '{doc,part,tree}');
		END IF;
	END LOOP;
END
$$;
CALL pull('one', 1, '{doc,part,tree}');
CALL pull('big', 10000, '{doc,part,tree}');
CALL pull('whole', 7, '{doc,part,tree}', true);
CALL pull('new', 20, '{doc,part,tree}');
SELECT who, d.* FROM unnest('{one,big,whole,new}'::text[]) AS who, differs(who) AS d;
SELECT name, pages > 100 AS many FROM cursors ORDER BY name;
-- all events, each once, in order
SELECT count(*) FILTER (WHERE e <> s) AS faults, count(*) > 200 AS many
FROM (SELECT (c->>'event_id')::bigint AS e, row_number() OVER (ORDER BY place) AS n FROM jsonb_array_elements(esync_changes(NULL, 10000, '{doc,part,tree}')->'changes') WITH ORDINALITY AS x (c, place)) AS e
FULL JOIN (SELECT s, row_number() OVER (ORDER BY s) AS n FROM unnest('{doc,part,tree}'::regclass[]) AS r, stream(r) AS s) AS s USING (n);

-- NAME: much at once is read by windows, with the same result
CREATE TABLE bulk (id int PRIMARY KEY, a text);
SELECT esync_enable('bulk'), esync_enable('other');
SELECT esync_changes('now', tables => '{bulk,other}')->>'cursor' AS c3 \gset
INSERT INTO bulk SELECT i, 'text ' || i FROM generate_series(1, 3000) AS i;
INSERT INTO other SELECT i, i FROM generate_series(1, 3) AS i;
UPDATE bulk SET a = 'x' WHERE id % 3 = 0;
INSERT INTO other SELECT i, i FROM generate_series(4, 6) AS i;
CREATE FUNCTION all_of(start text, page int, tables regclass[], OUT pages int, OUT events int, OUT ordered boolean, OUT given bigint[]) LANGUAGE plpgsql AS $$
DECLARE
	answer jsonb;
	more bigint[];
BEGIN
	pages := 0;
	given := '{}';
	LOOP
		answer := esync_changes(start, page, tables);
		more := ARRAY(SELECT (c->>'event_id')::bigint FROM jsonb_array_elements(answer->'changes') WITH ORDINALITY AS x (c, place) ORDER BY place);
		ASSERT cardinality(more) = page OR NOT (answer->>'has_more')::boolean, 'a page that is not full says that there is more';
		given := given || more;
		start := answer->>'cursor';
		pages := pages + 1;
		EXIT WHEN NOT (answer->>'has_more')::boolean;
	END LOOP;
	events := cardinality(given);
	ordered := (SELECT coalesce(bool_and(f > l), true) FROM (SELECT f, lag(f) OVER (ORDER BY n) AS l FROM unnest(given) WITH ORDINALITY AS x (f, n)) AS y WHERE l IS NOT NULL);
END
$$;
SELECT tables, page, a.pages, a.events, a.ordered, a.given = ARRAY(SELECT s FROM unnest(tables) AS r, stream(r) AS s ORDER BY s) AS complete
FROM (VALUES ('{bulk,other}'::regclass[], 100), ('{bulk,other}', 999), ('{bulk,other}', 10000), ('{other}', 1), ('{other}', 500)) AS v (tables, page), all_of(:'c3', page, tables) AS a;
SELECT page, a.pages, a.events, a.ordered FROM unnest('{100,5000}'::int[]) AS page, all_of(NULL, page, '{bulk,other}') AS a;
-- indexes that are missing cost time, nothing else
SELECT 'esync.event_' || table_id AS leaf FROM esync.tracked_table WHERE relation = 'bulk'::regclass \gset
SELECT indexrelid::regclass::text AS brin FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam WHERE indrelid = :'leaf'::regclass AND amname = 'brin' \gset
SELECT indexrelid::regclass::text AS byxid FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam WHERE indrelid = :'leaf'::regclass AND amname = 'btree' AND NOT indisunique \gset
BEGIN;
DROP INDEX :brin;
SELECT a.pages, a.events, a.ordered FROM all_of(:'c3', 999, '{bulk,other}') AS a;
DROP INDEX :byxid;
SELECT a.pages, a.events, a.ordered FROM all_of(:'c3', 999, '{bulk,other}') AS a;
ROLLBACK;

-- NAME: by time
SET esync.since_overlap = 0;
SELECT clock_timestamp() AS then \gset
SELECT count(pg_sleep(0.01));
UPDATE bulk SET a = 'y' WHERE id = 7;
UPDATE other SET x = 100 WHERE id = 2;
SELECT * FROM told(esync_changes(:'then', tables => '{bulk,other}'));
SELECT * FROM told(esync_changes(:'then', 1, '{bulk,other}'));
SELECT * FROM told(esync_changes(esync_changes(:'then', 1, '{bulk,other}')->>'cursor', 1, '{bulk,other}'));
SELECT * FROM frame(esync_changes(esync_changes(:'then', tables => '{bulk,other}')->>'cursor', tables => '{bulk,other}'));
RESET esync.since_overlap;
SHOW esync.since_overlap;
SELECT changes > 2 AS "what came five minutes before, too" FROM frame(esync_changes(:'then', tables => '{bulk,other}'));
SELECT * FROM frame(esync_changes('2100-01-01T00:00:00Z', tables => '{bulk,other}'));
SELECT changes FROM frame(esync_changes('2001-01-01 00:00+00', 10000, tables => '{other}'));

-- NAME: the caller's own transaction is running, whatever it sees
BEGIN;
UPDATE other SET x = 10 WHERE id = 1;
SELECT esync_changes('now', tables => '{other}')->>'cursor' AS c4 \gset
SELECT * FROM frame(esync_changes(:'c4', tables => '{other}'));
UPDATE other SET x = 2 WHERE id = 1;
SELECT f.changes, answer->>'cursor' AS cursor FROM esync_changes(:'c4', tables => '{other}') AS answer, frame(answer) AS f \gset own_
SELECT :own_changes AS changes;
COMMIT;
SELECT version, set FROM told(esync_changes(:'c4', tables => '{other}'));
SELECT version, set FROM told(esync_changes(:'own_cursor', tables => '{other}'));

-- NAME: what is refused
SELECT * FROM fails($$SELECT esync_changes('')$$);
SELECT * FROM fails($$SELECT esync_changes('e1.AAAA')$$);
SELECT * FROM fails($$SELECT esync_changes('e1.')$$);
SELECT * FROM fails($$SELECT esync_changes('e2.AAAA')$$);
SELECT * FROM fails($$SELECT esync_changes('17')$$);
SELECT * FROM fails($$SELECT esync_changes('yesterday')$$);
SELECT * FROM fails($$SELECT esync_changes(repeat('x', 300))$$);
-- a single letter changed is noticed
SELECT count(*) > 30 AS tried, bool_and(f.code = '22023') AS refused
FROM generate_series(4, length(:'c0')) AS i, fails(format('SELECT esync_changes(%L)', overlay(:'c0' PLACING CASE substr(:'c0', i, 1) WHEN 'A' THEN 'B' ELSE 'A' END FROM i FOR 1))) AS f;
SELECT * FROM fails($$SELECT esync_changes(NULL, 0)$$);
SELECT * FROM fails($$SELECT esync_changes(NULL, -1)$$);
SELECT * FROM fails($$SELECT esync_changes(NULL, 10001)$$);
SELECT * FROM fails($$SELECT esync_changes(NULL, tables => '{pg_class}')$$);
SELECT * FROM fails($$SELECT esync_changes(NULL, tables => ARRAY[NULL::regclass])$$);
SELECT * FROM frame(esync_changes(NULL, NULL, '{}'));

-- NAME: a cursor is good for what it was made for, and for less
SELECT * FROM frame(esync_changes(:'c3', tables => '{bulk}'));
SELECT * FROM frame(esync_changes(esync_changes(:'c3', tables => '{bulk}')->>'cursor', tables => '{bulk,other}'));
SELECT * FROM frame(esync_changes(:'c3'));
SELECT * FROM frame(esync_changes(esync_changes('now', tables => '{bulk}', tenant => 'a')->>'cursor', tables => '{bulk}', tenant => 'b'));

-- NAME: a disabled table can be read on, a dropped one is left out, and what was purged is a reset
SELECT esync_changes('now', tables => '{bulk,other}')->>'cursor' AS c5 \gset
UPDATE other SET x = 3 WHERE id = 1;
UPDATE bulk SET a = 'z' WHERE id = 1;
SELECT esync_disable('bulk');
SELECT tbl, id, version, set FROM told(esync_changes(:'c5', tables => '{bulk,other}'));
UPDATE esync.tracked_table SET pruned_through = (SELECT max(xid) FROM esync.event e WHERE e.table_id = tracked_table.table_id) WHERE relation = 'other'::regclass;
SELECT esync.invalidate('other');
SELECT * FROM frame(esync_changes(:'c5', tables => '{bulk,other}'));
SELECT * FROM frame(esync_changes(:'c5', tables => '{bulk}'));
SELECT * FROM frame(esync_changes(NULL, tables => '{other}'));
SELECT * FROM frame(esync_changes(esync_changes('now', tables => '{other}')->>'cursor', tables => '{other}'));
UPDATE esync.tracked_table SET pruned_through = NULL WHERE relation = 'other'::regclass;
SELECT esync.invalidate('other');

-- NAME: an event that was there and is gone: this is another past
SELECT esync_changes('now', tables => '{other}')->>'cursor' AS c6 \gset
SELECT * FROM frame(esync_changes(:'c6', tables => '{other}'));
BEGIN;
DELETE FROM esync.event WHERE event_id = (SELECT max(event_id) FROM esync.event);
SELECT * FROM frame(esync_changes(:'c6', tables => '{other}'));
ROLLBACK;
SELECT * FROM frame(esync_changes(:'c6', tables => '{other}'));
BEGIN;
INSERT INTO esync.life SELECT max(epoch) + 1, 1, 1, now() FROM esync.life;
SELECT esync.invalidate('esync.life');
SELECT reset, reason, changes, cursor FROM frame(esync_changes(:'c6', tables => '{other}'));
ROLLBACK;
-- one that a superuser made anonymous is there, whatever way leads to it
UPDATE other SET x = 30 WHERE id = 1;
SELECT esync_changes('now', tables => '{other}')->>'cursor' AS c7 \gset
UPDATE esync.event SET user_id = 'nobody' WHERE event_id = (SELECT max(stream) FROM stream('other'));
SELECT reset, reason, changes FROM frame(esync_changes(:'c7', tables => '{other}'));
SELECT c->>'user_id' AS user_id FROM jsonb_array_elements(esync_changes(:'c6', tables => '{other}')->'changes') AS c;
SELECT c->>'user_id' AS user_id, count(*) FROM jsonb_array_elements(esync_changes(NULL, 10000, tables => '{other}')->'changes') AS c GROUP BY 1 HAVING count(*) = 1;

-- NAME: events of an earlier epoch are given to who begins, whatever their xids say
BEGIN;
UPDATE esync.event SET epoch = epoch - 1, xid = (xid::text::numeric + 1000000000)::text::xid8 WHERE event_id IN (SELECT stream('other'));
SELECT changes FROM frame(esync_changes(NULL, tables => '{other}'));
SELECT a.pages, a.events, a.ordered FROM all_of(NULL, 2, '{other}') AS a;
SELECT changes FROM frame(esync_changes('now', tables => '{other}'));
ROLLBACK;

-- NAME: DDL is no event; a row that is touched comes whole, under the names of now
CREATE TABLE shape (id int PRIMARY KEY, b text, c int);
SELECT esync_enable('shape');
INSERT INTO shape VALUES (1, 'b', 1), (2, 'b', 2);
SELECT esync_changes('now', tables => '{shape}')->>'cursor' AS shape \gset
ALTER TABLE shape RENAME b TO bb;
ALTER TABLE shape ADD d int NOT NULL DEFAULT 7, DROP c;
SELECT reset, changes FROM frame(esync_changes(:'shape', tables => '{shape}'));
UPDATE shape SET bb = 'new' WHERE id = 1;
SELECT esync_touch('shape', '2');
SELECT t.id, t.version, t.type, t.set FROM told(esync_changes(:'shape', tables => '{shape}')) AS t;
SELECT t.id, t.version, t.type, t.set FROM told(esync_changes(:'shape', tables => '{shape}', rows => true)) AS t;
SELECT esync_disable('shape', true);

-- NAME: where a history was dropped, versions begin anew, and so does whoever has read it
CREATE TABLE again (id int PRIMARY KEY, v int);
CREATE TABLE never (id int PRIMARY KEY);
SELECT esync_enable('again'), esync_enable('never');
INSERT INTO again VALUES (1, 1);
UPDATE again SET v = 2;
UPDATE other SET x = 4 WHERE id = 1;
SELECT esync_changes('now')->>'cursor' AS all_of_it, esync_changes('now', tables => '{again}')->>'cursor' AS again,
	esync_changes('now', tables => '{again,other}')->>'cursor' AS both, esync_changes('now', tables => '{other}')->>'cursor' AS beside,
	esync_changes(NULL, 2)->>'cursor' AS open_page \gset
SELECT esync_disable('never', true), esync_disable('again', true);
SELECT reset, reason, changes, cursor FROM frame(esync_changes(:'all_of_it'));
SELECT esync_enable('again', baseline => true);
UPDATE again SET v = 77;
SELECT reset, reason, changes, cursor FROM frame(esync_changes(:'all_of_it'));
SELECT reset, reason, changes, cursor FROM frame(esync_changes(:'all_of_it', tables => '{again}'));
SELECT reset, reason, changes, cursor FROM frame(esync_changes(:'open_page'));
SELECT reset, reason, changes, cursor FROM frame(esync_changes(:'again', tables => '{again}'));
SELECT reset, reason, changes, cursor FROM frame(esync_changes(:'both', tables => '{other,again}'));
-- who has not read it goes on, and so does who left it out since
SELECT reset, reason, changes FROM frame(esync_changes(:'beside', tables => '{other}'));
SELECT reset, reason, changes FROM frame(esync_changes(:'both', tables => '{other}'));
-- one that is tracked since, or disabled, is no matter
SELECT esync_changes('now')->>'cursor' AS all_of_it \gset
SELECT esync_enable('never');
SELECT esync_disable('again');
INSERT INTO never VALUES (1);
SELECT reset, reason, changes FROM frame(esync_changes(:'all_of_it'));
SELECT esync_enable('again');
UPDATE again SET v = 78;
SELECT t.id, t.version, t.set FROM told(esync_changes(:'all_of_it')) AS t;
-- a table that is dropped is left out, until another one bears its name
DROP TABLE again;
SELECT reset, reason, changes FROM frame(esync_changes(:'all_of_it'));
SELECT esync_changes('now')->>'cursor' AS since, esync_changes(NULL, 10000)->>'cursor' AS since_all \gset
CREATE TABLE again (id int PRIMARY KEY, v int);
SELECT esync_enable('again');
SELECT reset, reason, changes, cursor FROM frame(esync_changes(:'all_of_it'));
SELECT reset, reason, changes FROM frame(esync_changes(esync_changes('now')->>'cursor'));
-- which is no matter to who began after it was dropped
SELECT reset, reason, changes FROM frame(esync_changes(:'since'));
SELECT reset, reason, changes FROM frame(esync_changes(:'since_all'));
SELECT esync_disable('never', true), esync_disable('again', true);

RESET search_path;
SELECT esync_disable(t, true) FROM unnest('{chg.doc,chg.part,chg.tree,chg.col,chg.dri,chg.bulk,chg.other}'::regclass[]) AS t;
DROP SCHEMA chg CASCADE;
