-- Options that merging goes by: sql_merge, on_conflict, groups, json_merge, links.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA opt;
SET search_path = opt, public;
CREATE VIEW options AS SELECT o.tbl, o.options->'sql_merge' AS sql_merge, o.options->'on_conflict' AS on_conflict, o.options->'groups' AS groups,
	o.options->'json_merge' AS json_merge, o.options->'links' AS links FROM esync_status() o WHERE o.options->>'schema' LIKE 'opt%';
CREATE TABLE parent (id int PRIMARY KEY, name text);
CREATE TABLE t (id bigint PRIMARY KEY, a text, b text, c text, d text, "Mixed" text, j jsonb, k jsonb, js json, parent_id bigint, up numeric, code varchar(10), ts timestamptz,
	gone timestamptz, tenant text, g text GENERATED ALWAYS AS ('g') STORED);

-- NAME: the defaults
SELECT esync_enable('parent'), esync_enable('t');
SELECT * FROM options;

-- NAME: all of them given; then one after the other changed and cleared, the others kept
SELECT esync_enable('t', sql_merge => false, on_conflict => 'merge', groups => '{"pressure": ["a", "b"], "name": ["Mixed", "c"]}', json_merge => '{j,k}', links => '{"parent_id": "parent", "up": "t"}');
SELECT * FROM options WHERE tbl = 't'::regclass;
SELECT esync_enable('t', groups => '{"pressure": ["a", "b"]}');
SELECT esync_enable('t', json_merge => '{k}');
SELECT esync_enable('t', links => '{"up": "opt.t"}');
SELECT * FROM options WHERE tbl = 't'::regclass;
SELECT esync_enable('t', sql_merge => true, groups => '{}', json_merge => '{}', links => '{}');
SELECT * FROM options WHERE tbl = 't'::regclass;

-- NAME: sql_merge: the trigger comes and goes with it, esync_disable drops it, esync_verify misses it
CREATE VIEW triggers AS SELECT tgname, tgenabled FROM pg_trigger WHERE tgname ~ 'esync' AND tgrelid = 't'::regclass;
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 't'::regclass AND tgname = '0_esync_merge';
SELECT esync_enable('t', sql_merge => false);
SELECT * FROM triggers ORDER BY tgname;
SELECT * FROM esync_verify('t');
SELECT esync_enable('t', sql_merge => true);
ALTER TABLE t DISABLE TRIGGER "0_esync_merge";
SELECT * FROM esync_verify('t');
SELECT esync_enable('t');
SELECT * FROM esync_verify('t');
DROP TRIGGER "0_esync_merge" ON t;
SELECT * FROM esync_verify('t');
SELECT esync_disable('t');
SELECT * FROM triggers ORDER BY tgname;
SELECT esync_enable('t');
SELECT * FROM triggers ORDER BY tgname;
-- dropping a trigger takes the stronger lock at once
BEGIN;
SELECT esync_enable('t', sql_merge => true);
SELECT DISTINCT mode FROM pg_locks WHERE relation = 't'::regclass AND pid = pg_backend_pid() AND mode ~ 'Exclusive' ORDER BY 1;
ROLLBACK;
BEGIN;
SELECT esync_enable('t', sql_merge => false);
SELECT DISTINCT mode FROM pg_locks WHERE relation = 't'::regclass AND pid = pg_backend_pid() AND mode ~ 'Exclusive' ORDER BY 1;
ROLLBACK;
-- it is of no use elsewhere
CREATE TABLE un (id int PRIMARY KEY);
CREATE TRIGGER "0_esync_merge" BEFORE UPDATE ON un FOR EACH ROW EXECUTE FUNCTION esync.merge();
INSERT INTO un VALUES (1);
SELECT * FROM witness.refused('UPDATE un SET id = 2');
CREATE TRIGGER "0_esync_other" BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION esync.merge();
INSERT INTO t (id, a) VALUES (1, 'one');
SELECT * FROM witness.refused($$UPDATE t SET a = 'two'$$);
DROP TRIGGER "0_esync_other" ON t;
SELECT * FROM witness.refused('SELECT esync.merge()');
-- without a base in the context an UPDATE is what it was
UPDATE t SET a = 'two', ts = '2025-11-17 06:00+00' RETURNING a, ts;
SELECT version, event_type, patch FROM witness.stream('t');
-- partitions have it too
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (10);
SELECT esync_enable('p');
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
SELECT tgrelid::regclass, count(*) FROM pg_trigger WHERE tgname = '0_esync_merge' AND tgrelid IN (SELECT relid FROM pg_partition_tree('p')) GROUP BY 1 ORDER BY 1;
INSERT INTO p VALUES (1, 'a');
UPDATE p SET id = 11, v = 'b';
SELECT * FROM witness.differences('p');
SELECT esync_enable('p', sql_merge => false);
SELECT count(*) FROM pg_trigger WHERE tgname = '0_esync_merge' AND tgrelid IN (SELECT relid FROM pg_partition_tree('p'));
SELECT * FROM esync_verify('p');

