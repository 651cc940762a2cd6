-- DDL on a tracked table: neither writes nor history break.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA ddl;
SET search_path = ddl, public;

CREATE TABLE t (id int PRIMARY KEY, a text, b int);
SELECT esync_enable('t');
INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2);

-- NAME: ADD COLUMN, with and without a default, and fast defaults of rows not written since
ALTER TABLE t ADD COLUMN plain text;
ALTER TABLE t ADD COLUMN fast numeric DEFAULT 1.50;
SELECT * FROM esync_verify('t');
SELECT esync_state('t', 1), esync_state('t', 2);
UPDATE t SET plain = 'new' WHERE id = 1;
SELECT version, patch, payload FROM witness.stream('t') WHERE aggregate_id = '1';
SELECT * FROM witness.differences('t', added => '{"plain": null, "fast": 1.50}');
UPDATE t SET fast = 1.5 WHERE id = 2;
SELECT version, value, previous_value FROM field_history('t', 2, 'fast');
SELECT * FROM witness.differences('t', added => '{"plain": null, "fast": 1.50}');
-- the default changed since: rows written before keep the old one
ALTER TABLE t ALTER COLUMN fast SET DEFAULT 9;
INSERT INTO t (id) VALUES (3);
SELECT * FROM witness.differences('t', added => '{"plain": null, "fast": 1.50}');

-- a fast default that a rewrite made slow before any event told of it
CREATE TABLE slow (id int PRIMARY KEY, a text);
SELECT esync_enable('slow');
INSERT INTO slow VALUES (1, 'x');
ALTER TABLE slow ADD COLUMN f int DEFAULT 5;
ALTER TABLE slow ADD COLUMN u timestamptz DEFAULT clock_timestamp();
ALTER TABLE slow DROP COLUMN u;
UPDATE slow SET a = 'y';
SELECT version, event_type, patch FROM witness.stream('slow');
SELECT * FROM witness.differences('slow', added => '{"f": 5}');

-- NAME: RENAME COLUMN: history follows
ALTER TABLE t RENAME COLUMN a TO title;
SELECT field, version, value FROM field_history('t', 1, 'title');
SELECT DISTINCT field FROM field_history('t', 1, 'a');
SELECT esync_state('t', 1);
UPDATE t SET title = 'uno' WHERE id = 1;
SELECT field, version, value, previous_value, status FROM field_history('t', 1, 'title');
SELECT * FROM witness.differences('t', added => '{"plain": null, "fast": 1.50}', renamed => '{"a": "title"}');
ALTER TABLE t RENAME COLUMN title TO "Title ""2""";
UPDATE t SET "Title ""2""" = 'eins' WHERE id = 1;
SELECT field, version, value, previous_value FROM field_history('t', 1) WHERE field ~* 'title';
SELECT version, patch FROM witness.stream('t') WHERE aggregate_id = '1';
ALTER TABLE t RENAME COLUMN "Title ""2""" TO a;
SELECT field, version, value FROM field_history('t', 1, 'a');

-- NAME: two columns swap their names
CREATE TABLE swap (id int PRIMARY KEY, x text, y text);
SELECT esync_enable('swap');
INSERT INTO swap VALUES (1, 'from x', 'from y');
ALTER TABLE swap RENAME x TO z; ALTER TABLE swap RENAME y TO x; ALTER TABLE swap RENAME z TO y;
SELECT esync_state('swap', 1), to_jsonb(s) FROM swap s;
SELECT * FROM esync_verify('swap');
UPDATE swap SET x = 'new in x (was y)';
SELECT field, version, value, previous_value FROM field_history('swap', 1);
SELECT * FROM esync_verify('swap');
SELECT esync_state('swap', 1), to_jsonb(s) FROM swap s;
-- and back within the transaction of another change
BEGIN;
UPDATE swap SET y = 'before';
ALTER TABLE swap RENAME x TO z; ALTER TABLE swap RENAME y TO x; ALTER TABLE swap RENAME z TO y;
UPDATE swap SET y = 'after';
COMMIT;
SELECT field, version, value, previous_value FROM field_history('swap', 1);
SELECT * FROM esync_verify('swap');

