-- One event a change, however the row was changed.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET TIME ZONE 'UTC';
SET client_min_messages TO warning;
CREATE SCHEMA rows;
SET search_path = rows, public;

CREATE TABLE t (id int PRIMARY KEY, a text, b numeric);
SELECT esync_enable('t');

-- NAME: insert, update, delete: one event each
INSERT INTO t VALUES (1, 'one', 1.0), (2, 'two', 2.0), (3, NULL, NULL);
UPDATE t SET a = 'uno' WHERE id = 1;
UPDATE t SET a = 'all', b = b + 1 WHERE id < 3;
DELETE FROM t WHERE id = 2;
SELECT * FROM witness.stream('t');
SELECT * FROM witness.differences('t');

-- NAME: a no-op UPDATE writes nothing
SELECT count(*) AS before FROM witness.events('t') \gset
UPDATE t SET a = a, b = b;
UPDATE t SET a = 'all' WHERE id = 1;
UPDATE t SET id = id;
SELECT count(*) - :before AS events FROM witness.events('t');

-- NAME: the same key again after a delete goes on counting versions
INSERT INTO t VALUES (2, 'back', NULL);
SELECT version, event_type, payload FROM witness.stream('t') WHERE aggregate_id = '2';
SELECT * FROM witness.differences('t');

-- NAME: COPY
COPY t FROM stdin;
10	ten	10.50
11	\N	NaN
\.
SELECT version, event_type, payload FROM witness.stream('t') WHERE aggregate_id IN ('10', '11');

-- NAME: ON CONFLICT: the branch that was taken
INSERT INTO t VALUES (10, 'x', 0), (12, 'twelve', 12) ON CONFLICT (id) DO UPDATE SET a = excluded.a || '!';
INSERT INTO t VALUES (10, 'never', 0) ON CONFLICT DO NOTHING;
SELECT aggregate_id, version, event_type, patch FROM witness.stream('t') WHERE aggregate_id IN ('10', '12');

-- NAME: MERGE: insert, update and delete in one statement
MERGE INTO t USING (VALUES (10, 'merged'), (11, 'gone'), (13, 'new')) AS s (id, a) ON t.id = s.id
WHEN MATCHED AND s.a = 'gone' THEN DELETE
WHEN MATCHED THEN UPDATE SET a = s.a
WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.a, NULL);
SELECT aggregate_id, version, event_type, patch FROM witness.stream('t') WHERE aggregate_id IN ('10', '11', '13') AND version > 1
	OR aggregate_id = '13' ORDER BY aggregate_id, version;
SELECT * FROM witness.differences('t');

-- NAME: several updates of one row in one transaction are as many events
BEGIN;
UPDATE t SET a = 'first' WHERE id = 12;
UPDATE t SET a = 'second' WHERE id = 12;
UPDATE t SET a = 'first' WHERE id = 12;
INSERT INTO t VALUES (14, 'short', 1);
UPDATE t SET b = 2 WHERE id = 14;
DELETE FROM t WHERE id = 14;
COMMIT;
SELECT version, event_type, patch FROM witness.stream('t') WHERE aggregate_id IN ('12', '14');
SELECT count(DISTINCT xid) AS transactions, count(DISTINCT effective_timestamp) AS moments
FROM witness.events('t') WHERE aggregate_id = '12' AND version > 1;

-- NAME: SAVEPOINT rolled back: no event, no gap
BEGIN;
UPDATE t SET a = 'kept 1' WHERE id = 12;
SAVEPOINT s;
UPDATE t SET a = 'undone' WHERE id = 12;
INSERT INTO t VALUES (15, 'undone', NULL);
ROLLBACK TO s;
UPDATE t SET a = 'kept 2' WHERE id = 12;
SAVEPOINT s2;
UPDATE t SET a = 'kept 3' WHERE id = 12;
RELEASE s2;
DO $$
BEGIN
	UPDATE rows.t SET a = 'undone too' WHERE id = 12;
	PERFORM 1 / 0;
EXCEPTION WHEN division_by_zero THEN NULL;
END $$;
COMMIT;
INSERT INTO t VALUES (15, 'once', NULL);
SELECT aggregate_id, version, event_type, patch FROM witness.stream('t') WHERE aggregate_id = '12' AND version > 4 OR aggregate_id = '15';
-- the xid is that of the transaction, not of the savepoint
SELECT count(DISTINCT xid) FROM witness.events('t') WHERE aggregate_id = '12' AND version BETWEEN 5 AND 7;
SELECT * FROM witness.differences('t');

