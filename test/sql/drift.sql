-- What happened while nobody was looking, and how it is found.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA drift;
SET search_path = drift, public;
CREATE FUNCTION problems(tbl regclass) RETURNS TABLE (aggregate_id text, problem text, detail jsonb) LANGUAGE sql AS $$
SELECT aggregate_id, problem, detail - 'event_id' FROM esync_verify(tbl) ORDER BY 1, 2
$$;
CREATE TABLE t (id int PRIMARY KEY, a text, b int);

-- NAME: rows that were there at enable: the ground, written before a row's first event
INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2), (3, 'three', 3), (4, 'four', 4);
SELECT esync_enable('t');
SELECT count(*) FROM witness.events('t');
UPDATE t SET a = 'uno' WHERE id = 1;
DELETE FROM t WHERE id = 2;
UPDATE t SET id = 30 WHERE id = 3;
UPDATE t SET a = a WHERE id = 4;
SELECT aggregate_id, version, base_version, event_type, patch, payload, user_id IS NULL AS nobody, effective_timestamp = '-infinity' AS ground, flags FROM witness.events('t');
SELECT * FROM witness.differences('t', unseen => true);
SELECT field, version, event_type, value FROM field_history('t', 1);

-- NAME: esync.enabled off: nothing is recorded, and it is found at the next write
SET esync.enabled = off;
UPDATE t SET a = 'unseen' WHERE id = 1;
INSERT INTO t VALUES (5, 'unseen too', 5);
DELETE FROM t WHERE id = 30;
RESET esync.enabled;
SELECT * FROM problems('t');
UPDATE t SET b = 100;
SELECT aggregate_id, version, event_type, patch, payload, flags FROM witness.stream('t') OFFSET 6;
SELECT * FROM problems('t');
-- the Baseline lies between what was before and what came after
SELECT version, event_type, effective_timestamp > lag(effective_timestamp) OVER (ORDER BY version) AS later, user_id IS NULL AS nobody FROM witness.events('t') WHERE aggregate_id = '1';
SELECT version, value, previous_value, user_id IS NULL AS nobody, status FROM field_history('t', 1, 'a');
-- a key that was deleted unseen, and inserted again
INSERT INTO t VALUES (30, 'again', 30);
SELECT version, event_type, payload, flags FROM witness.stream('t') WHERE aggregate_id = '30';
SELECT * FROM witness.differences('t');

-- NAME: esync.enabled off and on within one transaction
BEGIN;
UPDATE t SET a = 'recorded' WHERE id = 1;
SET LOCAL esync.enabled = off;
UPDATE t SET a = 'not recorded', b = 101 WHERE id = 1;
SET LOCAL esync.enabled = on;
UPDATE t SET b = 102 WHERE id = 1;
COMMIT;
SELECT version, event_type, patch FROM witness.stream('t') WHERE aggregate_id = '1' AND version > 4;
SELECT * FROM witness.differences('t');
BEGIN;
SET LOCAL esync.enabled = off;
INSERT INTO t VALUES (6, 'unseen', 6);
UPDATE t SET a = 'unseen twice' WHERE id = 6;
SET LOCAL esync.enabled = on;
UPDATE t SET a = 'seen' WHERE id = 6;
SET LOCAL esync.enabled = off;
DELETE FROM t WHERE id = 6;
INSERT INTO t VALUES (6, 'other', 6);
SET LOCAL esync.enabled = on;
UPDATE t SET b = 60 WHERE id = 6;
SET LOCAL esync.enabled = off;
DELETE FROM t WHERE id = 6;
SET LOCAL esync.enabled = on;
INSERT INTO t VALUES (6, 'third', 6);
COMMIT;
SELECT version, event_type, patch, payload, flags FROM witness.stream('t') WHERE aggregate_id = '6';
SELECT * FROM witness.differences('t');
-- a key changed unseen: the old one is missing until someone says so, the new one gets its ground
SET esync.enabled = off;
UPDATE t SET id = 60 WHERE id = 6;
RESET esync.enabled;
UPDATE t SET b = 61 WHERE id = 60;
SELECT * FROM problems('t');
SELECT version, event_type, payload FROM witness.stream('t') WHERE aggregate_id = '60';
-- deleted unseen
SET esync.enabled = off;
DELETE FROM t WHERE id = 5;
RESET esync.enabled;
SELECT * FROM problems('t');

-- NAME: session_replication_role = replica: not recorded, and found; ENABLE ALWAYS: recorded
CREATE TABLE r (id int PRIMARY KEY, v text);
SELECT esync_enable('r');
INSERT INTO r VALUES (1, 'a'), (2, 'b');
SET session_replication_role = replica;
UPDATE r SET v = 'applied' WHERE id = 1;
RESET session_replication_role;
SELECT * FROM problems('r');
UPDATE r SET v = 'mine' WHERE id = 1;
SELECT version, event_type, patch FROM witness.stream('r') WHERE aggregate_id = '1';
ALTER TABLE r ENABLE ALWAYS TRIGGER "0_esync_capture";
SET session_replication_role = replica;
UPDATE r SET v = 'applied and recorded' WHERE id = 2;
RESET session_replication_role;
SELECT version, event_type, patch FROM witness.stream('r') WHERE aggregate_id = '2';
SELECT * FROM witness.differences('r');