-- NAME: DROP COLUMN and ADD it again under its name: another field
CREATE TABLE again (id int PRIMARY KEY, v text, w int);
SELECT esync_enable('again');
INSERT INTO again VALUES (1, 'first life', 1);
ALTER TABLE again DROP COLUMN v;
SELECT esync_state('again', 1);
UPDATE again SET w = 2;
SELECT * FROM esync_verify('again');
ALTER TABLE again ADD COLUMN v text;
SELECT esync_state('again', 1);
UPDATE again SET v = 'second life';
SELECT field, version, value, previous_value, status FROM field_history('again', 1);
SELECT * FROM esync_verify('again');
-- with a default
ALTER TABLE again DROP COLUMN v;
ALTER TABLE again ADD COLUMN v text DEFAULT 'third life';
SELECT esync_state('again', 1), to_jsonb(a) FROM again a;
UPDATE again SET w = 3;
SELECT * FROM esync_verify('again');
-- add and drop with no event in between
ALTER TABLE again ADD COLUMN never int;
ALTER TABLE again DROP COLUMN never;
UPDATE again SET w = 4;
SELECT * FROM esync_verify('again');

-- NAME: ALTER TYPE: a rewrite; values that differ are found at the next write
CREATE TABLE ty (id int PRIMARY KEY, n int, m int, t text);
SELECT esync_enable('ty');
INSERT INTO ty VALUES (1, 1, 10, '7'), (2, 2, 20, '8');
ALTER TABLE ty ALTER n TYPE numeric(10,2);
ALTER TABLE ty ALTER m TYPE bigint, ALTER t TYPE int USING t::int;
SELECT aggregate_id, problem, detail->'fields' AS fields FROM esync_verify('ty');
UPDATE ty SET m = 11 WHERE id = 1;
SELECT version, event_type, patch FROM witness.stream('ty') WHERE aggregate_id = '1';
UPDATE ty SET m = m;
ALTER TABLE ty ALTER n TYPE text USING 'n' || n;
DELETE FROM ty WHERE id = 2;
UPDATE ty SET t = 0;
SELECT aggregate_id, version, event_type, patch FROM witness.stream('ty') OFFSET 3;
SELECT * FROM witness.differences('ty');
-- a type that needs no rewrite
ALTER TABLE ty ALTER n TYPE varchar;
UPDATE ty SET n = 'x';
SELECT * FROM witness.differences('ty');

-- NAME: DDL between two statements of one transaction, and rolled back to a savepoint
CREATE TABLE tx (id int PRIMARY KEY, a text);
SELECT esync_enable('tx');
BEGIN;
INSERT INTO tx VALUES (1, 'a');
ALTER TABLE tx ADD COLUMN b text;
UPDATE tx SET b = 'b';
SAVEPOINT s;
ALTER TABLE tx RENAME COLUMN b TO c;
UPDATE tx SET c = 'c';
ROLLBACK TO s;
UPDATE tx SET b = 'b2';
COMMIT;
UPDATE tx SET b = 'b3';
SELECT version, patch FROM witness.stream('tx');
SELECT field, version, value FROM field_history('tx', 1);
SELECT * FROM witness.differences('tx', added => '{"b": null}');
-- the same whole transaction rolled back: the plan must not remember
BEGIN;
ALTER TABLE tx RENAME COLUMN b TO c;
UPDATE tx SET c = 'undone';
ROLLBACK;
UPDATE tx SET b = 'b4';
SELECT DISTINCT name FROM esync.tracked_column JOIN esync.tracked_table USING (table_id) WHERE relation = 'tx'::regclass ORDER BY 1;
SELECT * FROM witness.differences('tx', added => '{"b": null}');

