-- Partitioned tables: one stream, keyed by the root.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA part;
SET search_path = part, public;

-- the partition key is part of the key
CREATE TABLE p (id int, region text, v text, n int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a');
-- other column order, with a hole
CREATE TABLE p_b (gone int, n int, v text, region text NOT NULL, id int NOT NULL);
ALTER TABLE p_b DROP COLUMN gone;
ALTER TABLE p ATTACH PARTITION p_b FOR VALUES IN ('b');
-- the option key leaves it out
CREATE TABLE q (id int NOT NULL, region text, v text, n int) PARTITION BY LIST (region);
CREATE TABLE q_a PARTITION OF q FOR VALUES IN ('a');
CREATE TABLE q_b (gone int, n int, v text, region text, id int NOT NULL);
ALTER TABLE q_b DROP COLUMN gone;
ALTER TABLE q ATTACH PARTITION q_b FOR VALUES IN ('b');
CREATE TABLE q_sub PARTITION OF q FOR VALUES IN ('c', 'd') PARTITION BY LIST (region);
CREATE TABLE q_c PARTITION OF q_sub FOR VALUES IN ('c');
CREATE TABLE q_d PARTITION OF q_sub FOR VALUES IN ('d');
SELECT esync_enable('p');
SELECT esync_enable('q', key => '{id}');
SELECT * FROM esync_verify('p');
SELECT * FROM esync_verify('q');

-- NAME: rows written by the root and by the leaf, in leaves of another column order
INSERT INTO p VALUES (1, 'a', 'x', 1), (2, 'b', 'y', 2);
INSERT INTO p_b (id, region, v) VALUES (3, 'b', 'z');
UPDATE p SET v = v || '!', n = 0;
UPDATE p_b SET n = 7 WHERE id = 3;
DELETE FROM p_a;
SELECT aggregate_id, version, event_type, patch, payload FROM witness.stream('p') ORDER BY aggregate_id, version;
SELECT * FROM witness.differences('p');

-- NAME: partition move with change of key: Deleted and Created that name each other
UPDATE p SET region = 'a', v = 'moved' WHERE id = 2;
SELECT aggregate_id, version, event_type, payload, flags, meta FROM witness.events('p') WHERE aggregate_id ~ '^.2' AND version > (aggregate_id ~ 'b')::int * 2;
SELECT version, event_type, payload->'v' AS v FROM esync_history('p', ROW(2, 'a'));
SELECT * FROM witness.differences('p');

-- NAME: partition move without change of key: one Updated event
INSERT INTO q VALUES (1, 'a', 'x', 1), (2, 'b', 'y', 2), (3, 'c', 'z', 3);
UPDATE q SET region = 'b' WHERE id = 1;
UPDATE q SET region = 'd', v = 'both' WHERE id = 2;
UPDATE q SET region = 'a' WHERE id = 3;
SELECT aggregate_id, version, event_type, patch, payload, flags FROM witness.stream('q') ORDER BY aggregate_id, version;
SELECT * FROM witness.differences('q');
-- all at once, some of them, and by way of ON CONFLICT's kin
UPDATE q SET region = CASE region WHEN 'a' THEN 'b' WHEN 'b' THEN 'c' ELSE 'a' END, n = n + 10;
UPDATE q SET region = 'c', n = n + 10 WHERE id <> 2;
MERGE INTO q USING (VALUES (1, 'd'), (2, 'b'), (9, 'a')) s (id, region) ON s.id = q.id WHEN MATCHED THEN UPDATE SET region = s.region WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.region, 'new', 0);
SELECT aggregate_id, version, event_type, patch FROM witness.stream('q') WHERE version > 2 OR aggregate_id = '9' ORDER BY aggregate_id, version;
SELECT * FROM witness.differences('q');
-- with a change of the key in the same statement
UPDATE q SET id = id + 100, region = 'a' WHERE id IN (1, 2);
SELECT * FROM witness.differences('q');
-- and there and back in one transaction, with a savepoint rolled back
BEGIN;
UPDATE q SET region = 'b' WHERE id = 9;
SAVEPOINT s;
UPDATE q SET region = 'c' WHERE id = 9;
ROLLBACK TO s;
UPDATE q SET region = 'a', v = 'back' WHERE id = 9;
DELETE FROM q WHERE id = 9;
INSERT INTO q VALUES (9, 'c', 'again', 0);
COMMIT;
SELECT version, event_type, patch FROM witness.stream('q') WHERE aggregate_id = '9';
SELECT * FROM witness.differences('q');

-- NAME: a DELETE and an INSERT of the same key in another partition is no move
WITH gone AS (DELETE FROM q WHERE id = 9 RETURNING *) INSERT INTO q SELECT id, 'd', 'third', n FROM gone;
SELECT version, event_type, patch FROM witness.stream('q') WHERE aggregate_id = '9' AND version > 5;
SELECT * FROM witness.differences('q');