-- NAME: disable, change, re-enable
CREATE TABLE d (id int PRIMARY KEY, a text, b int, c text);
SELECT esync_enable('d', mask => '{c}');
INSERT INTO d VALUES (1, 'one', 1, 's'), (2, 'two', 2, 's'), (3, 'three', 3, 's'), (4, 'four', 4, 's');
SELECT esync_disable('d');
UPDATE d SET a = 'changed', b = 10 WHERE id = 1;
UPDATE d SET c = 'masked changes are not seen afterwards' WHERE id = 2;
DELETE FROM d WHERE id = 3;
INSERT INTO d VALUES (5, 'new', 5, 's');
SELECT * FROM problems('d');
SELECT esync_enable('d');
UPDATE d SET b = b + 1;
INSERT INTO d VALUES (3, 'back', 3, 's');
SELECT aggregate_id, version, event_type, patch, flags FROM witness.stream('d') OFFSET 4;
SELECT * FROM witness.differences('d');

-- NAME: changed there and back: no Baseline
SELECT esync_disable('d');
UPDATE d SET a = 'x';
UPDATE d SET a = CASE id WHEN 1 THEN 'changed' WHEN 2 THEN 'two' WHEN 3 THEN 'back' WHEN 4 THEN 'four' ELSE 'new' END;
SELECT esync_enable('d');
UPDATE d SET b = 0;
SELECT count(*) FROM witness.events('d') WHERE event_type = 'Baseline';
SELECT * FROM witness.differences('d');

-- NAME: tombstone set and cleared unseen
CREATE TABLE s (id int PRIMARY KEY, a text, gone timestamptz);
SELECT esync_enable('s', tombstone => 'gone');
INSERT INTO s VALUES (1, 'a'), (2, 'b');
UPDATE s SET gone = '2025-01-01 00:00+00' WHERE id = 2;
SET esync.enabled = off;
UPDATE s SET gone = '2025-02-02 00:00+00' WHERE id = 1;
UPDATE s SET gone = NULL WHERE id = 2;
RESET esync.enabled;
SELECT * FROM problems('s');
UPDATE s SET a = a || '!';
SELECT aggregate_id, version, event_type, patch, flags FROM witness.stream('s') OFFSET 3;
SELECT * FROM witness.differences('s');

-- NAME: VACUUM FULL and CLUSTER change no row, and are no drift
INSERT INTO t VALUES (7, 'seven', 7);
SELECT count(*) AS before FROM witness.events('t') \gset
VACUUM (FULL, FREEZE) t;
CLUSTER t USING t_pkey;
VACUUM FREEZE t;
UPDATE t SET b = b + 1 WHERE id = 7;
SELECT version, event_type, patch FROM witness.stream('t') WHERE aggregate_id = '7';

-- NAME: a rewrite by ALTER TYPE: new xmins, no difference, no Baseline
ALTER TABLE t ALTER b TYPE bigint;
UPDATE t SET a = 'after rewrite' WHERE id = 7;
SELECT version, event_type, patch FROM witness.stream('t') WHERE aggregate_id = '7';
-- in the same transaction
BEGIN;
ALTER TABLE t ALTER b TYPE int;
UPDATE t SET a = 'in it' WHERE id = 7;
COMMIT;
SELECT version, event_type, patch FROM witness.stream('t') WHERE aggregate_id = '7' AND version > 3;

-- NAME: a Baseline in mode changes, where the fold is computed
CREATE TABLE c (id int PRIMARY KEY, a text, b int);
SELECT esync_enable('c', payload => 'changes');
INSERT INTO c VALUES (1, 'a', 1);
UPDATE c SET b = 2;
SET esync.enabled = off;
UPDATE c SET a = 'unseen';
RESET esync.enabled;
UPDATE c SET b = 3;
SELECT version, event_type, patch, payload FROM witness.stream('c');
SELECT * FROM witness.differences('c');

-- NAME: an event taken out of the stream by hand: the row is not what the stream says, and it is found
INSERT INTO c VALUES (2, 'x', 1);
UPDATE c SET a = 'y' WHERE id = 2;
DELETE FROM esync.event WHERE aggregate_id = '2' AND version = 2 AND table_id = (SELECT table_id FROM esync.tracked_table WHERE relation = 'c'::regclass);
SELECT * FROM problems('c');
UPDATE c SET b = 2 WHERE id = 2;
SELECT version, event_type, patch FROM witness.stream('c') WHERE aggregate_id = '2';
SELECT * FROM witness.differences('c');

-- NAME: verify of one row alone
SET esync.enabled = off;
UPDATE c SET b = -1;
RESET esync.enabled;
SELECT aggregate_id, problem FROM esync_verify('c', '2');
SELECT count(*) FROM esync_verify('c', '99');
SELECT count(*) FROM esync_verify('c');

SELECT count(esync_disable(relation, true)) FROM esync.tracked_table WHERE schema_name = 'drift';

-- NAME: a table rewritten by the transaction that wrote it: its places are others, some are gone
CREATE TABLE rewritten (id int PRIMARY KEY, a text);
SELECT esync_enable('rewritten');
BEGIN;
INSERT INTO rewritten SELECT i, repeat('x', 500) FROM generate_series(1, 200) AS i;
DELETE FROM rewritten WHERE id < 200;
ALTER TABLE rewritten ALTER a TYPE varchar USING left(a, 1);
TRUNCATE rewritten;
COMMIT;
SELECT event_type, count(*) FROM witness.events('rewritten') GROUP BY 1 ORDER BY 1;
SELECT * FROM problems('rewritten');

DROP SCHEMA drift, witness CASCADE;