-- NAME: rolled back transaction: nothing stays, the next version follows
BEGIN;
UPDATE t SET a = 'nothing';
TRUNCATE t;
ROLLBACK;
UPDATE t SET a = 'something' WHERE id = 12;
SELECT * FROM witness.differences('t');

-- NAME: pk change is a Deleted and a Created that name each other
UPDATE t SET id = 21, a = 'moved' WHERE id = 1;
SELECT aggregate_id, version, event_type, patch, payload, flags, meta FROM witness.events('t')
WHERE aggregate_id IN ('1', '21') ORDER BY event_id DESC LIMIT 2;
UPDATE t SET id = 1 WHERE id = 21;
SELECT version, event_type, payload->>'a' AS a FROM esync_history('t', 1);
SELECT * FROM witness.differences('t');

-- NAME: keys shifted in one statement
CREATE TABLE s (id int PRIMARY KEY, a text);
SELECT esync_enable('s');
INSERT INTO s SELECT i, 'row ' || i FROM generate_series(4, 1, -1) i;
UPDATE s SET id = id + 1;
SELECT aggregate_id, version, event_type, payload->>'a' AS a, flags,
	coalesce(meta->'moved_to', meta->'moved_from') AS other FROM witness.events('s') ORDER BY aggregate_id::int, version;
SELECT * FROM witness.differences('s');
-- the history of the row that is now 5 begins under 4
SELECT version, event_type, payload FROM esync_history('s', 5);

-- NAME: keys swapped by way of a third key
BEGIN;
UPDATE s SET id = -2 WHERE id = 2;
UPDATE s SET id = 2 WHERE id = 3;
UPDATE s SET id = 3 WHERE id = -2;
COMMIT;
SELECT * FROM s ORDER BY id;
SELECT * FROM witness.differences('s');

-- NAME: keys swapped in one statement, where the owner vouches for uniqueness
CREATE TABLE w (id int NOT NULL, part int NOT NULL, a text) PARTITION BY LIST (part);
CREATE TABLE w1 PARTITION OF w FOR VALUES IN (1);
SELECT esync_enable('w', key => '{id}');
INSERT INTO w VALUES (1, 1, 'one'), (2, 1, 'two'), (3, 1, 'three');
UPDATE w SET id = 3 - id WHERE id < 3;
SELECT * FROM w ORDER BY id;
SELECT aggregate_id, version, event_type, payload->>'a' AS a, flags,
	coalesce(meta->'moved_to', meta->'moved_from') AS other FROM witness.events('w') ORDER BY aggregate_id, version;
SELECT * FROM witness.differences('w');
-- a ring, each row taking the key of one whose trigger has yet to run
UPDATE w SET id = id % 3 + 1;
SELECT * FROM w ORDER BY id;
SELECT * FROM witness.differences('w');

-- NAME: a row deleted and inserted again under its key in one statement
WITH gone AS (DELETE FROM s WHERE id = 4 RETURNING *) INSERT INTO s SELECT id, a || ' again' FROM gone;
SELECT version, event_type, payload FROM witness.stream('s') WHERE aggregate_id = '4' AND version > 3;
SELECT * FROM witness.differences('s');

-- NAME: FK cascades: the event of the parent comes before those of its children
CREATE TABLE parent (id int PRIMARY KEY, a text);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, other int REFERENCES parent ON DELETE SET NULL ON UPDATE CASCADE);
CREATE TABLE grandchild (id int PRIMARY KEY, child int REFERENCES child ON DELETE CASCADE);
SELECT esync_enable('parent'), esync_enable('child'), esync_enable('grandchild');
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1, 2), (2, 2, 1);
INSERT INTO grandchild VALUES (1, 1);
UPDATE parent SET id = 10 WHERE id = 1;
DELETE FROM parent WHERE id = 10;
SELECT t.table_name, e.aggregate_id, e.version, e.event_type, e.patch
FROM esync.event e JOIN esync.tracked_table t USING (table_id)
WHERE t.schema_name = 'rows' AND t.table_name IN ('parent', 'child', 'grandchild') AND (e.version > 1 OR e.aggregate_id = '10')
ORDER BY e.event_id;
SELECT * FROM child;
SELECT * FROM witness.differences('parent');
SELECT * FROM witness.differences('child');
SELECT * FROM witness.differences('grandchild');

