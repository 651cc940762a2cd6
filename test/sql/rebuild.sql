-- esync_rebuild: rows that differ from their stream, put right from either side.
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE ROLE regress_esync_rebuild;
CREATE SCHEMA rb;
CREATE TABLE rb.parent (id int PRIMARY KEY);
CREATE TABLE rb.item (id int PRIMARY KEY, a text, pin text, seen timestamptz, parent int REFERENCES rb.parent, gen text GENERATED ALWAYS AS (a || '!') STORED);
CREATE TABLE rb.child (id int PRIMARY KEY, item int REFERENCES rb.item ON DELETE CASCADE);
SELECT esync_enable('rb.item', mask => '{pin}', last_modified => '{seen}'), esync_enable('rb.child');
INSERT INTO rb.parent VALUES (1);
INSERT INTO rb.item (id, a, pin, parent) SELECT i, 'a' || i, 'p' || i, 1 FROM generate_series(1, 5) AS i;
UPDATE rb.item SET a = 'b' WHERE id = 1;
CREATE FUNCTION rb.damage() RETURNS void LANGUAGE sql AS $$
SET LOCAL esync.enabled = off;
UPDATE rb.item SET a = 'unseen' WHERE id = 1;
DELETE FROM rb.item WHERE id = 2;
INSERT INTO rb.item (id, a) VALUES (6, 'never told') ON CONFLICT DO NOTHING;
UPDATE rb.item SET pin = 'q' WHERE id = 3;
SET LOCAL esync.enabled = on
$$;
CREATE VIEW rb.wrong AS SELECT aggregate_id AS id, problem, detail->'fields' AS fields FROM esync_verify('rb.item');
CREATE VIEW rb.items AS SELECT id, a, pin, parent, gen, seen IS NOT NULL AS seen FROM rb.item ORDER BY id;

-- NAME: the stream is right: rows are what their events say, and no event tells of it
SELECT rb.damage();
-- a key that the stream has deleted, and the table does not
DELETE FROM rb.item WHERE id = 5;
BEGIN;
SET LOCAL esync.enabled = off;
INSERT INTO rb.item (id, a) VALUES (5, 'back');
INSERT INTO rb.child VALUES (50, 5);
COMMIT;
SELECT * FROM rb.wrong;
CREATE TABLE rb.before AS SELECT count(*) AS n FROM esync.event;
SELECT esync_rebuild('rb.item', '1') AS one;
SELECT * FROM rb.wrong;
SELECT esync_rebuild('rb.item') AS rest, esync_rebuild('rb.item') AS none;
-- what a masked column held nobody knows; a row without events is none of the stream's
SELECT * FROM rb.items;
SELECT * FROM rb.wrong;
-- cascades are events of their own
SELECT aggregate_type, aggregate_id, event_type FROM esync.event JOIN esync.tracked_table USING (table_id), rb.before WHERE event_id > (SELECT max(event_id) FROM (SELECT event_id FROM esync.event ORDER BY event_id LIMIT (SELECT n FROM rb.before)) AS b);
-- the next change is one event, and no drift
UPDATE rb.item SET a = 'c' WHERE id = 1;
SELECT version, event_type, patch FROM esync_history('rb.item', 1) WHERE version > 2;

-- NAME: the table is right: what it holds is recorded
SELECT rb.damage();
INSERT INTO rb.item (id, a) VALUES (5, 'anew');
BEGIN;
SET LOCAL esync.enabled = off;
UPDATE rb.item SET a = 'unseen too' WHERE id = 5;
COMMIT;
SELECT * FROM rb.wrong;
SELECT esync_rebuild('rb.item', source => 'table') AS rows, esync_rebuild('rb.item', source => 'table') AS none;
SELECT * FROM rb.wrong;
SELECT * FROM rb.items;
SELECT aggregate_id, version, event_type, patch, e.flags, e.meta FROM esync.event AS e JOIN esync.tracked_table USING (table_id) WHERE relation = 'rb.item'::regclass AND event_type = 'Baseline' ORDER BY event_id;

-- NAME: what the table refuses is an error, and nothing was done
BEGIN;
SET LOCAL esync.enabled = off;
UPDATE rb.item SET parent = NULL WHERE parent = 1;
DELETE FROM rb.parent;
COMMIT;
DO $$ BEGIN PERFORM esync_rebuild('rb.item'); EXCEPTION WHEN foreign_key_violation THEN RAISE WARNING 'refused'; END $$;
SELECT count(*) FROM rb.wrong;
SELECT esync_rebuild('rb.item', source => 'table');

-- NAME: what a row cannot become, whatever the others are: the error tells of which, and what to do
CREATE TABLE rb.fixed (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, a numeric);
SELECT esync_enable('rb.fixed');
INSERT INTO rb.fixed (id, a) SELECT i, i + 0.5 FROM generate_series(1, 3) AS i;
BEGIN;
SET LOCAL esync.enabled = off;
UPDATE rb.fixed SET n = DEFAULT WHERE id = 2;
UPDATE rb.fixed SET a = 9 WHERE id = 3;
COMMIT;
SELECT esync_rebuild('rb.fixed');
SELECT esync_rebuild('rb.fixed', '2', 'table') + esync_rebuild('rb.fixed') AS rows;
ALTER TABLE rb.fixed ALTER a TYPE int;
SELECT esync_rebuild('rb.fixed');
SELECT esync_rebuild('rb.fixed', source => 'table');