-- NAME: a base is for the row that the statement names: not for cascades, nor for TRUNCATE
CREATE TABLE house (id int PRIMARY KEY, v text);
CREATE TABLE room (id int PRIMARY KEY, house_id int REFERENCES house ON DELETE CASCADE ON UPDATE CASCADE);
SELECT esync_enable('house'), esync_enable('room');
INSERT INTO house VALUES (1, 'a'), (2, 'b');
INSERT INTO room VALUES (11, 1), (12, 1), (21, 2), (22, 2);
UPDATE house SET v = 'A' WHERE id = 1;
UPDATE room SET house_id = 1 WHERE id = 21;
BEGIN;
SELECT esync_context(user_id => 'anna', base_version => 1);
DELETE FROM house WHERE id = 1;
COMMIT;
SELECT e.aggregate_id, e.version, e.base_version, e.event_type FROM (SELECT * FROM witness.events('house') UNION ALL SELECT * FROM witness.events('room')) e WHERE e.event_type = 'Deleted' ORDER BY e.event_id;
SELECT c.field, c.kind, c.shown_value, x->'version' AS version, x->'value' AS value, x->'shown' AS shown FROM esync_conflicts('house') c, jsonb_array_elements(c.contenders) x ORDER BY 4;
SELECT * FROM esync_conflicts('room');
-- rows with the marks of a deletion that was undone, by a session that is gone
BEGIN;
INSERT INTO house VALUES (3, 'c'), (4, 'd');
SAVEPOINT s;
DELETE FROM house WHERE id > 2;
ROLLBACK TO s;
COMMIT;
\c
SET search_path = opt, public;
SET client_min_messages TO warning;
BEGIN;
SELECT esync_context(user_id => 'anna', base_version => 1);
SELECT id FROM house FOR UPDATE;
TRUNCATE house CASCADE;
COMMIT;
SELECT e.aggregate_id, e.version, e.base_version, e.event_type FROM witness.events('house') e WHERE e.event_type = 'Deleted' ORDER BY e.event_id;
SELECT * FROM witness.differences('house');
SELECT * FROM witness.differences('room');

-- NAME: groups that mean nothing
SELECT n.o, r.code, r.message FROM unnest(ARRAY['[]', '1', 'null', '"a"', '{"x": 1}', '{"x": {"a": "b"}}', '{"x": ["a", 1]}', '{"x": ["a", null]}', '{"x": [["a"], "b"]}', '{"x": []}', '{"x": ["a"]}',
	'{"x": ["a", "a"]}', '{"x": ["a", "b"], "y": ["b", "c"]}', '{"x": ["a", "nope"]}', '{"x": ["a", "mixed"]}', '{"x": ["a", "ctid"]}', '{"": ["a", "b"]}', '{"a": ["a", "b"]}', '{"id": ["a", "b"]}', '{"a/b": ["a", "b"]}',
	'{"x": ["a", "g"]}', format('{"%s": ["a", "b"]}', repeat('x', 64)), format('{"x": ["a", "%s"]}', repeat('b', 64))]) n(o), witness.refused(format('SELECT esync_enable(''t'', groups => %L)', n.o)) r;