-- NAME: a BEFORE trigger's changes belong to the event
CREATE TABLE touched (id int PRIMARY KEY, a text, n int DEFAULT 0, total int DEFAULT 0);
CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.n := old.n + 1; RETURN new; END $$;
CREATE TRIGGER before BEFORE UPDATE ON touched FOR EACH ROW EXECUTE FUNCTION before();
SELECT esync_enable('touched');
INSERT INTO touched VALUES (1, 'a'), (2, 'b'), (3, 'c');
UPDATE touched SET a = 'x' WHERE id = 1;
SELECT version, event_type, patch FROM witness.stream('touched') WHERE aggregate_id = '1';

-- NAME: a trigger that updates the row again: in the order in which it happened
DROP TRIGGER before ON touched;
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() < 3 THEN EXECUTE format('UPDATE %I SET n = n + 1 WHERE id = $1.id', tg_table_name) USING new; END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER zzz AFTER INSERT OR UPDATE ON touched FOR EACH ROW EXECUTE FUNCTION again();
INSERT INTO touched VALUES (5, 'e');
UPDATE touched SET a = 'z' WHERE id = 1;
SELECT aggregate_id, version, event_type, patch FROM witness.stream('touched') WHERE aggregate_id = '1' AND version > 2 OR aggregate_id = '5';
SELECT * FROM witness.differences('touched');
DROP TRIGGER zzz ON touched;
-- also where that trigger sorts before esync's own
CREATE TABLE early (id int PRIMARY KEY, a text, n int DEFAULT 0);
CREATE TRIGGER " first" AFTER INSERT OR UPDATE ON early FOR EACH ROW EXECUTE FUNCTION again();
SELECT esync_enable('early');
INSERT INTO early VALUES (4, 'd');
SELECT * FROM early;
SELECT * FROM witness.differences('early');
UPDATE early SET a = 'y';
SELECT * FROM early;
SELECT * FROM witness.differences('early');
SELECT version, event_type, patch, payload FROM witness.stream('early');

-- NAME: a trigger that changes another row of the same statement before that row's own trigger ran
CREATE FUNCTION others() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() = 1 THEN UPDATE touched SET total = total + 1 WHERE id <> new.id; END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER others AFTER INSERT OR UPDATE ON touched FOR EACH ROW EXECUTE FUNCTION others();
UPDATE touched SET a = a || '+' WHERE id <= 3;
INSERT INTO touched VALUES (6, 'f'), (7, 'g');
SELECT * FROM touched ORDER BY id;
SELECT * FROM witness.differences('touched');
SELECT version, event_type, patch FROM witness.stream('touched') WHERE aggregate_id = '3';
SELECT version, event_type, payload FROM witness.stream('touched') WHERE aggregate_id = '7';
-- the same with a savepoint inside, and one that is rolled back
CREATE OR REPLACE FUNCTION others() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() > 1 THEN RETURN NULL; END IF;
	BEGIN
		UPDATE touched SET total = total + 100 WHERE id <> new.id;
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN NULL;
	END;
	BEGIN
		UPDATE touched SET total = total + 10 WHERE id = new.id % 3 + 1;
	EXCEPTION WHEN division_by_zero THEN NULL;
	END;
	RETURN NULL;
END $$;
UPDATE touched SET a = a || '-' WHERE id <= 3;
SELECT * FROM touched ORDER BY id;
SELECT * FROM witness.differences('touched');

-- NAME: a trigger that deletes rows of the same statement
CREATE OR REPLACE FUNCTION others() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM touched WHERE id = new.id + 1;
	RETURN NULL;
END $$;
UPDATE touched SET a = a || '*' WHERE id <= 3;
INSERT INTO touched VALUES (8, 'h'), (9, 'i');
SELECT * FROM touched ORDER BY id;
SELECT * FROM witness.differences('touched');
SELECT version, event_type, patch FROM witness.stream('touched') WHERE aggregate_id = '9';

-- NAME: a BEFORE trigger that swallows the row: no event
CREATE TABLE swallow (id int PRIMARY KEY, a text);
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
SELECT esync_enable('swallow');
INSERT INTO swallow VALUES (1, 'a');
CREATE TRIGGER swallow BEFORE INSERT OR UPDATE OR DELETE ON swallow FOR EACH ROW EXECUTE FUNCTION swallow();
INSERT INTO swallow VALUES (2, 'b');
UPDATE swallow SET a = 'x';
DELETE FROM swallow;
SELECT * FROM witness.stream('swallow');