-- NAME: rows that wait for others of the table
CREATE TABLE rb.tree (id int PRIMARY KEY, parent int REFERENCES rb.tree, slot int UNIQUE, "Na ""me" text);
SELECT esync_enable('rb.tree');
INSERT INTO rb.tree VALUES (5, NULL, 50), (3, 5, 30), (2, 3, 20), (1, 2, 10), (7, NULL, 70);
BEGIN;
SET LOCAL esync.enabled = off;
DELETE FROM rb.tree WHERE id < 7;
COMMIT;
SELECT esync_rebuild('rb.tree');
TABLE rb.tree ORDER BY id;
DELETE FROM rb.tree WHERE id = 1;
DELETE FROM rb.tree WHERE id = 2;
BEGIN;
SET LOCAL esync.enabled = off;
INSERT INTO rb.tree VALUES (2, 3, 20), (1, 2, 10);
UPDATE rb.tree SET slot = 51 WHERE id = 5;
UPDATE rb.tree SET slot = 50 WHERE id = 3;
COMMIT;
SELECT esync_rebuild('rb.tree');
TABLE rb.tree ORDER BY id;
-- values that changed places wait for each other: nothing is done, the third row neither
BEGIN;
SET LOCAL esync.enabled = off;
UPDATE rb.tree SET slot = 0 WHERE id = 5;
DELETE FROM rb.tree WHERE id = 7;
UPDATE rb.tree SET slot = 50 WHERE id = 3;
UPDATE rb.tree SET slot = 30 WHERE id = 5;
COMMIT;
DO $$
DECLARE detail text; hint text; context text;
BEGIN
	PERFORM esync_rebuild('rb.tree');
EXCEPTION WHEN unique_violation THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	RAISE WARNING '% | % | % | %', SQLERRM, detail, hint, split_part(context, E'\n', 1);
END $$;
SELECT id, problem FROM (SELECT aggregate_id AS id, problem FROM esync_verify('rb.tree')) AS v;
ALTER TABLE rb.tree DROP CONSTRAINT tree_slot_key, ADD UNIQUE (slot) DEFERRABLE;
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
SELECT esync_rebuild('rb.tree');
COMMIT;
TABLE rb.tree ORDER BY id;
SELECT * FROM esync_verify('rb.tree');

-- NAME: who may, and of what
DO $$ BEGIN PERFORM esync_rebuild('rb.item', source => 'both'); EXCEPTION WHEN invalid_parameter_value THEN RAISE WARNING '%', SQLERRM; END $$;
DO $$ BEGIN PERFORM esync_rebuild('rb.parent'); EXCEPTION WHEN SQLSTATE 'YS001' THEN RAISE WARNING '%', SQLERRM; END $$;
DO $$ BEGIN PERFORM esync_verify(NULL); EXCEPTION WHEN null_value_not_allowed THEN RAISE WARNING '%', SQLERRM; END $$;
DO $$ BEGIN PERFORM esync_rebuild(NULL); EXCEPTION WHEN null_value_not_allowed THEN RAISE WARNING '%', SQLERRM; END $$;
GRANT ALL ON SCHEMA rb TO regress_esync_rebuild;
GRANT ALL ON rb.item TO regress_esync_rebuild;
GRANT EXECUTE ON FUNCTION esync_rebuild TO regress_esync_rebuild;
SET ROLE regress_esync_rebuild;
DO $$ BEGIN PERFORM esync_rebuild('rb.item'); EXCEPTION WHEN insufficient_privilege THEN RAISE WARNING '%', SQLERRM; END $$;
RESET ROLE;

-- NAME: a partitioned table
CREATE TABLE rb.part (id int, k int, a text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE rb.part_1 PARTITION OF rb.part FOR VALUES IN (1);
CREATE TABLE rb.part_2 (a text, k int NOT NULL, id int NOT NULL);
ALTER TABLE rb.part ATTACH PARTITION rb.part_2 FOR VALUES IN (2);
SELECT esync_enable('rb.part');
INSERT INTO rb.part VALUES (1, 1, 'x'), (2, 2, 'y'), (3, 2, 'z');
BEGIN;
SET LOCAL esync.enabled = off;
UPDATE rb.part SET a = 'unseen';
DELETE FROM rb.part WHERE id = 3;
COMMIT;
SELECT esync_rebuild('rb.part');
SELECT tableoid::regclass, * FROM rb.part ORDER BY id;
SELECT * FROM esync_verify('rb.part');

DROP SCHEMA rb CASCADE;
DROP OWNED BY regress_esync_rebuild;
DROP ROLE regress_esync_rebuild;
