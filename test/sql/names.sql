-- Names of tables, columns, schemas and roles that need care.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';

-- NAME: quotes, upper case, dots and spaces in schema, table and column
CREATE SCHEMA "Sch""e.ma";
CREATE TABLE "Sch""e.ma"."Ta b""le.1" ("I d" int PRIMARY KEY, "Mixed" text, "quo""te" text, "a.b" text, "select" text, "'" text, "%s" text, "ÄÖ" text, "back\slash" text, " " text);
SELECT esync_enable('"Sch""e.ma"."Ta b""le.1"');
INSERT INTO "Sch""e.ma"."Ta b""le.1" VALUES (1, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i');
UPDATE "Sch""e.ma"."Ta b""le.1" SET "Mixed" = 'A', "quo""te" = 'B', "a.b" = 'C', "select" = 'D', "'" = 'E', "%s" = 'F', "ÄÖ" = 'G', "back\slash" = 'H', " " = 'I';
SELECT jsonb_pretty(patch) AS patch, payload FROM witness.stream('"Sch""e.ma"."Ta b""le.1"') WHERE version = 2;
SELECT field, value, previous_value FROM field_history('"Sch""e.ma"."Ta b""le.1"', 1) WHERE version = 2;
SELECT value FROM field_history('"Sch""e.ma"."Ta b""le.1"', 1, 'quo"te');
SELECT esync_row('"Sch""e.ma"."Ta b""le.1"', '1')->'table' AS "table", esync_row('"Sch""e.ma"."Ta b""le.1"', '1')->'key' AS key;
SELECT * FROM esync_as_of(NULL::"Sch""e.ma"."Ta b""le.1", 'infinity');
SELECT * FROM witness.differences('"Sch""e.ma"."Ta b""le.1"');
SELECT code, message, hint FROM witness.refused($$SELECT esync_state('"Sch""e.ma"."Ta b""le.1"', 'x')$$);
SELECT esync_enable('"Sch""e.ma"."Ta b""le.1"', mask => '{"quo\"te","%s"}', exclude => ARRAY['a.b', ' ']::name[], last_modified => '{}');
UPDATE "Sch""e.ma"."Ta b""le.1" SET "quo""te" = 'S', "%s" = 'S', "a.b" = 'S', " " = 'S';
SELECT patch, payload FROM witness.stream('"Sch""e.ma"."Ta b""le.1"') WHERE version = 3;
SELECT esync_disable('"Sch""e.ma"."Ta b""le.1"');
SELECT esync_enable('"Sch""e.ma"."Ta b""le.1"', baseline => true);
SELECT * FROM witness.differences('"Sch""e.ma"."Ta b""le.1"');

CREATE SCHEMA nm;
SET search_path = nm, public;

-- NAME: / and ~ in column names are escaped in patches, and found again
CREATE TABLE ptr (id int PRIMARY KEY, "/" text, "~" text, "~1" text, "~0" text, "a/b~c" text, "0" text, "-" text);
SELECT esync_enable('ptr');
INSERT INTO ptr VALUES (1);
UPDATE ptr SET "/" = 'slash', "~" = 'tilde', "~1" = 'tilde one', "~0" = 'tilde zero', "a/b~c" = 'all', "0" = 'zero', "-" = 'dash';
SELECT op->>'path' AS path, op->>'value' AS value FROM witness.stream('ptr') s, jsonb_array_elements(s.patch) op WHERE s.version = 2;
SELECT field, value FROM field_history('ptr', 1) WHERE version = 2;
SELECT esync_state('ptr', 1);
SELECT * FROM witness.differences('ptr');

-- NAME: 63 bytes, also of letters of two bytes
SELECT repeat('x', 63) AS t63, repeat('ü', 31) || 'y' AS c63, repeat('k', 63) AS k63 \gset
CREATE TABLE :"t63" (:"k63" int PRIMARY KEY, :"c63" text);
SELECT esync_enable(:'t63');
INSERT INTO :"t63" VALUES (1, 'a');
UPDATE :"t63" SET :"c63" = 'b';
SELECT event_type, patch, payload FROM witness.stream(:'t63');
SELECT field, value FROM field_history(:'t63', 1, :'c63');
SELECT esync_row(:'t63', '1')->'key' AS key;
SELECT aggregate_type FROM esync.tracked_table WHERE relation = :'t63'::regclass;
ALTER TABLE :"t63" RENAME :"c63" TO c;
UPDATE :"t63" SET c = 'c';
SELECT field, version, value FROM field_history(:'t63', 1, 'c');
SELECT * FROM esync_verify(:'t63');

-- NAME: role name of 63 bytes, and one with quotes
SELECT rpad('regress_esync_', 63, 'r') AS r63 \gset
CREATE ROLE :"r63";
CREATE ROLE "regress_esync_Quo""te,{d}";
CREATE TABLE who (id int PRIMARY KEY, v text);
SELECT esync_enable('who');
GRANT USAGE ON SCHEMA nm TO PUBLIC;
GRANT ALL ON who TO PUBLIC;
SET ROLE :"r63";
INSERT INTO nm.who VALUES (1, 'a');
SET ROLE "regress_esync_Quo""te,{d}";
UPDATE nm.who SET v = 'b';
RESET ROLE;
SELECT version, user_id, db_role, length(db_role) FROM witness.events('who');

-- NAME: columns named as the trigger's, SQL's and JSON's own words
CREATE TABLE words (id int PRIMARY KEY, old text, new text, tg_op text, payload text, patch text, value text, "null" text, op text, path text, version int, event_id int, "user" text, "table" text, aggregate_id text);
SELECT esync_enable('words');
INSERT INTO words (id) VALUES (1);
UPDATE words SET old = 'o', new = 'n', tg_op = 't', payload = 'p', patch = 'q', value = 'v', "null" = 'x', op = 'op', path = 'path', version = 7, event_id = 8, "user" = 'u', "table" = 't', aggregate_id = 'a';
SELECT esync_state('words', 1);
SELECT * FROM witness.differences('words');

-- NAME: keys of awkward texts
CREATE TABLE kt (k text PRIMARY KEY, v int);
SELECT esync_enable('kt');
INSERT INTO kt SELECT k, 0 FROM unnest(ARRAY['', ' ', '"', '\', '[1]', '{"k": 1}', 'NULL', E'a\nb', 'ü', '''', '%', repeat('long', 500)]) k;
UPDATE kt SET v = 1;
SELECT left(aggregate_id, 20) AS aggregate_id, length(aggregate_id), count(*) FROM witness.stream('kt') GROUP BY aggregate_id ORDER BY 1;
SELECT count(*) FROM kt WHERE esync_state('kt', k) = jsonb_build_object('k', k, 'v', 1);
SELECT * FROM witness.differences('kt');

-- NAME: the columns of a key by their present names
CREATE TABLE kc (a int, b date, c text NOT NULL UNIQUE, PRIMARY KEY (b, a));
CREATE TABLE kd (LIKE kc INCLUDING INDEXES);
SELECT esync_enable('kc'), esync_enable('kd', key => '{c}');
ALTER TABLE kc RENAME COLUMN b TO "B b";
ALTER TABLE kd RENAME COLUMN c TO d;
REVOKE SELECT ON esync.tracked_table FROM PUBLIC;
SET ROLE :"r63";
SELECT t, esync.key_columns(t::regclass) FROM unnest('{nm.kc,nm.kd,pg_class}'::text[]) t;
SELECT esync.key_columns(0), esync.key_columns(NULL);
RESET ROLE;
GRANT SELECT ON esync.tracked_table TO PUBLIC;
SELECT esync_disable('kc');
SELECT esync.key_columns('kc');
ALTER TABLE kd DROP COLUMN d;
SELECT esync.key_columns('kd');
DROP TABLE kd;

-- NAME: search_path empty, and one that puts other objects before
SET search_path = '';
INSERT INTO nm.who VALUES (2, 'empty path');
SELECT version, event_type FROM public.esync_history('nm.who', 2);
SELECT count(*) FROM public.esync_verify('nm.who');
SELECT public.esync_enable('nm.who', notify => false);
SELECT jsonb_typeof(public.esync_row('nm.who', '2'));
RESET search_path;

SELECT count(esync_disable(relation, true)) FROM esync.tracked_table WHERE schema_name IN ('nm', 'Sch"e.ma');
DROP SCHEMA nm, "Sch""e.ma", witness CASCADE;
DROP ROLE :"r63";
DROP ROLE "regress_esync_Quo""te,{d}";