-- NAME: a BEFORE DELETE trigger that returns NULL keeps a child from a cascade: it is not told as deleted
CREATE TABLE p2 (id int PRIMARY KEY);
CREATE TABLE c2 (id int PRIMARY KEY, p int REFERENCES p2 ON DELETE CASCADE);
CREATE TRIGGER swallow BEFORE DELETE ON c2 FOR EACH ROW EXECUTE FUNCTION swallow();
SELECT esync_enable('p2'), esync_enable('c2');
INSERT INTO p2 VALUES (1);
INSERT INTO c2 VALUES (1, 1);
DELETE FROM p2;
SELECT event_type FROM witness.stream('p2');
SELECT event_type FROM witness.stream('c2');
SELECT * FROM witness.differences('c2');

-- NAME: a deferred foreign key that fails at COMMIT leaves no event
CREATE TABLE c3 (id int PRIMARY KEY, p int REFERENCES p2 DEFERRABLE INITIALLY DEFERRED);
SELECT esync_enable('c3');
\set VERBOSITY sqlstate
BEGIN;
INSERT INTO c3 VALUES (1, 99);
SELECT count(*) FROM witness.events('c3');
COMMIT;
\set VERBOSITY default
SELECT count(*) FROM witness.events('c3');
BEGIN;
INSERT INTO c3 VALUES (1, 99);
INSERT INTO p2 VALUES (99);
COMMIT;
SELECT version, event_type FROM witness.stream('c3');

-- NAME: TRUNCATE writes a Deleted event for every row, also by CASCADE
TRUNCATE parent CASCADE;
INSERT INTO parent VALUES (3, 'c');
INSERT INTO child VALUES (3, 3, NULL);
TRUNCATE parent CASCADE;
SELECT t.table_name, e.aggregate_id, e.version, e.event_type, e.payload
FROM esync.event e JOIN esync.tracked_table t USING (table_id)
WHERE t.schema_name = 'rows' AND t.table_name IN ('parent', 'child') AND e.aggregate_id = '3' ORDER BY t.table_name, e.event_id;
SELECT * FROM witness.differences('parent');
SELECT * FROM witness.differences('child');

-- NAME: tombstone: setting it is Deleted, clearing it Restored
CREATE TABLE soft (id int PRIMARY KEY, a text, gone timestamptz);
SELECT esync_enable('soft', tombstone => 'gone');
INSERT INTO soft VALUES (1, 'a'), (2, 'b'), (3, 'born dead');
UPDATE soft SET gone = '2025-01-01 00:00+00', a = 'last words' WHERE id = 1;
UPDATE soft SET a = 'from beyond' WHERE id = 1;
UPDATE soft SET gone = '2025-01-02 00:00+00' WHERE id = 1;
UPDATE soft SET gone = NULL WHERE id = 1;
DELETE FROM soft WHERE id = 1;
INSERT INTO soft VALUES (4, 'd', '2025-01-01 00:00+00');
SELECT * FROM witness.stream('soft') WHERE aggregate_id IN ('1', '4');
SELECT * FROM witness.differences('soft');

-- NAME: last_modified ascends strictly, is no edit, and stands still in a no-op
CREATE TABLE lm (id int PRIMARY KEY, a text, changed timestamptz, changed2 timestamptz);
SELECT esync_enable('lm', last_modified => '{changed,changed2}');
BEGIN;
INSERT INTO lm VALUES (1, 'a', '1999-01-01', '2999-01-01');
SELECT changed AS c0, changed > now() - interval '1 minute' AND changed = changed2 AS stamped FROM lm \gset
UPDATE lm SET a = 'b';
SELECT changed AS c1 FROM lm \gset
UPDATE lm SET a = 'b', changed = '1999-01-01';
SELECT changed AS c2 FROM lm \gset
UPDATE lm SET changed2 = '1999-01-01';
SELECT changed AS c3 FROM lm \gset
UPDATE lm SET a = 'c';
SELECT changed AS c4 FROM lm \gset
COMMIT;
SELECT :'stamped' AS stamped, :'c1'::timestamptz > :'c0' AS "after insert", :'c2' = :'c1' AS "no-op", :'c3' = :'c1' AS "only itself",
	:'c4'::timestamptz > :'c3' AS "after update";
-- a value ahead of the clock (a restored dump, say) is passed all the same
ALTER TABLE lm DISABLE TRIGGER USER;
UPDATE lm SET changed = '2999-01-01';
ALTER TABLE lm ENABLE TRIGGER USER;
UPDATE lm SET a = 'd';
SELECT changed, changed2 FROM lm;
SELECT version, event_type, patch, payload - 'changed' - 'changed2' AS payload FROM witness.stream('lm');
-- a commit is never before the stamp that it left
SELECT count(*) FROM witness.events('lm') WHERE (payload->>'changed')::timestamptz > commit_timestamp;
SELECT * FROM witness.differences('lm');