-- NAME: a BEFORE trigger that swallows the moved row: it is deleted
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON q_b FOR EACH ROW EXECUTE FUNCTION swallow();
UPDATE q SET region = 'b' WHERE id = 101;
UPDATE q SET region = 'b' WHERE id IN (102, 9);
SELECT * FROM q;
SELECT aggregate_id, version, event_type, flags FROM witness.stream('q') WHERE event_type = 'Deleted' AND aggregate_id IN ('101', '102', '9') ORDER BY 1, 2;
-- followed by other writes in its transaction, and rolled back
INSERT INTO q VALUES (20, 'a', 'v', 0), (21, 'a', 'v', 0), (22, 'a', 'v', 0);
BEGIN;
UPDATE q SET region = 'b' WHERE id = 20;
INSERT INTO q VALUES (23, 'c', 'new', 0);
SAVEPOINT s;
UPDATE q SET region = 'b' WHERE id = 21;
ROLLBACK TO s;
COMMIT;
BEGIN;
UPDATE q SET region = 'b' WHERE id = 22;
ROLLBACK;
SELECT * FROM q ORDER BY id;
SELECT * FROM witness.differences('q');
DROP TRIGGER swallow ON q_b;

-- NAME: a BEFORE trigger changes the row that moves
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.v := 'changed on arrival'; RETURN new; END $$;
CREATE TRIGGER change BEFORE INSERT ON q_b FOR EACH ROW EXECUTE FUNCTION change();
UPDATE q SET region = 'b' WHERE id = 21;
SELECT version, event_type, patch FROM witness.stream('q') WHERE aggregate_id = '21';
SELECT * FROM witness.differences('q');
DROP TRIGGER change ON q_b;

-- NAME: an AFTER trigger that writes between the halves of a move
CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, t text);
SELECT esync_enable('log');
CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (t) VALUES (tg_op || ' on ' || tg_table_name); UPDATE q SET n = n + 1 WHERE id = 23; RETURN NULL; END $$;
CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON q_a FOR EACH ROW EXECUTE FUNCTION log();
CREATE TRIGGER "!log" AFTER INSERT OR UPDATE OR DELETE ON q_b FOR EACH ROW EXECUTE FUNCTION log();
UPDATE q SET region = 'b' WHERE id = 22;
UPDATE q SET region = 'a' WHERE id = 22;
SELECT t FROM log;
SELECT version, event_type, patch FROM witness.stream('q') WHERE aggregate_id = '22';
SELECT * FROM witness.differences('q');
SELECT * FROM witness.differences('log');
DROP TRIGGER log ON q_a;
DROP TRIGGER "!log" ON q_b;

-- NAME: FK to a partitioned table, cascading over a move
CREATE TABLE child (id int PRIMARY KEY, pid int, pregion text, FOREIGN KEY (pid, pregion) REFERENCES p ON UPDATE CASCADE);
SELECT esync_enable('child');
INSERT INTO child VALUES (1, 2, 'a');
UPDATE p SET region = 'b' WHERE id = 2;
SELECT version, event_type, patch FROM witness.stream('child');
SELECT * FROM witness.differences('p');
DROP TABLE child;

-- NAME: TRUNCATE of the root, of a leaf, and of a subtree
INSERT INTO q VALUES (30, 'a', 'v', 0), (31, 'c', 'v', 0), (32, 'd', 'v', 0);
TRUNCATE q_c;
SELECT aggregate_id, event_type, payload->>'region' AS region FROM witness.stream('q') WHERE event_type = 'Deleted' AND payload->>'region' = 'c' AND aggregate_id IN ('23', '31') ORDER BY 1;
SELECT * FROM witness.differences('q');
TRUNCATE q_sub;
SELECT version, event_type FROM witness.stream('q') WHERE aggregate_id = '32';
SELECT * FROM witness.differences('q');
TRUNCATE q;
SELECT * FROM witness.differences('q');
-- once for each row, not once for each trigger
SELECT aggregate_id, count(*) FROM witness.stream('q') WHERE event_type = 'Deleted' AND aggregate_id IN ('30', '31', '32') GROUP BY 1 ORDER BY 1;

-- NAME: TRUNCATE of a new partition: it gets a truncate trigger as it is made
CREATE TABLE q_e PARTITION OF q FOR VALUES IN ('e');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'q_e'::regclass ORDER BY 1;
INSERT INTO q VALUES (40, 'e', 'v', 0), (41, 'a', 'v', 0);
TRUNCATE q_e;
SELECT aggregate_id, version, event_type FROM witness.stream('q') WHERE aggregate_id IN ('40', '41') ORDER BY 1, 2;
SELECT * FROM witness.differences('q');

