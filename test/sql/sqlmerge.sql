-- Plain SQL with a base: an UPDATE or DELETE whose context says what its author
-- had seen is merged into the row of now.  After each part the witness
-- recomputes rows, places and conflicts from the raw events.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA sm;
SET search_path = sm, public;
-- a row's events, without clocks and ids
CREATE FUNCTION stream(tbl regclass, key text DEFAULT '1', since bigint DEFAULT 1) RETURNS TABLE (v bigint, base bigint, type text, who text, device text, patch jsonb, payload jsonb, flags int, meta jsonb)
LANGUAGE sql AS $$
SELECT version, base_version, event_type, nullif(user_id, session_user), device_id, patch, payload, flags, meta FROM witness.events(tbl) e
WHERE aggregate_id = key AND version >= since ORDER BY version
$$;
CREATE FUNCTION open(tbl regclass) RETURNS TABLE (id text, field text, kind text, base_value jsonb, shown jsonb, contenders text) LANGUAGE sql AS $$
SELECT c.aggregate_id, c.field, c.kind, c.base_value, c.shown_value, (SELECT string_agg(format('v%s %s %s', x->'version', coalesce(nullif(x->>'user_id', session_user), 'me'), x->'value'), ', ' ORDER BY x->'version') FROM jsonb_array_elements(c.contenders) x)
FROM esync_conflicts(tbl) c ORDER BY 1, 2
$$;
-- one statement as somebody who had seen a version; saved on a day of two months ago, or now
CREATE PROCEDURE late(who text, base bigint, statement text, day int DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.esync_context(who, who || '-tablet', base_version => base, submit_timestamp => now() - interval '60 days' + make_interval(days => day));
	EXECUTE statement;
	PERFORM public.esync_context();
END
$$;
-- so that the events of a table that are there are older than that
CREATE PROCEDURE shift(tbl regclass, ago interval) LANGUAGE sql AS $$
UPDATE esync.event SET commit_timestamp = commit_timestamp - ago, submit_timestamp = submit_timestamp - ago, branch_timestamp = branch_timestamp - ago, effective_timestamp = effective_timestamp - ago, effective_high = effective_high - ago
WHERE table_id = (SELECT table_id FROM esync.tracked_table t WHERE t.relation = tbl)
$$;

-- NAME: an application that sends all columns each time takes back nobody's edit
CREATE TABLE valve (id int PRIMARY KEY, title text, pressure numeric, note text, doc jsonb);
SELECT esync_enable('valve');
INSERT INTO valve VALUES (1, 'Main', 137, 'n', '{"a": 1}');
CALL shift('valve', '1 year');
CALL late('ann', 1, $$UPDATE valve SET title = 'Main valve', doc = '{"a": 2}'$$);
-- RETURNING shows the row as merged; 1.0 in a document is 1, 137.0 in a numeric column as well
BEGIN;
SELECT esync_context('bob', 'tablet', base_version => 1);
UPDATE valve SET id = 1, title = 'Main', pressure = 137.0, note = 'bob', doc = '{"a": 1.0}' WHERE id = 1 RETURNING *;
COMMIT;
SELECT * FROM stream('valve');
SELECT * FROM open('valve');
SELECT * FROM witness.differences('valve');

-- NAME: one field by two: the later submit shows, whichever comes first; the other is on record
CALL late('cleo', 1, $$UPDATE valve SET title = 'Cleo', pressure = 140.50$$, 19);
SELECT * FROM valve;
CALL late('dan', 1, $$UPDATE valve SET pressure = 141$$, 18);
CALL late('eve', 1, $$UPDATE valve SET pressure = 142$$, 20);
SELECT * FROM valve;
SELECT * FROM stream('valve', '1', 4);
SELECT * FROM open('valve');
SELECT * FROM witness.differences('valve');
-- two who say the same agree; who had seen all decides
CALL late('fay', 1, $$UPDATE valve SET title = 'Main valve'$$, 17);
CALL late('gus', 7, $$UPDATE valve SET pressure = 137$$, 2);
SELECT * FROM stream('valve', '1', 7);
SELECT * FROM open('valve');
SELECT * FROM valve;
SELECT * FROM witness.differences('valve');

-- NAME: nothing changed against the base: no event, and the row stays as it is
CALL late('hal', 1, $$UPDATE valve SET title = 'Main', pressure = 137, doc = '{"a": 1}'$$);
SELECT esync_version('valve', 1), * FROM valve;

-- NAME: the base is the head, or beyond it: nothing to merge
CALL late('ann', 8, $$UPDATE valve SET note = 'head'$$);
CALL late('ann', 99, $$UPDATE valve SET note = 'beyond'$$);
CALL late('ann', 0, $$UPDATE valve SET note = 'before there was anything'$$, 21);
SELECT * FROM stream('valve', '1', 9);
SELECT * FROM open('valve');
SELECT * FROM witness.differences('valve');

-- NAME: the base is spent with its statement
INSERT INTO valve VALUES (2, 'b', 1, 'n', NULL), (3, 'c', 1, 'n', NULL);
UPDATE valve SET note = 'newer' WHERE id IN (2, 3);
BEGIN;
SELECT esync_context('ann', base_version => 1);
UPDATE valve SET note = 'first', title = 'b' WHERE id = 2 RETURNING title, note;
UPDATE valve SET note = 'head', title = 'b' WHERE id = 2 RETURNING title, note;
UPDATE valve SET note = 'head', title = 'b' WHERE id = 3 RETURNING title, note;
-- the same again, also with the same value
SELECT esync_context('ann', base_version => 1);
UPDATE valve SET note = 'second' WHERE id = 3 RETURNING title, note;
SET LOCAL esync.base_version = 1;
UPDATE valve SET note = 'third' WHERE id = 3 RETURNING title, note;
COMMIT;
SELECT * FROM stream('valve', '2', 2) UNION ALL SELECT * FROM stream('valve', '3', 2);
SELECT * FROM witness.differences('valve');
-- it may be set for the session: each transaction has its one row
SET esync.base_version = 2;
UPDATE valve SET title = 'session' WHERE id = 2;
BEGIN; UPDATE valve SET title = 'session' WHERE id = 3; UPDATE valve SET title = 'session again' WHERE id = 3; COMMIT;
RESET esync.base_version;
SELECT v, base, patch FROM stream('valve', '2', 5) UNION ALL SELECT v, base, patch FROM stream('valve', '3', 6);
-- a statement that writes no row spends nothing; nor does one that writes a table that is not tracked
CREATE TABLE plain (id int PRIMARY KEY);
BEGIN;
SELECT esync_context('ann', base_version => 1);
UPDATE valve SET note = 'x' WHERE id = 99;
INSERT INTO plain VALUES (1);
UPDATE valve SET note = 'y' WHERE id = 2;
COMMIT;
SELECT v, base, patch FROM stream('valve', '2', 6);
SELECT * FROM witness.differences('valve');

-- NAME: savepoints: what is undone is not spent, what is spent stays so
CREATE TABLE item (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('item');
INSERT INTO item VALUES (1, 'a', 'b'), (2, 'a', 'b');
UPDATE item SET a = 'newer';
BEGIN;
SELECT esync_context('ann', base_version => 1);
SAVEPOINT s;
UPDATE item SET b = 'undone' WHERE id = 1;
ROLLBACK TO s;
UPDATE item SET b = 'late' WHERE id = 1;
SAVEPOINT t;
UPDATE item SET b = 'head' WHERE id = 1;
RELEASE t;
UPDATE item SET b = 'head two' WHERE id = 1;
-- another base in a savepoint that is undone leaves the former one spent
SAVEPOINT u;
SELECT esync_context('ann', base_version => 2);
UPDATE item SET b = 'undone' WHERE id = 1;
ROLLBACK TO u;
UPDATE item SET b = 'head three' WHERE id = 1;
SAVEPOINT v;
SELECT esync_context('ann', base_version => 2);
ROLLBACK TO v;
UPDATE item SET b = 'head four' WHERE id = 1;
COMMIT;
SELECT v, base, patch, meta FROM stream('item', '1', 3);
-- an error that is caught gives it back as well; so does a transaction that ends
BEGIN;
SELECT esync_context('ann', base_version => 1);
DO $$
BEGIN
	UPDATE sm.item SET b = 'undone' WHERE id = 2;
	RAISE 'no';
EXCEPTION WHEN raise_exception THEN
	UPDATE sm.item SET b = 'late' WHERE id = 2;
END $$;
UPDATE item SET b = 'head' WHERE id = 2;
COMMIT;
SELECT v, base, patch, meta FROM stream('item', '2', 3);
SELECT * FROM witness.differences('item');

-- NAME: a second row under a base_version is an error, whichever table it is of
CREATE FUNCTION refused_under(base bigint, statement text) RETURNS TABLE (code text, message text, hint text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.esync_context(base_version => base);
	RETURN QUERY SELECT r.code, r.message, r.hint FROM witness.refused(statement) r;
	PERFORM public.esync_context();
END
$$;
SELECT * FROM refused_under(1, $$UPDATE sm.item SET b = 'all'$$);
SELECT * FROM refused_under(99, $$UPDATE sm.item SET b = 'all'$$);
SELECT * FROM refused_under(1, $$DELETE FROM sm.item$$);
SELECT * FROM refused_under(1, $$INSERT INTO sm.item VALUES (3), (4)$$);
SELECT * FROM refused_under(1, $$WITH x AS (UPDATE sm.item SET b = 'one' WHERE id = 1) UPDATE sm.valve SET note = 'other' WHERE id = 2$$);
SELECT * FROM refused_under(1, $$TRUNCATE sm.item$$);
-- one that swallows nothing but writes an untracked table besides is not
SELECT * FROM refused_under(1, $$WITH x AS (UPDATE sm.item SET b = 'one' WHERE id = 1) DELETE FROM sm.plain$$);

-- NAME: the base by branch timestamp: what was current then, less what was committed just before
CREATE TABLE branch (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('branch');
INSERT INTO branch VALUES (1, 'a', 'b'), (2, 'a', 'b'), (3, 'a', 'b');
CALL shift('branch', '1 hour');
UPDATE branch SET a = 'ann';
CALL shift('branch', '1 hour');
-- copied between the two, and 4 and 6 seconds after the second
SELECT commit_timestamp + interval '30 minutes' AS between FROM witness.events('branch') WHERE aggregate_id = '1' AND version = 1 \gset
SELECT max(commit_timestamp) + interval '4 s' AS margin, max(commit_timestamp) + interval '6 s' AS after FROM witness.events('branch') \gset
BEGIN; SELECT esync_context('bob', branch_timestamp => :'between'); UPDATE branch SET a = 'a', b = 'bob' WHERE id = 1 RETURNING *; COMMIT;
BEGIN; SELECT esync_context('bob', branch_timestamp => :'margin'); UPDATE branch SET a = 'a', b = 'bob' WHERE id = 2 RETURNING *; COMMIT;
BEGIN; SELECT esync_context('bob', branch_timestamp => :'after'); UPDATE branch SET a = 'a', b = 'bob' WHERE id = 3 RETURNING *; COMMIT;
SELECT s.* FROM generate_series(1, 3) id, stream('branch', id::text, 3) s;
-- with another margin; then every row of a statement is merged at its own version
UPDATE branch SET a = 'ann again';
SET esync.branch_margin = 0;
BEGIN; SELECT esync_context('cleo', branch_timestamp => :'margin'); UPDATE branch SET a = 'ann', b = 'cleo' WHERE id <> 2 RETURNING *; COMMIT;
RESET esync.branch_margin;
SELECT s.v, s.base, s.patch FROM generate_series(1, 3, 2) id, stream('branch', id::text, 5) s;
SELECT * FROM open('branch');
-- before there was anything: nothing was seen; a base_version beside it decides
BEGIN; SELECT esync_context('dan', branch_timestamp => '2025-01-01Z', submit_timestamp => '2025-01-02Z'); UPDATE branch SET a = 'dan', b = 'bob' WHERE id = 2 RETURNING *; COMMIT;
BEGIN; SELECT esync_context('eve', base_version => 5, branch_timestamp => '2025-01-01Z'); UPDATE branch SET b = 'eve' WHERE id = 2 RETURNING *; COMMIT;
SELECT * FROM stream('branch', '2', 5);
SELECT * FROM open('branch');
SELECT * FROM witness.differences('branch');

-- NAME: what the table's own triggers make of the row is an event of its own
CREATE TABLE own (id int PRIMARY KEY, a text, b text, n int NOT NULL DEFAULT 0, updated_at text, stamp timestamptz);
CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := OLD.n + 1; NEW.updated_at := 'updated ' || NEW.n; RETURN NEW; END $$;
CREATE TRIGGER count_up BEFORE UPDATE ON own FOR EACH ROW EXECUTE FUNCTION count_up();
SELECT esync_enable('own', last_modified => '{stamp}');
INSERT INTO own VALUES (1, 'a', 'b');
CALL shift('own', '1 year');
CALL late('ann', 1, $$UPDATE own SET a = 'ann'$$);
BEGIN;
SELECT esync_context('bob', 'tablet', base_version => 1, submit_timestamp => now() - interval '1 day', meta => '{"why": "bob"}');
UPDATE own SET a = 'a', b = 'bob', n = 0, updated_at = NULL, stamp = '2025-01-01Z' RETURNING a, b, n, updated_at, stamp > now() - interval '1 minute' AS kept;
COMMIT;
SELECT v, base, type, who, device, patch, payload - 'stamp' AS payload, flags, meta FROM stream('own');
SELECT DISTINCT commit_timestamp = (payload->>'stamp')::timestamptz AS same FROM witness.events('own') WHERE version IN (2, 4);
SELECT stamp = (SELECT payload->>'stamp' FROM witness.events('own') ORDER BY version DESC LIMIT 1)::timestamptz AS same FROM own;
SELECT * FROM open('own');
SELECT * FROM witness.differences('own');
-- an edit that loses every field, and one that is none: the trigger counts all the same
CALL late('cleo', 1, $$UPDATE own SET a = 'lost'$$, -30);
CALL late('dan', 1, $$UPDATE own SET a = 'a'$$);
SELECT v, base, type, who, device, patch, payload - 'stamp' AS payload, flags FROM stream('own', '1', 5);
SELECT a, b, n, updated_at FROM own;
SELECT * FROM open('own');
SELECT * FROM witness.differences('own');
-- a trigger that decides otherwise about the very field that was merged
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.b := upper(NEW.b); RETURN NEW; END $$;
CREATE TRIGGER shout BEFORE UPDATE ON own FOR EACH ROW EXECUTE FUNCTION shout();
CALL late('eve', 1, $$UPDATE own SET b = 'eve'$$);
SELECT v, base, who, patch, flags FROM stream('own', '1', 8);
SELECT * FROM open('own');
SELECT * FROM witness.differences('own');

-- NAME: a trigger that swallows the row: no event, and nothing is left behind
CREATE TABLE swallow (id int PRIMARY KEY, a text, b text);
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.a = 'no' THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER swallow BEFORE UPDATE ON swallow FOR EACH ROW EXECUTE FUNCTION swallow();
SELECT esync_enable('swallow');
INSERT INTO swallow VALUES (1, 'a', 'b');
UPDATE swallow SET b = 'newer';
BEGIN;
SELECT esync_context('ann', base_version => 1);
UPDATE swallow SET a = 'no', b = 'ann';
UPDATE swallow SET a = 'yes', b = 'head';
SELECT esync_context('ann', base_version => 1);
UPDATE swallow SET a = 'no', b = 'ann';
SELECT esync_context('ann', base_version => 1);
UPDATE swallow SET a = 'again';
COMMIT;
SELECT * FROM stream('swallow');
SELECT * FROM witness.differences('swallow');

-- NAME: triggers that write more: their writes know the head
CREATE TABLE touched (id int PRIMARY KEY, a text, b text, n int);
CREATE TABLE other (id int PRIMARY KEY, n int);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() = 1 THEN
		UPDATE sm.touched SET n = coalesce(n, 0) + 1 WHERE id = NEW.id;
		UPDATE sm.other SET n = n + 1;
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER touch AFTER UPDATE ON touched FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER "0_before_esync" AFTER UPDATE ON touched FOR EACH ROW EXECUTE FUNCTION touch();
SELECT esync_enable('touched'), esync_enable('other');
INSERT INTO touched VALUES (1, 'a', 'b', 0);
INSERT INTO other VALUES (1, 0), (2, 0);
CALL late('ann', 1, $$UPDATE touched SET a = 'ann'$$);
CALL late('bob', 1, $$UPDATE touched SET a = 'a', b = 'bob', n = 0$$);
SELECT * FROM touched;
SELECT * FROM stream('touched');
SELECT v, base, who, device, patch, meta FROM stream('other');
SELECT * FROM open('touched');
SELECT * FROM witness.differences('touched');
SELECT * FROM witness.differences('other');
-- a BEFORE trigger that writes another tracked table first
CREATE FUNCTION before_other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE sm.other SET n = 100 WHERE id = 1; RETURN NEW; END $$;
CREATE TRIGGER "  first" BEFORE UPDATE ON touched FOR EACH ROW EXECUTE FUNCTION before_other();
CALL late('cleo', 1, $$UPDATE touched SET b = 'cleo'$$);
SELECT v, base, who, patch, flags FROM stream('touched', '1', 8);
SELECT v, base, who, patch, meta FROM stream('other', '1', 6);
SELECT * FROM witness.differences('touched');

-- NAME: cascades of a key
CREATE TABLE parent (id int PRIMARY KEY, a text);
CREATE TABLE child (id int PRIMARY KEY, parent_id int REFERENCES parent ON UPDATE CASCADE ON DELETE CASCADE, a text);
SELECT esync_enable('parent'), esync_enable('child');
INSERT INTO parent VALUES (1, 'a'), (2, 'a');
INSERT INTO child VALUES (1, 1, 'a'), (2, 1, 'a'), (3, 2, 'a');
UPDATE parent SET a = 'newer';
UPDATE child SET a = 'newer';
CALL late('ann', 1, $$DELETE FROM parent WHERE id = 2$$);
SELECT id, v, base, type, who, patch, flags FROM unnest('{2}'::text[]) id, stream('parent', id);
SELECT v, base, type, who, patch, flags, meta FROM stream('child', '3');
SELECT * FROM open('parent') UNION ALL SELECT * FROM open('child');
SELECT * FROM witness.differences('parent');
SELECT * FROM witness.differences('child');

-- NAME: the key itself changes under a stale base
CALL late('ann', 1, $$UPDATE parent SET id = 10 WHERE id = 1$$);
SELECT v, base, type, who, patch, flags, meta FROM stream('parent', '1', 2) UNION ALL SELECT v, base, type, who, patch, flags, meta FROM stream('parent', '10');
SELECT v, base, type, who, patch, meta FROM stream('child', '1', 3);
SELECT * FROM refused_under(1, $$UPDATE sm.parent SET id = 11, a = 'other' WHERE id = 10$$);
CALL late('ann', 1, $$UPDATE parent SET a = 'by the new key' WHERE id = 10$$);
SELECT * FROM parent;
SELECT v, base, type, who, patch, flags, meta FROM stream('parent', '10', 2);
SELECT * FROM witness.differences('parent');
SELECT * FROM witness.differences('child');
UPDATE parent SET a = 'newest' WHERE id = 10;
SELECT * FROM refused_under(1, $$UPDATE sm.parent SET id = 11, a = 'other' WHERE id = 10$$);

-- NAME: INSERT ... ON CONFLICT DO UPDATE, UPDATE ... FROM, MERGE, WITH, functions
CREATE TABLE ways (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('ways');
INSERT INTO ways SELECT i, 'a', 'b' FROM generate_series(1, 8) i;
UPDATE ways SET a = 'newer';
CALL late('ann', 1, $$INSERT INTO ways VALUES (1, 'a', 'ann') ON CONFLICT (id) DO UPDATE SET a = excluded.a, b = excluded.b$$);
CALL late('ann', 1, $$INSERT INTO ways VALUES (1, 'a', 'nothing') ON CONFLICT DO NOTHING$$);
CALL late('ann', 1, $$UPDATE ways w SET a = v.a, b = v.b FROM (VALUES (2, 'a', 'ann')) AS v (id, a, b) WHERE w.id = v.id$$);
CALL late('ann', 1, $$MERGE INTO ways w USING (VALUES (3, 'a', 'ann')) AS v (id, a, b) ON w.id = v.id WHEN MATCHED THEN UPDATE SET a = v.a, b = v.b WHEN NOT MATCHED THEN DO NOTHING$$);
CALL late('ann', 1, $$MERGE INTO ways w USING (VALUES (4)) AS v (id) ON w.id = v.id WHEN MATCHED THEN DELETE$$);
CALL late('ann', 1, $$WITH x AS (UPDATE ways SET a = 'a', b = 'ann' WHERE id = 5 RETURNING *) INSERT INTO plain SELECT 100 + length(x.a) FROM x$$);
SELECT * FROM plain;
CREATE FUNCTION edit(k int, text, text) RETURNS text LANGUAGE sql AS $$ UPDATE sm.ways SET a = $2, b = $3 WHERE id = $1 RETURNING a || ' ' || b $$;
CREATE FUNCTION edits() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.esync_context('ann', base_version => 1);
	RETURN NEXT sm.edit(6, 'a', 'ann');
	RETURN NEXT sm.edit(6, 'a', 'head');
	FOR k IN 7 .. 8 LOOP
		PERFORM public.esync_context('ann', base_version => 1);
		RETURN NEXT sm.edit(k, 'a', 'ann');
	END LOOP;
	PERFORM public.esync_context();
END $$;
SELECT edits();
PREPARE p AS UPDATE ways SET a = $1, b = $2 WHERE id = 8 RETURNING a, b;
BEGIN; SELECT esync_context('bob', base_version => 2); EXECUTE p('newer', 'bob'); COMMIT;
BEGIN; DECLARE c CURSOR FOR SELECT * FROM ways WHERE id = 7; FETCH c; SELECT esync_context('bob', base_version => 2); UPDATE ways SET a = 'newer', b = 'bob' WHERE CURRENT OF c RETURNING *; COMMIT;
SELECT id, s.v, base, type, patch, payload, flags FROM generate_series(1, 8) id, stream('ways', id::text, 3) s;
SELECT * FROM open('ways');
SELECT * FROM witness.differences('ways');
-- an insertion spends it; an update of the row that was just inserted takes the head
BEGIN;
SELECT esync_context('ann', base_version => 0);
INSERT INTO ways VALUES (9, 'a', 'b');
UPDATE ways SET a = 'newer' WHERE id = 9;
UPDATE ways SET a = 'a', b = 'head' WHERE id = 9 RETURNING *;
COMMIT;
SELECT v, base, type, patch, meta FROM stream('ways', '9');
-- two copies of a row in one statement: the second does not count
BEGIN; SELECT esync_context('bob', base_version => 1); UPDATE ways w SET b = v FROM (VALUES ('x'), ('x')) AS v (v) WHERE id = 9 RETURNING *; COMMIT;
SELECT v, base, type, patch FROM stream('ways', '9', 4);
SELECT * FROM witness.differences('ways');

-- NAME: partitions, with columns in another order, and rows that move to another one
CREATE TABLE part (region text, id int, a text, b text, n int, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE part_eu (n int, hole int, b text, a text, id int NOT NULL, region text NOT NULL);
ALTER TABLE part_eu DROP hole;
ALTER TABLE part ATTACH PARTITION part_eu FOR VALUES IN ('eu');
CREATE TABLE part_us PARTITION OF part FOR VALUES IN ('us');
SELECT esync_enable('part');
INSERT INTO part VALUES ('eu', 1, 'a', 'b', 0), ('us', 2, 'a', 'b', 0);
UPDATE part SET a = 'newer', n = 1;
CALL late('ann', 1, $$UPDATE part SET a = 'a', b = 'ann', n = 0 WHERE id = 1$$);
CALL late('ann', 1, $$UPDATE part_us SET a = 'a', b = 'ann', n = 0 WHERE id = 2$$);
SELECT tableoid::regclass, * FROM part ORDER BY id;
SELECT * FROM stream('part', '["eu", 1]', 2) UNION ALL SELECT * FROM stream('part', '["us", 2]', 2);
SELECT * FROM witness.differences('part');
-- here the region is part of the key: a move is a change of key
SELECT * FROM refused_under(1, $$UPDATE sm.part SET region = 'us', b = 'moved' WHERE id = 1$$);
-- there it is not
CREATE TABLE moves (region text, id int NOT NULL, a text, b text, n int) PARTITION BY LIST (region);
CREATE TABLE moves_eu (n int, hole int, b text, a text, id int NOT NULL, region text);
ALTER TABLE moves_eu DROP hole;
ALTER TABLE moves ATTACH PARTITION moves_eu FOR VALUES IN ('eu');
CREATE TABLE moves_us PARTITION OF moves FOR VALUES IN ('us');
CREATE TRIGGER count_up BEFORE INSERT ON moves_us FOR EACH ROW EXECUTE FUNCTION count_up();
CREATE OR REPLACE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := coalesce(NEW.n, 0) + 1; RETURN NEW; END $$;
SELECT esync_enable('moves', key => '{id}');
INSERT INTO moves VALUES ('eu', 1, 'a', 'b', 0), ('us', 2, 'a', 'b', 0), ('eu', 3, 'a', 'b', 0);
CALL shift('moves', '1 year');
UPDATE moves SET a = 'newer';
CALL late('ann', 1, $$UPDATE moves SET region = 'us', a = 'a', b = 'ann' WHERE id = 1$$);
CALL late('ann', 1, $$UPDATE moves SET region = 'eu', a = 'a', b = 'ann' WHERE id = 2$$);
-- somebody else moved it meanwhile, and the author leaves it where it was
UPDATE moves SET region = 'us' WHERE id = 3;
CALL late('bob', 2, $$UPDATE moves SET region = 'eu', a = 'newer', b = 'bob' WHERE id = 3$$);
CALL late('cleo', 1, $$UPDATE moves SET region = 'eu', b = 'cleo' WHERE id = 3$$, 1);
SELECT tableoid::regclass, * FROM moves ORDER BY id;
SELECT id, s.v, base, type, who, patch, payload, flags FROM generate_series(1, 3) id, stream('moves', id::text) s;
SELECT * FROM open('moves');
SELECT * FROM witness.differences('moves');
-- both want to move it: where the later one wants it
UPDATE moves SET region = 'eu' WHERE id = 3;
CALL late('dan', 3, $$UPDATE moves SET region = 'us', b = 'dan' WHERE id = 3$$, 2);
SELECT tableoid::regclass, * FROM moves WHERE id = 3;
SELECT * FROM witness.differences('moves');

-- NAME: generated columns follow the merge; NULLs are values
CREATE TABLE gen (id int PRIMARY KEY, a text, b text, both_ text GENERATED ALWAYS AS (a || b) STORED, n int GENERATED BY DEFAULT AS IDENTITY);
SELECT esync_enable('gen');
INSERT INTO gen VALUES (1, 'a', 'b');
UPDATE gen SET a = NULL;
CALL late('ann', 1, $$UPDATE gen SET a = 'a', b = 'ann'$$);
SELECT * FROM gen;
UPDATE gen SET a = 'A';
CALL late('bob', 2, $$UPDATE gen SET a = NULL, b = 'bob', n = NULL WHERE false$$);
CALL late('bob', 2, $$UPDATE gen SET a = NULL, b = NULL$$);
SELECT * FROM gen;
CALL late('cleo', 1, $$UPDATE gen SET a = NULL, b = 'b'$$);
SELECT * FROM gen;
SELECT * FROM stream('gen', '1', 3);
SELECT * FROM open('gen');
SELECT * FROM witness.differences('gen');

-- NAME: tombstones: set or cleared under a stale base
CREATE TABLE soft (id int PRIMARY KEY, a text, gone timestamptz);
SELECT esync_enable('soft', tombstone => 'gone');
INSERT INTO soft SELECT i, 'a', NULL FROM generate_series(1, 6) i;
UPDATE soft SET a = 'newer';
-- deleted by who had not seen an edit: deleted, and in conflict
CALL late('ann', 1, $$UPDATE soft SET a = 'a', gone = '2025-11-20Z' WHERE id = 1$$);
-- edited by who had not seen the delete: stays deleted, and in conflict
UPDATE soft SET gone = '2025-11-19Z' WHERE id = 2;
CALL late('bob', 2, $$UPDATE soft SET a = 'bob', gone = NULL WHERE id = 2$$);
-- edited by who had seen it: no conflict, and no life
UPDATE soft SET gone = '2025-11-19Z' WHERE id = 3;
CALL late('cleo', 3, $$UPDATE soft SET a = 'cleo' WHERE id = 3$$);
UPDATE soft SET a = 'newest' WHERE id = 3;
CALL late('cleo', 4, $$UPDATE soft SET gone = NULL WHERE id = 3$$);
-- restored by who had not seen an edit under the tombstone
UPDATE soft SET gone = '2025-11-19Z' WHERE id = 4;
UPDATE soft SET a = 'under' WHERE id = 4;
CALL late('dan', 3, $$UPDATE soft SET a = 'newer', gone = NULL WHERE id = 4$$);
-- deleted twice, at two times
UPDATE soft SET gone = '2025-11-19Z' WHERE id = 5;
CALL late('eve', 2, $$UPDATE soft SET gone = '2025-11-18Z' WHERE id = 5$$);
-- restored, and deleted by who had not seen that
UPDATE soft SET gone = '2025-11-19Z' WHERE id = 6;
UPDATE soft SET gone = NULL WHERE id = 6;
CALL late('fay', 3, $$UPDATE soft SET gone = '2025-11-20Z' WHERE id = 6$$);
SELECT * FROM soft ORDER BY id;
SELECT id, s.v, base, type, who, patch, flags FROM generate_series(1, 6) id, stream('soft', id::text, 3) s;
SELECT * FROM open('soft');
SELECT * FROM witness.differences('soft');

-- NAME: DELETE under a stale base
CREATE TABLE hard (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('hard');
INSERT INTO hard SELECT i, 'a', 'b' FROM generate_series(1, 4) i;
CALL shift('hard', '1 year');
UPDATE hard SET a = 'newer' WHERE id <> 2;
CALL late('ann', 1, $$DELETE FROM hard WHERE id = 1$$, 5);
CALL late('ann', 1, $$DELETE FROM hard WHERE id = 2$$);
CALL late('ann', 2, $$DELETE FROM hard WHERE id = 3$$);
CALL late('ann', 1, $$DELETE FROM hard WHERE id = 99$$);
BEGIN; SELECT esync_context('bob', branch_timestamp => '2025-11-01Z'); DELETE FROM hard WHERE id = 4 RETURNING *; COMMIT;
SELECT id, s.v, base, type, who, patch, payload, flags FROM generate_series(1, 4) id, stream('hard', id::text, 2) s;
SELECT * FROM open('hard');
SELECT * FROM witness.differences('hard');
-- the row comes again: who inserts it has seen all
INSERT INTO hard VALUES (1, 'again', 'b');
SELECT * FROM open('hard');
SELECT * FROM witness.differences('hard');

-- NAME: masked, excluded, quoted, composite; columns of types without equality
CREATE TYPE pair AS (x int, y text);
CREATE TABLE "Odd one" ("Key a" int, "k/b" text, "vSet ""P""" float8, "~0/1" json, secret text, noise text, arr numeric[], pt point, c pair, by bytea, ts timestamp, PRIMARY KEY ("Key a", "k/b"));
SELECT esync_enable('"Odd one"', mask => '{secret}', exclude => '{noise}');
INSERT INTO "Odd one" VALUES (1, 'x', 0.1, '{"a": 1, "b": 2}', 's', 'n', '{1.0, NULL}', '(1,2)', '(1,x)', '\x00ff', '2025-01-01 12:00');
CALL shift('"Odd one"', '1 year');
UPDATE "Odd one" SET "~0/1" = '[1]', secret = 'newer', noise = 'newer', arr = '{2}', pt = '(3,4)', c = '(2,y)';
-- the same values in other words are no edit; a masked column is told as changed where it is
CALL late('ann', 1, $$UPDATE "Odd one" SET "vSet ""P""" = 1e-1, "~0/1" = '{"b": 2.0,   "a": 1}', noise = 'as sent', arr = '{1, NULL}', pt = '(1,2)', c = '(1,x)', by = '\x00ff', ts = '2025-01-01 12:00:00'$$);
SELECT * FROM "Odd one";
SELECT esync_version('"Odd one"', ROW(1, 'x'));
CALL late('ann', 1, $$UPDATE "Odd one" SET "vSet ""P""" = 'NaN', "~0/1" = '{"b": 3, "a": 1}', arr[2] = 7, pt = '(1,2.5)', c.y = 'z', by = '\x01', ts = 'infinity'$$);
SELECT * FROM "Odd one";
SELECT v, base, patch, payload FROM stream('"Odd one"', '[1, "x"]', 3);
SELECT * FROM open('"Odd one"');
SELECT * FROM witness.differences('"Odd one"');
-- masked: the value that the row has is no edit, another one is
CALL late('bob', 1, $$UPDATE "Odd one" SET secret = 'newer', by = '\x02'$$);
CALL late('bob', 1, $$UPDATE "Odd one" SET secret = 'bob'$$);
CALL late('bob', 1, $$UPDATE "Odd one" SET secret = 'bob earlier'$$, 3);
-- nobody can tell that this is only what its author had seen at version 1
CALL late('cleo', 1, $$UPDATE "Odd one" SET secret = 's', by = '\x00ff'$$);
SELECT secret, by FROM "Odd one";
SELECT v, base, patch, payload->'secret' AS secret FROM stream('"Odd one"', '[1, "x"]', 4);
SELECT * FROM open('"Odd one"');
SELECT * FROM witness.differences('"Odd one"');

-- NAME: columns renamed, dropped and added since the base
CREATE TABLE ddl (id int PRIMARY KEY, a text, b text, c text, d text);
SELECT esync_enable('ddl');
INSERT INTO ddl VALUES (1, 'a', 'b', 'c', 'd'), (2, 'a', 'b', 'c', 'd'), (3, 'a', 'b', 'c', 'd');
ALTER TABLE ddl RENAME a TO x;
ALTER TABLE ddl RENAME b TO a;
ALTER TABLE ddl RENAME x TO b;
UPDATE ddl SET a = 'newer, was b' WHERE id = 1;
-- the statement's names are those of now
CALL late('ann', 1, $$UPDATE ddl SET a = 'b', b = 'ann, was a' WHERE id = 1$$);
SELECT * FROM ddl WHERE id = 1;
SELECT v, base, patch, payload FROM stream('ddl', '1', 2);
SELECT * FROM open('ddl');
SELECT * FROM esync_verify('ddl');
ALTER TABLE ddl DROP c;
ALTER TABLE ddl ADD e text DEFAULT 'e', ADD f int;
UPDATE ddl SET e = 'newer', f = 1 WHERE id = 2;
CALL late('bob', 1, $$UPDATE ddl SET b = 'a', a = 'b', d = 'bob', e = 'e', f = NULL WHERE id = 2$$);
SELECT * FROM ddl WHERE id = 2;
SELECT v, base, patch, payload FROM stream('ddl', '2', 2);
SELECT * FROM open('ddl');
ALTER TABLE ddl ADD g text;
UPDATE ddl SET g = 'g' WHERE id = 3;
CALL late('cleo', 1, $$UPDATE ddl SET g = 'cleo' WHERE id = 3$$);
SELECT v, base, patch FROM stream('ddl', '3', 2);
SELECT * FROM open('ddl');
SELECT * FROM esync_verify('ddl');
-- another type
CREATE TABLE retyped (id int PRIMARY KEY, n int, s text);
SELECT esync_enable('retyped');
INSERT INTO retyped VALUES (1, 7, 's');
ALTER TABLE retyped ALTER n TYPE text USING n::text;
UPDATE retyped SET s = 'newer';
CALL late('ann', 1, $$UPDATE retyped SET n = '7', s = 's'$$);
CALL late('ann', 1, $$UPDATE retyped SET n = '8', s = 's'$$);
SELECT v, base, type, patch, payload FROM stream('retyped');

-- NAME: groups and jsonb columns that are merged path by path
CREATE TABLE grouped (id int PRIMARY KEY, low int, high int, doc jsonb, note text);
SELECT esync_enable('grouped', groups => '{"range": ["low", "high"]}', json_merge => '{doc}');
INSERT INTO grouped VALUES (1, 1, 10, '{"a": 1, "b": {"c": 1, "d": 1}}', 'n'), (2, 1, 10, '{"a": 1}', 'n');
CALL shift('grouped', '1 year');
CALL late('ann', 1, $$UPDATE grouped SET high = 20, doc = '{"a": 1, "b": {"c": 2, "d": 1}}' WHERE id = 1$$, 10);
-- the group is one thing: whoever assigns one column of it names both, as they were to him
CALL late('bob', 1, $$UPDATE grouped SET low = 5, doc = '{"a": 2, "b": {"c": 1, "d": 1}}' WHERE id = 1$$, 20);
SELECT * FROM grouped WHERE id = 1;
CALL late('cleo', 1, $$UPDATE grouped SET low = 7, high = 10, doc = '{"b": {"c": 3, "d": 1}}', note = 'cleo' WHERE id = 1$$, 5);
SELECT * FROM grouped WHERE id = 1;
SELECT v, base, who, patch, payload, flags FROM stream('grouped', '1', 2);
SELECT * FROM open('grouped');
SELECT * FROM esync_verify('grouped');
-- who has seen all settles it
CALL late('dan', 4, $$UPDATE grouped SET high = 30, doc = jsonb_set(doc, '{b,c}', '9') WHERE id = 1$$);
SELECT v, base, who, patch, payload, flags FROM stream('grouped', '1', 5);
SELECT * FROM open('grouped');
-- the whole document against a path in it
CALL late('ann', 1, $$UPDATE grouped SET doc = '{"a": 2}' WHERE id = 2$$, 10);
CALL late('bob', 1, $$UPDATE grouped SET doc = NULL WHERE id = 2$$, 20);
CALL late('cleo', 1, $$UPDATE grouped SET doc = '{"a": 1, "z": 1}' WHERE id = 2$$, 30);
SELECT v, base, who, patch, payload, flags FROM stream('grouped', '2', 2);
SELECT * FROM open('grouped');
SELECT * FROM esync_verify('grouped');

-- NAME: payload 'changes'
CREATE TABLE changes (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('changes', payload => 'changes');
INSERT INTO changes VALUES (1, 'a', 'b');
UPDATE changes SET a = 'newer';
CALL shift('changes', '1 year');
CALL late('ann', 1, $$UPDATE changes SET a = 'a', b = 'ann'$$);
CALL late('bob', 2, $$UPDATE changes SET a = 'bob', b = 'b'$$, 9);
CALL late('cleo', 1, $$UPDATE changes SET a = 'cleo'$$, 8);
DO $$ BEGIN FOR i IN 1 .. 70 LOOP CALL sm.late('dan', 3, format('UPDATE sm.changes SET a = %L, b = %L', 'a' || i, 'ann'), 20); END LOOP; END $$;
CALL late('eve', 66, $$UPDATE changes SET a = 'eve'$$, 10);
SELECT s.v, s.base, s.who, s.patch, h.payload, s.payload IS NOT NULL AS stored FROM stream('changes') s JOIN esync_history('changes', 1) h ON h.version = s.v WHERE s.v < 7 OR s.v IN (64, 65, 76);
SELECT * FROM changes;
SELECT id, field, kind, shown, length(contenders) > 500 AS many FROM open('changes');
SELECT * FROM witness.differences('changes');

-- NAME: sql_merge => false: nothing is merged, what was told is kept
CREATE TABLE off (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('off', sql_merge => false);
INSERT INTO off VALUES (1, 'a', 'b'), (2, 'a', 'b');
UPDATE off SET a = 'newer';
CALL late('ann', 1, $$UPDATE off SET a = 'a', b = 'ann'$$);
BEGIN; SELECT esync_context('bob', branch_timestamp => '2025-01-01Z'); UPDATE off SET a = 'bob' WHERE id = 2; COMMIT;
CALL late('ann', 1, $$DELETE FROM off WHERE id = 2$$);
SELECT id, s.v, base, who, patch, meta FROM generate_series(1, 2) id, stream('off', id::text, 2) s;
SELECT * FROM witness.differences('off');
-- switched on, with the stream that is there
SELECT esync_enable('off', sql_merge => true);
CALL late('cleo', 2, $$UPDATE off SET a = 'newer', b = 'cleo' WHERE id = 1$$);
SELECT v, base, who, patch FROM stream('off', '1', 4);
SELECT * FROM witness.differences('off');

-- NAME: while nobody records nothing is merged; what went by is told first
SET esync.enabled = off;
CALL late('ann', 1, $$UPDATE off SET a = 'unseen' WHERE id = 1$$);
RESET esync.enabled;
CALL late('dan', 4, $$UPDATE off SET a = 'newer', b = 'dan' WHERE id = 1$$);
SELECT v, base, type, who, patch, payload, flags FROM stream('off', '1', 4);
-- a row that was there before its table was tracked: the ground was seen by everyone
ALTER TABLE plain ADD a text DEFAULT 'a';
SELECT esync_enable('plain');
CALL late('ann', 0, $$UPDATE plain SET a = 'ann' WHERE id = 1$$, 3);
CALL late('bob', 0, $$UPDATE plain SET a = 'bob' WHERE id = 1$$, 2);
SELECT v, base, type, who, patch, payload, flags FROM stream('plain', '1');
SELECT * FROM open('plain');
SELECT * FROM witness.differences('plain', '{}', '{}', true);

-- NAME: every isolation level
INSERT INTO item VALUES (5, 'a', 'b');
UPDATE item SET a = 'newer' WHERE id = 5;
BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT esync_context('ann', base_version => 1); UPDATE item SET a = 'a', b = 'ann' WHERE id = 5 RETURNING *; UPDATE item SET a = 'a' WHERE id = 5 RETURNING *; COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT esync_context('bob', base_version => 1); UPDATE item SET a = 'a', b = 'bob' WHERE id = 5 RETURNING *; COMMIT;
SELECT v, base, who, patch FROM stream('item', '5', 3);
SELECT * FROM witness.differences('item');

-- NAME: roles: the right to update the columns assigned, and no more; policies see the merged row
CREATE ROLE regress_sqlmerge;
GRANT USAGE ON SCHEMA sm TO regress_sqlmerge;
CREATE TABLE own_rows (id int PRIMARY KEY, owner text, a text, b text, hidden text);
SELECT esync_enable('own_rows');
INSERT INTO own_rows VALUES (1, 'regress_sqlmerge', 'a', 'b', 'h'), (2, 'regress_sqlmerge', 'a', 'b', 'h');
CALL shift('own_rows', '1 year');
UPDATE own_rows SET a = 'newer', hidden = 'newer';
GRANT SELECT (id, owner, a, b), UPDATE (owner, a, b) ON own_rows TO regress_sqlmerge;
ALTER TABLE own_rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON own_rows USING (owner = current_user);
SET ROLE regress_sqlmerge;
BEGIN; SELECT public.esync_context('web user', base_version => 1); UPDATE sm.own_rows SET a = 'a', b = 'web' WHERE id = 1 RETURNING id, a, b; COMMIT;
BEGIN; SELECT public.esync_context('web user', base_version => 1); UPDATE sm.own_rows SET hidden = 'x' WHERE id = 1; ROLLBACK;
BEGIN; SELECT public.esync_context('web user', base_version => 1); UPDATE sm.own_rows SET owner = 'other' WHERE id = 1; ROLLBACK;
BEGIN; SELECT public.esync_context('web user', base_version => 1, submit_timestamp => now() - interval '1 day'); UPDATE sm.own_rows SET a = 'lost' WHERE id = 2; COMMIT;
RESET ROLE;
SELECT id, s.v, base, type, who, patch, payload, flags FROM generate_series(1, 2) id, stream('own_rows', id::text, 2) s;
SELECT DISTINCT db_role FROM witness.events('own_rows') WHERE user_id = 'web user';
SELECT * FROM open('own_rows');
SELECT * FROM witness.differences('own_rows');
-- constraints hold for the merged row
CREATE TABLE checked (id int PRIMARY KEY, low int, high int, CHECK (low < high), UNIQUE (low));
SELECT esync_enable('checked');
INSERT INTO checked VALUES (1, 1, 10), (2, 2, 3);
CALL shift('checked', '1 year');
UPDATE checked SET high = 5 WHERE id = 1;
SELECT code, message FROM refused_under(1, $$UPDATE sm.checked SET low = 7, high = 10 WHERE id = 1$$);
SELECT code, message FROM refused_under(1, $$UPDATE sm.checked SET low = 2 WHERE id = 1$$);
SELECT esync_version('checked', 1);

-- NAME: the base from request.headers, as PostgREST sets it
BEGIN;
SELECT set_config('request.headers', '{"x-base-version": "1", "x-device-id": "phone", "x-submit-timestamp": "2025-11-03T00:00:00Z"}', true), set_config('request.jwt.claims', '{"sub": "jwt"}', true);
UPDATE checked SET low = 3, high = 10 WHERE id = 1 RETURNING *;
COMMIT;
SELECT v, base, type, who, device, patch FROM stream('checked', '1', 2);
SELECT * FROM witness.differences('checked');

-- NAME: triggers of others that sort before the merge, or take the row for unchanged
CREATE TABLE early (id int PRIMARY KEY, a text, b text, n int DEFAULT 0);
CREATE TRIGGER " early" BEFORE UPDATE ON early FOR EACH ROW EXECUTE FUNCTION count_up();
SELECT esync_enable('early');
INSERT INTO early VALUES (1, 'a', 'b', 0);
UPDATE early SET a = 'newer';
CALL late('ann', 1, $$UPDATE early SET a = 'a', b = 'ann'$$);
SELECT v, base, who, patch, payload, flags FROM stream('early');
SELECT * FROM early;
SELECT * FROM witness.differences('early');
CREATE TABLE lazy (id int PRIMARY KEY, a text, gone timestamptz);
CREATE TRIGGER lazy BEFORE UPDATE ON lazy FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
SELECT esync_enable('lazy', tombstone => 'gone');
INSERT INTO lazy VALUES (1, 'a');
CALL shift('lazy', '1 year');
UPDATE lazy SET a = 'newer';
CALL late('ann', 1, $$UPDATE lazy SET a = 'lost'$$, 3);
SELECT v, base, who, patch, payload, flags FROM stream('lazy');
-- a trigger that deletes by way of the tombstone
CREATE FUNCTION bury() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.a = 'dead' THEN NEW.gone := '2025-12-01Z'; END IF; RETURN NEW; END $$;
CREATE TRIGGER bury BEFORE UPDATE ON lazy FOR EACH ROW EXECUTE FUNCTION bury();
CALL late('bob', 1, $$UPDATE lazy SET a = 'dead'$$);
SELECT v, base, type, who, patch, flags FROM stream('lazy', '1', 3);
SELECT * FROM witness.differences('lazy');

DO $$ BEGIN PERFORM public.esync_disable(relation, true) FROM esync.tracked_table WHERE schema_name = 'sm'; END $$;
DROP SCHEMA sm, witness CASCADE;
DROP ROLE regress_sqlmerge;