-- NAME: a plan prepared before the DDL
CREATE TABLE prep (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('prep');
PREPARE ins AS INSERT INTO prep (id, b) VALUES ($1, $2);
PREPARE upd AS UPDATE prep SET b = $2 WHERE id = $1;
EXECUTE ins (1, 'x');
EXECUTE upd (1, 'y');
ALTER TABLE prep DROP COLUMN a;
ALTER TABLE prep ADD COLUMN c int DEFAULT 3;
EXECUTE ins (2, 'x');
EXECUTE upd (1, 'z');
SELECT aggregate_id, version, patch, payload FROM witness.stream('prep');
SELECT * FROM witness.differences('prep', added => '{"c": 3}');
DEALLOCATE ins; DEALLOCATE upd;

-- NAME: excluded, masked and other columns of options stay what they are when renamed
CREATE TABLE opt (id int PRIMARY KEY, noise text, pin text, changed timestamptz, gone timestamptz, ten text, open text);
SELECT esync_enable('opt', exclude => '{noise}', mask => '{pin}', last_modified => '{changed}', tombstone => 'gone', tenant => 'ten');
INSERT INTO opt VALUES (1, 'SECRET', 'SECRET', NULL, NULL, 't1', 'x');
ALTER TABLE opt RENAME noise TO loud;
ALTER TABLE opt RENAME pin TO code;
ALTER TABLE opt RENAME changed TO "Changed";
ALTER TABLE opt RENAME gone TO dead;
ALTER TABLE opt RENAME ten TO "eleven/12";
ALTER TABLE opt RENAME id TO "~id";
UPDATE opt SET loud = 'SECRET2', code = 'SECRET2';
UPDATE opt SET dead = '2025-01-01 00:00+00';
INSERT INTO opt VALUES (2, 'SECRET', 'SECRET', NULL, NULL, 't2', 'y');
SELECT aggregate_id, version, event_type, patch, payload - 'Changed' - 'changed' AS payload, tenant, payload ? 'Changed' AS changed FROM witness.events('opt');
SELECT count(*) FROM witness.events('opt') e WHERE e::text ~ 'SECRET|loud|noise';
-- another column takes the free name: it is not excluded
ALTER TABLE opt RENAME open TO noise;
UPDATE opt SET noise = 'heard' WHERE "~id" = 1;
SELECT patch FROM witness.stream('opt') ORDER BY version DESC LIMIT 1;
-- a second enable keeps them by what they are called now
SELECT esync_enable('opt', notify => true);
SELECT exclude, mask, last_modified, tombstone, tenant, key_columns FROM esync.tracked_table WHERE relation = 'opt'::regclass;
UPDATE opt SET loud = 'SECRET3', code = 'SECRET3';
SELECT count(*) FROM witness.events('opt') e WHERE e::text ~ 'SECRET|loud';
SELECT * FROM esync_verify('opt');
SELECT esync_state('opt', 2) - 'Changed' AS state;
-- dropped: an option without its column does no harm
ALTER TABLE opt DROP COLUMN loud, DROP COLUMN code, DROP COLUMN dead, DROP COLUMN "eleven/12", DROP COLUMN "Changed";
UPDATE opt SET noise = 'still heard';
INSERT INTO opt VALUES (3, 'z');
SELECT aggregate_id, version, event_type, patch, payload, tenant FROM witness.events('opt') ORDER BY event_id DESC LIMIT 2;
SELECT esync_enable('opt');
SELECT exclude, mask, last_modified, tombstone, tenant FROM esync.tracked_table WHERE relation = 'opt'::regclass;
UPDATE opt SET noise = 'and again';
SELECT * FROM esync_verify('opt');

-- NAME: RENAME TABLE and SET SCHEMA: the stream goes on
CREATE SCHEMA ddl2;
ALTER TABLE tx RENAME TO "Renamed";
UPDATE "Renamed" SET b = 'after rename';
ALTER TABLE "Renamed" SET SCHEMA ddl2;
UPDATE ddl2."Renamed" SET b = 'after move';
SELECT version, patch FROM witness.stream('ddl2."Renamed"') OFFSET 5;
ALTER SCHEMA ddl2 RENAME TO ddl3;
UPDATE ddl3."Renamed" SET b = 'after schema';
SELECT aggregate_type FROM esync.tracked_table WHERE relation = 'ddl3."Renamed"'::regclass;
SELECT esync_row('ddl3."Renamed"', '1')->>'table' AS "table", count(*) FROM esync_history('ddl3."Renamed"', 1);
SELECT * FROM esync_verify('ddl3."Renamed"');
-- the former name is free for another table of another aggregate_type
CREATE TABLE tx (id int PRIMARY KEY);
SELECT code, message FROM witness.refused($$SELECT esync_enable('tx')$$);
SELECT esync_enable('tx', aggregate_type => 'tx2');

-- NAME: DROP TABLE keeps configuration and stream readable
CREATE TABLE dropped (id int PRIMARY KEY, v text);
SELECT esync_enable('dropped', exclude => '{v}');
INSERT INTO dropped VALUES (1, 'x');
SELECT table_id AS dropped FROM esync.tracked_table WHERE relation = 'dropped'::regclass \gset
DROP TABLE dropped;
SELECT relation, schema_name, table_name, aggregate_type, enabled, exclude FROM esync.tracked_table WHERE table_id = :dropped;
SELECT tbl, enabled, options->>'table' AS "table" FROM esync_status() WHERE (options->>'table_id')::int = :dropped;
SELECT aggregate_id, event_type, payload FROM esync.event WHERE table_id = :dropped;
-- a new table of that name begins a stream of its own
CREATE TABLE dropped (id int PRIMARY KEY, v text);
SELECT code FROM witness.refused($$SELECT * FROM esync_history('ddl.dropped', 1)$$);
SELECT esync_enable('dropped');
INSERT INTO dropped VALUES (1, 'y');
SELECT version, event_type, payload FROM esync_history('dropped', 1);
-- by DROP SCHEMA too; the name is that which it had in the end
CREATE SCHEMA doomed;
CREATE TABLE doomed.a (id int PRIMARY KEY);
SELECT esync_enable('doomed.a', aggregate_type => 'doomed');
ALTER TABLE doomed.a RENAME TO b;
DROP SCHEMA doomed CASCADE;
SELECT relation, schema_name, table_name, enabled FROM esync.tracked_table WHERE aggregate_type = 'doomed';
-- rolled back: still tracked
CREATE TABLE saved (id int PRIMARY KEY);
SELECT esync_enable('saved');
BEGIN;
DROP TABLE saved;
ROLLBACK;
INSERT INTO saved VALUES (1);
SELECT event_type FROM witness.stream('saved');

-- NAME: generated columns are left out
CREATE TABLE gen (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, b text);
SELECT esync_enable('gen');
INSERT INTO gen (a, b) VALUES (1, 'x');
UPDATE gen SET a = 2;
SELECT patch, payload FROM witness.stream('gen');
ALTER TABLE gen ALTER twice DROP EXPRESSION;
SELECT aggregate_id, problem, detail->'fields' AS fields FROM esync_verify('gen');
UPDATE gen SET b = 'y';
SELECT version, event_type, patch FROM witness.stream('gen') OFFSET 2;
SELECT * FROM esync_verify('gen');

-- NAME: a domain and an enum that change under their columns
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN short AS text;
CREATE TABLE dom (id int PRIMARY KEY, m mood, s short);
SELECT esync_enable('dom');
INSERT INTO dom VALUES (1, 'sad', 'abcdef');
ALTER TYPE mood ADD VALUE 'happy';
ALTER TYPE mood RENAME VALUE 'sad' TO 'blue';
ALTER DOMAIN short ADD CONSTRAINT len CHECK (length(value) < 4) NOT VALID;
UPDATE dom SET m = 'happy', s = 'abc';
SELECT version, event_type, patch FROM witness.stream('dom');
-- the label that was renamed is found; what had it, and a value that its domain no longer takes, can be read
SELECT version, state FROM esync_replay('dom', 1);

-- NAME: a composite type that changes under its column
CREATE TYPE addr AS (street text, no int);
CREATE TABLE comp (id int PRIMARY KEY, a addr);
SELECT esync_enable('comp');
INSERT INTO comp VALUES (1, ROW('Main', 1));
ALTER TYPE addr ADD ATTRIBUTE zip text;
INSERT INTO comp VALUES (2, ROW('Side', 2, 'Z'));
UPDATE comp SET a.zip = 'Y' WHERE id = 1;
ALTER TYPE addr DROP ATTRIBUTE no;
UPDATE comp SET a.street = 'Third';
SELECT aggregate_id, version, event_type, patch, payload FROM witness.stream('comp');
SELECT * FROM witness.differences('comp');

-- NAME: another type that needs no rewrite shows the same tuples otherwise: found at their next write
CREATE TABLE plain_time (id int PRIMARY KEY, at timestamptz, n int);
SELECT esync_enable('plain_time');
INSERT INTO plain_time VALUES (1, '2025-01-01 12:00Z', 1);
SELECT relfilenode AS before FROM pg_class WHERE oid = 'plain_time'::regclass \gset
ALTER TABLE plain_time ALTER at TYPE timestamp;
SELECT relfilenode = :before AS not_rewritten FROM pg_class WHERE oid = 'plain_time'::regclass;
UPDATE plain_time SET n = 2;
SELECT version, event_type, patch, payload FROM witness.stream('plain_time');
SELECT * FROM witness.differences('plain_time');

SELECT count(esync_disable(relation, true)) > 5 FROM esync.tracked_table WHERE relation IS NOT NULL AND schema_name IN ('ddl', 'ddl2', 'ddl3');
DROP SCHEMA ddl, ddl3, witness CASCADE;