-- NAME: tenant is stored with each event, as it is after it
CREATE TABLE ten (id int PRIMARY KEY, tenant int, a text);
SELECT esync_enable('ten', tenant => 'tenant');
INSERT INTO ten VALUES (1, 7, 'a'), (2, NULL, 'b');
UPDATE ten SET tenant = 8 WHERE id = 1;
DELETE FROM ten WHERE id = 1;
SELECT aggregate_id, version, event_type, tenant FROM witness.events('ten');

-- NAME: excluded columns leave no trace, masked ones no value
CREATE TABLE masked (id int PRIMARY KEY, pin text, card jsonb, noise text, open text);
SELECT esync_enable('masked', mask => '{pin,card}', exclude => '{noise}');
INSERT INTO masked VALUES (1, 'SECRET1', '{"n": "SECRET2"}', 'SECRET3', 'x'), (2, NULL, NULL, NULL, NULL);
UPDATE masked SET pin = 'SECRET4', noise = 'SECRET5';
UPDATE masked SET noise = 'SECRET6';
UPDATE masked SET open = 'y', card = '["SECRET7"]' WHERE id = 1;
DELETE FROM masked WHERE id = 1;
SELECT * FROM witness.stream('masked');
SELECT count(*) FROM witness.events('masked') e WHERE e::text ~ 'SECRET|noise';
SELECT count(*) FROM field_history('masked', 1) f WHERE f::text ~ 'SECRET|noise';
SELECT count(*) FROM esync_history('masked', 1) f WHERE f::text ~ 'SECRET|noise';
SELECT count(*) FROM esync_graph('masked', 1) f WHERE f ~ 'SECRET|noise';
SELECT esync_row('masked', '1')::text || esync_row('masked', '2')::text ~ 'SECRET|noise' AS leaks;
SELECT * FROM witness.differences('masked');

-- NAME: payload changes: the patch alone, with the whole row every 64th version
CREATE TABLE lean (id int PRIMARY KEY, a int, b text);
SELECT esync_enable('lean', payload => 'changes');
INSERT INTO lean VALUES (1, 0, 'x');
DO $$ BEGIN FOR i IN 1 .. 140 LOOP UPDATE rows.lean SET a = i; END LOOP; END $$;
DELETE FROM lean;
INSERT INTO lean VALUES (1, 1000, 'y');
SELECT version, event_type, patch, payload FROM witness.stream('lean') WHERE payload IS NOT NULL OR version > 140;
SELECT esync_state('lean', 1);
SELECT version, payload FROM esync_history('lean', 1) WHERE version IN (2, 63, 64, 65, 141, 142, 143);
SELECT * FROM witness.differences('lean');
-- from one to the other and back
SELECT esync_enable('lean', payload => 'full');
UPDATE lean SET a = 1001;
SELECT esync_enable('lean', payload => 'changes');
UPDATE lean SET a = 1002;
SELECT version, payload FROM witness.stream('lean') WHERE version > 143;
SELECT * FROM witness.differences('lean');

-- NAME: composite key
CREATE TABLE pair (a text, b numeric, v text, PRIMARY KEY (b, a));
SELECT esync_enable('pair');
INSERT INTO pair VALUES ('x "y"', 1.50, 'v'), ('[', 2, 'w');
UPDATE pair SET v = 'v2', b = 1.500 WHERE b = 1.5;
UPDATE pair SET a = ']' WHERE b = 2;
SELECT aggregate_id, version, event_type, patch, payload FROM witness.stream('pair');
SELECT * FROM witness.differences('pair');

-- NAME: a statement fails if its event cannot be written
BEGIN;
ALTER TABLE esync.event ADD CONSTRAINT no_events CHECK (aggregate_id <> '666') NOT VALID;
INSERT INTO ten VALUES (665, 0, 'fine');
SELECT code, message ~ 'no_events' AS "by the event" FROM witness.refused($$INSERT INTO ten VALUES (666, 0, 'not recorded')$$);
SELECT * FROM ten WHERE id IN (665, 666);
ROLLBACK;

-- NAME: inheritance children are tables of their own
CREATE TABLE heir () INHERITS (ten);
INSERT INTO heir VALUES (50, 1, 'not tracked');
SELECT count(*) FROM witness.events('ten') WHERE aggregate_id = '50';

SELECT count(esync_disable(relation, true)) > 0 FROM esync.tracked_table WHERE schema_name = 'rows';
DROP SCHEMA rows, witness CASCADE;