SELECT hint FROM witness.refused($$SELECT esync_enable('t', groups => '[]')$$);
SELECT hint FROM witness.refused($$SELECT esync_enable('t', groups => '{"a": ["a", "b"]}')$$);

-- NAME: json_merge takes jsonb columns alone
SELECT n.o, r.code, r.message FROM unnest('{"{js}","{a}","{nope}","{NULL}","{j,id}"}'::text[]) n(o), witness.refused(format('SELECT esync_enable(''t'', json_merge => %L)', n.o)) r;
SELECT hint FROM witness.refused($$SELECT esync_enable('t', json_merge => '{js}')$$);

-- NAME: links: tracked tables with a key of one column that compares
CREATE SCHEMA opt2;
CREATE TABLE opt2.elsewhere (id uuid PRIMARY KEY);
CREATE TABLE two (a int, b int, PRIMARY KEY (a, b));
CREATE TABLE named (code text PRIMARY KEY);
CREATE DOMAIN short AS varchar(5);
CREATE TABLE child (id int PRIMARY KEY, u uuid, i smallint, n numeric, s short, x text, d date);
SELECT esync_enable('opt2.elsewhere', aggregate_type => 'place'), esync_enable('two'), esync_enable('named');
SELECT n.o, r.code, r.message FROM unnest(ARRAY['[]', '"parent"', '{"i": 1}', '{"i": null}', '{"i": ["parent"]}', '{"nope": "parent"}', '{"i": "nope"}', '{"i": "opt.un"}', '{"i": "two"}', '{"u": "parent"}', '{"d": "parent"}',
	'{"x": "parent"}', '{"i": "named"}', '{"i": "pg_class"}', '{"i": "elsewhere"}']) n(o), witness.refused(format('SELECT esync_enable(''child'', links => %L)', n.o)) r;
SELECT count(*) FROM options WHERE tbl = 'child'::regclass;
-- named as in SQL, by the caller's search_path, or by aggregate_type; a table may link to itself at its first call
SELECT esync_enable('child', links => '{"i": "parent", "n": "opt.parent", "u": "place", "s": "named", "x": "named", "id": "child"}');
SELECT links FROM options WHERE tbl = 'child'::regclass;
SELECT code FROM witness.refused($$SELECT esync_enable('child', links => '{"u": "opt2.elsewhere"}')$$);
SELECT links FROM options WHERE tbl = 'child'::regclass;
-- the link follows the parent's names, and goes with the parent
SELECT esync_enable('child', links => '{"i": "parent", "u": "place", "s": "named"}');
ALTER TABLE parent RENAME TO father;
ALTER TABLE opt2.elsewhere SET SCHEMA opt;
ALTER TABLE father RENAME COLUMN id TO father_id;
ALTER TABLE child RENAME COLUMN i TO father_id;
SELECT esync_enable('child');
SELECT links FROM options WHERE tbl = 'child'::regclass;
DROP TABLE named;
SELECT esync_enable('child');
SELECT links FROM options WHERE tbl = 'child'::regclass;
SELECT esync_disable('father', drop_history => true);
SELECT links FROM options WHERE tbl = 'child'::regclass;
INSERT INTO child (id, father_id) VALUES (1, 1);
UPDATE child SET father_id = 2;
SELECT esync_enable('child');
SELECT links FROM options WHERE tbl = 'child'::regclass;
SELECT * FROM esync_verify('child');