-- NAME: TRUNCATE of a partition without truncate trigger: by the root it is seen, alone it is not, and verify says so
DROP TRIGGER "0_esync_truncate" ON q_e;
INSERT INTO q VALUES (40, 'e', 'v', 0);
TRUNCATE q;
SELECT aggregate_id, version, event_type FROM witness.stream('q') WHERE aggregate_id IN ('40', '41') AND version > 1 ORDER BY 1, 2;
INSERT INTO q VALUES (42, 'e', 'v', 0);
TRUNCATE q_e;
SELECT aggregate_id, problem, detail - 'event_id' AS detail FROM esync_verify('q');
INSERT INTO q VALUES (42, 'e', 'after', 0);
-- enable mends it
SELECT esync_enable('q');
SELECT * FROM esync_verify('q');
TRUNCATE q_e;
SELECT version, event_type FROM witness.stream('q') WHERE aggregate_id = '42';
SELECT * FROM witness.differences('q');

-- NAME: ATTACH: rows that were there get their ground when they are written, or deleted
CREATE TABLE q_f (LIKE q);
INSERT INTO q_f VALUES (50, 'f', 'was there', 0), (51, 'f', 'was there', 0), (52, 'f', 'was there', 0);
ALTER TABLE q ATTACH PARTITION q_f FOR VALUES IN ('f');
UPDATE q SET v = 'seen' WHERE id = 50;
UPDATE q SET region = 'a' WHERE id = 51;
SELECT aggregate_id, version, event_type, patch, payload FROM witness.stream('q') WHERE aggregate_id IN ('50', '51', '52');
SELECT * FROM witness.differences('q', unseen => true);

-- NAME: DETACH: the rows are gone from the table, and verify misses them; the detached table is not tracked, and has no trigger left
ALTER TABLE q DETACH PARTITION q_f;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'q_f'::regclass ORDER BY 1;
SELECT aggregate_id, problem, detail - 'event_id' AS detail FROM esync_verify('q');
SELECT * FROM witness.refused($$SELECT esync_state('q_f', 50)$$);
INSERT INTO q_f VALUES (53, 'f', 'free', 0);
TRUNCATE q_f;
-- back again, with other rows under the same keys
INSERT INTO q_f VALUES (50, 'f', 'other', 0), (52, 'f', 'other', 0);
ALTER TABLE q ATTACH PARTITION q_f FOR VALUES IN ('f');
SELECT aggregate_id, problem, detail - 'event_id' AS detail FROM esync_verify('q');
UPDATE q SET n = 1 WHERE id = 50;
SELECT version, event_type, patch FROM witness.stream('q') WHERE aggregate_id = '50';

-- NAME: DDL on the root: fast default, rename, drop
ALTER TABLE q ADD COLUMN extra int DEFAULT 5;
ALTER TABLE q RENAME COLUMN v TO text;
ALTER TABLE q DROP COLUMN n;
UPDATE q SET text = 'after DDL' WHERE id IN (50, 51);
SELECT aggregate_id, patch, payload FROM witness.stream('q') WHERE aggregate_id IN ('50', '51') ORDER BY version DESC LIMIT 2;
SELECT * FROM witness.differences('q', added => '{"extra": 5}', renamed => '{"v": "text"}', unseen => true);

-- NAME: last_modified and tombstone of partitions, moves included
CREATE TABLE r (id int NOT NULL, region text NOT NULL, v text, changed timestamptz, gone timestamptz, PRIMARY KEY (id, region)) PARTITION BY RANGE (region);
CREATE TABLE r_1 PARTITION OF r FOR VALUES FROM ('a') TO ('m');
CREATE TABLE r_2 (gone timestamptz, changed timestamptz, v text, region text NOT NULL, id int NOT NULL);
ALTER TABLE r ATTACH PARTITION r_2 DEFAULT;
SELECT esync_enable('r', last_modified => '{changed}', tombstone => 'gone', tenant => 'region', key => '{id}');
INSERT INTO r VALUES (1, 'a', 'x'), (2, 'z', 'y');
SELECT changed AS before FROM r WHERE id = 1 \gset
UPDATE r SET region = 'y' WHERE id = 1;
SELECT changed > :'before' AS later FROM r WHERE id = 1;
UPDATE r SET gone = '2025-01-01 00:00+00', region = 'a' WHERE id = 2;
SELECT aggregate_id, version, event_type, patch, tenant, flags FROM witness.events('r') ORDER BY 1, 2;
SELECT * FROM witness.differences('r');

-- NAME: baseline of a partitioned table
CREATE TABLE b (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
CREATE TABLE b_0 PARTITION OF b FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE b_1 (v text, id int NOT NULL);
ALTER TABLE b ATTACH PARTITION b_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO b SELECT i, 'row ' || i FROM generate_series(1, 10) i;
SELECT esync_enable('b', baseline => true);
SELECT count(*), count(DISTINCT aggregate_id), min(event_type), max(event_type) FROM witness.stream('b');
SELECT * FROM witness.differences('b');

-- NAME: disable drops the triggers of all partitions
SELECT esync_disable('q');
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('q'));
-- a partition dropped with rows in it
SELECT esync_enable('q');
DROP TABLE q_f;
SELECT aggregate_id, problem FROM esync_verify('q');

SELECT count(esync_disable(relation, true)) FROM esync.tracked_table WHERE relation IS NOT NULL AND schema_name = 'part';
DROP SCHEMA part, witness CASCADE;