-- NAME: a column plays one part: contradictions, within a call and with what is there
SELECT esync_enable('father');
SELECT n.o, r.code, r.message FROM unnest(ARRAY[$$groups => '{"x": ["a", "id"]}'$$, $$groups => '{"x": ["a", "b"]}', exclude => '{b}'$$, $$groups => '{"x": ["a", "b"]}', mask => '{a}'$$, $$groups => '{"x": ["a", "ts"]}', last_modified => '{ts}'$$,
	$$groups => '{"x": ["a", "gone"]}', tombstone => 'gone'$$, $$groups => '{"x": ["a", "tenant"]}', tenant => 'tenant'$$, $$groups => '{"x": ["a", "j"]}', json_merge => '{j}'$$,
	$$json_merge => '{j}', exclude => '{j}'$$, $$json_merge => '{j}', mask => '{j}'$$, $$json_merge => '{j}', tenant => 'j'$$, $$links => '{"parent_id": "father"}', exclude => '{parent_id}'$$,
	$$links => '{"parent_id": "father"}', mask => '{parent_id}'$$]) n(o), witness.refused(format('SELECT esync_enable(''t'', %s)', n.o)) r;
SELECT esync_enable('t', groups => '{"x": ["a", "b"]}', json_merge => '{j}');
SELECT n.o, r.code, r.message FROM unnest(ARRAY[$$exclude => '{a}'$$, $$mask => '{b}'$$, $$mask => '{j}'$$]) n(o), witness.refused(format('SELECT esync_enable(''t'', %s)', n.o)) r;
-- a link may be part of the key, the tenant, or a member of a group
SELECT n.o, r.code FROM unnest(ARRAY[$$links => '{"id": "father"}'$$, $$groups => '{"x": ["parent_id", "a"]}', links => '{"parent_id": "father"}'$$, $$tenant => 'up', links => '{"up": "father"}'$$]) n(o),
	witness.refused(format('SELECT esync_enable(''t'', %s)', n.o)) r;
SELECT esync_enable('t', tenant => '', groups => '{}', json_merge => '{}', links => '{}');

-- NAME: columns that are renamed, dropped, and given another type
SELECT esync_enable('t', groups => '{"x": ["a", "b", "c"], "y": ["d", "Mixed"]}', json_merge => '{j,k}', links => '{"parent_id": "father", "up": "father"}');
ALTER TABLE t RENAME COLUMN a TO was_a;
ALTER TABLE t RENAME COLUMN b TO a;
ALTER TABLE t RENAME COLUMN j TO jj;
ALTER TABLE t RENAME COLUMN parent_id TO father_id;
ALTER TABLE t DROP COLUMN "Mixed", DROP COLUMN k, DROP COLUMN up;
SELECT esync_enable('t');
SELECT groups, json_merge, links FROM options WHERE tbl = 't'::regclass;
ALTER TABLE t DROP COLUMN d;
SELECT esync_enable('t', groups => NULL);
SELECT groups FROM options WHERE tbl = 't'::regclass;
ALTER TABLE t ALTER COLUMN jj TYPE json;
UPDATE t SET jj = '{"a": 1}';
SELECT code, message FROM witness.refused($$SELECT esync_enable('t')$$);
SELECT esync_enable('t', json_merge => '{}');
SELECT * FROM esync_verify('t');

-- NAME: a dump of the version before has not these columns
SELECT a.attname, pg_get_expr(d.adbin, d.adrelid) AS default, attnotnull FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = 'esync.tracked_table'::regclass AND a.attnum > (SELECT attnum FROM pg_attribute WHERE attrelid = a.attrelid AND attname = 'pruned_through') ORDER BY a.attnum;

SELECT count(esync_disable(relation, true)) FROM esync.tracked_table WHERE relation IS NOT NULL AND schema_name LIKE 'opt%';
DELETE FROM esync.tracked_table WHERE schema_name LIKE 'opt%';
DROP SCHEMA opt, opt2, witness CASCADE;
