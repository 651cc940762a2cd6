-- What becomes of values: in payload, patch and replay.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
CREATE SCHEMA vals;
SET search_path = vals, public;
CREATE TABLE v (id int PRIMARY KEY, j json, jb jsonb, n numeric, f float8, f4 float4, a int[], t text, b bytea, i interval, tz timestamptz, r regclass);
SELECT esync_enable('v');

-- NAME: json \u0000, which jsonb cannot hold, blocks no write
INSERT INTO v (id, j) VALUES (1, '{"a": "\u0000"}');
UPDATE v SET j = '["\u0000", 1e400]' WHERE id = 1;
SELECT version, event_type, patch, payload->'j' AS j FROM witness.stream('v') WHERE aggregate_id = '1';
-- 1e400 fits numeric, and jsonb
INSERT INTO v (id, j, jb) VALUES (2, '1e400', '1e400');
SELECT length(payload->>'j'), payload->'j' = payload->'jb' AS same FROM witness.stream('v') WHERE aggregate_id = '2';
-- beyond numeric it does not
INSERT INTO v (id, j) VALUES (3, '[1e200000]');
SELECT payload->'j' AS j FROM witness.stream('v') WHERE aggregate_id = '3';
-- lone surrogates: text of json accepts them, jsonb does not
INSERT INTO v (id, j) VALUES (4, '"\ud800"');
SELECT payload->'j' AS j FROM witness.stream('v') WHERE aggregate_id = '4';
SELECT * FROM esync_verify('v');
DELETE FROM v;

-- NAME: json 1 becomes "1": a change
INSERT INTO v (id, j, jb) VALUES (1, '1', '1');
UPDATE v SET j = '"1"', jb = '"1"' WHERE id = 1;
SELECT patch FROM witness.stream('v') WHERE aggregate_id = '1' ORDER BY version DESC LIMIT 1;

-- NAME: json text that differs in spaces alone is stored as it is, and a change
UPDATE v SET j = '{"b":1,"a":[ 2 ]}' WHERE id = 1;
UPDATE v SET j = '{"a": [2], "b": 1}' WHERE id = 1;
SELECT version - (SELECT max(version) FROM witness.stream('v') WHERE aggregate_id = '1') AS last, patch FROM witness.stream('v') WHERE aggregate_id = '1' ORDER BY version DESC LIMIT 2;

-- NAME: numeric 1.0 becomes 1.00: a change that replay gives back
INSERT INTO v (id, n) VALUES (5, 1.0);
UPDATE v SET n = 1.00 WHERE id = 5;
UPDATE v SET n = 1.00 WHERE id = 5;
SELECT version, patch, payload->'n' AS n FROM witness.stream('v') WHERE aggregate_id = '5';
SELECT esync_state('v', 5)->'n' AS n;
-- inside jsonb as well
INSERT INTO v (id, jb) VALUES (6, '{"n": 1.0}');
UPDATE v SET jb = '{"n": 1.00}' WHERE id = 6;
SELECT version, patch FROM witness.stream('v') WHERE aggregate_id = '6';

-- NAME: array reorder, and array contained in array, are changes
INSERT INTO v (id, a, jb) VALUES (7, '{1,2,3}', '[1,2,3]');
UPDATE v SET a = '{3,2,1}', jb = '[3,2,1]' WHERE id = 7;
UPDATE v SET a = '{3,2}', jb = '[3,2]' WHERE id = 7;
UPDATE v SET a = '{3,2,2}', jb = '[3,2,2]' WHERE id = 7;
UPDATE v SET a = '[0:2]={3,2,2}' WHERE id = 7;
SELECT version, patch FROM witness.stream('v') WHERE aggregate_id = '7';

-- NAME: NULL and json null are one to the reader, but a change
INSERT INTO v (id, jb) VALUES (8, NULL);
UPDATE v SET jb = 'null' WHERE id = 8;
UPDATE v SET jb = NULL WHERE id = 8;
SELECT version, patch, payload->'jb' AS jb FROM witness.stream('v') WHERE aggregate_id = '8';
SELECT version, value, previous_value FROM field_history('v', 8, 'jb');

-- NAME: no-op UPDATE of every type writes nothing
INSERT INTO v VALUES (9, '{"a":  1}', '{"a": 1}', 'NaN', '-0', 'Infinity', '{1,NULL}', '', '\x00ff', '1 mon -1 day', 'infinity', 'pg_class');
SELECT count(*) AS before FROM witness.stream('v') \gset
UPDATE v SET (j, jb, n, f, f4, a, t, b, i, tz, r) = (SELECT o.j, o.jb, o.n, o.f, o.f4, o.a, o.t, o.b, o.i, o.tz, o.r FROM v o WHERE o.id = v.id);
UPDATE v SET t = '', b = '\x00ff', f = '-0', n = 'NaN', i = '1 mon -1 day' WHERE id = 9;
SELECT count(*) - :before AS events FROM witness.stream('v');
-- a toasted value that is rewritten the same, compressed or not
CREATE TABLE toasted (id int PRIMARY KEY, a text, b text, n int);
ALTER TABLE toasted ALTER a SET STORAGE EXTERNAL;
SELECT esync_enable('toasted');
INSERT INTO toasted SELECT 1, s, s FROM (SELECT string_agg(md5(i::text), '') AS s FROM generate_series(1, 500) i) x;
UPDATE toasted SET a = a || '', b = b || '';
UPDATE toasted SET n = 1;
SELECT version, event_type, patch FROM witness.stream('toasted');
SELECT * FROM witness.differences('toasted');

-- NAME: -0 and 0, 'a' and 'a ' in char(n), 24:00 and a day: equal by =, other images
CREATE TABLE equal (id int PRIMARY KEY, f float8, c char(3), i interval);
SELECT esync_enable('equal');
INSERT INTO equal VALUES (1, 0, 'a', '1 day');
UPDATE equal SET f = '-0', i = '24:00';
UPDATE equal SET c = 'a  ';
SELECT version, patch FROM witness.stream('equal');

-- NAME: settings changed between events leak neither into payload nor into patch
CREATE TABLE leak (id int PRIMARY KEY, b bytea, f float8, f4 float4, i interval, tz timestamptz, ts timestamp, d date, r regclass, p regproc,
	m money, pt point, rg tstzrange, ar timestamptz[], x text);
SELECT esync_enable('leak');
INSERT INTO leak VALUES (1, '\xdeadbeef', 0.1::float8 + 0.2, 0.1, '1 year 2 mons -3 days 04:05:06.789', '2025-07-01 12:00+00', '2025-07-01 12:00', '2025-07-01',
	'vals.leak', 'pg_catalog.now', '12.34', '(0.1,0.30000000000000004)', '[2025-07-01 12:00+00,)', '{2025-07-01 12:00+00}', 'a');
SELECT payload - 'id' AS first FROM witness.stream('leak') WHERE aggregate_id = '1' \gset
CREATE FUNCTION write_under(settings text) RETURNS TABLE (same boolean, untouched boolean) LANGUAGE plpgsql AS $$
DECLARE
	pair text;
BEGIN
	FOREACH pair IN ARRAY string_to_array(settings, ';') LOOP
		PERFORM set_config(split_part(pair, '=', 1), split_part(pair, '=', 2), true);
	END LOOP;
	UPDATE vals.leak SET x = x || '+';                       -- the rest as payload
	UPDATE vals.leak SET b = b || '\x00', f = f + 1, f4 = f4 + 1, i = i + interval '1 day', tz = tz + '1 day', ts = ts + '1 day', d = d + 1, r = 'pg_class', p = 'pg_sleep',
		m = m + 1::money, pt = '(1,1)', rg = NULL, ar = NULL;
	UPDATE vals.leak SET b = '\xdeadbeef', f = 0.1::float8 + 0.2, f4 = 0.1, i = '1 year 2 mons -3 days 04:05:06.789'::interval, tz = timestamptz '2025-07-01 12:00+00',
		ts = timestamp '2025-07-01 12:00', d = date '2025-07-01', r = 'vals.leak', p = 'pg_catalog.now', m = 12.34::numeric::money, pt = point(0.1, 0.1::float8 + 0.2),
		rg = tstzrange('2025-07-01 12:00+00', NULL), ar = ARRAY[timestamptz '2025-07-01 12:00+00'], x = 'a';
	RETURN QUERY SELECT e.payload - 'id' = (SELECT s.payload - 'id' FROM witness.stream('vals.leak') s LIMIT 1)
			AND witness.apply('{"b":0,"f":0,"f4":0,"i":0,"tz":0,"ts":0,"d":0,"r":0,"p":0,"m":0,"pt":0,"rg":0,"ar":0,"x":0}', e.patch) = e.payload - 'id',
		(SELECT bool_and(current_setting(split_part(s, '=', 1)) ILIKE split_part(s, '=', 2) || '%') FROM unnest(string_to_array(settings, ';')) s)
		FROM witness.stream('vals.leak') e ORDER BY version DESC LIMIT 1;
END $$;
SELECT * FROM write_under('timezone=America/New_York');
SELECT * FROM write_under('datestyle=SQL, DMY');
SELECT * FROM write_under('datestyle=German');
SELECT * FROM write_under('intervalstyle=iso_8601');
SELECT * FROM write_under('intervalstyle=sql_standard');
SELECT * FROM write_under('extra_float_digits=-15');
SELECT * FROM write_under('extra_float_digits=0');
SELECT * FROM write_under('bytea_output=escape');
SELECT * FROM write_under('search_path=vals');
SELECT * FROM write_under('search_path=pg_temp, pg_catalog');
SELECT * FROM write_under('quote_all_identifiers=on');
SELECT * FROM write_under('timezone=Asia/Kathmandu;datestyle=Postgres, MDY;intervalstyle=postgres_verbose;extra_float_digits=-5;bytea_output=escape');
SELECT :'first'::jsonb AS payload;
SELECT * FROM witness.differences('leak');
-- replay reads them back under any setting
SET datestyle = 'German'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kathmandu'; SET bytea_output = 'escape'; SET extra_float_digits = 0;
SELECT l::text = a::text AS same FROM leak l, esync_as_of(NULL::leak, 'infinity') a;
RESET datestyle; RESET intervalstyle; RESET timezone; RESET bytea_output; RESET extra_float_digits;

-- NAME: a savepoint rolled back in the midst of an encoding leaves the settings as they were
CREATE TYPE bad AS ENUM ('fine', 'boom');
CREATE TABLE broken (id int PRIMARY KEY, i interval, b bad);
CREATE FUNCTION bad_json(bad) RETURNS json LANGUAGE plpgsql AS $$ BEGIN IF $1 = 'boom' THEN RAISE 'boom'; END IF; RETURN to_json('json of ' || $1); END $$;
CREATE CAST (bad AS json) WITH FUNCTION bad_json(bad);
SELECT esync_enable('broken');
SET timezone = 'Asia/Kathmandu'; SET intervalstyle = 'iso_8601';
INSERT INTO broken VALUES (1, '1 day', 'fine');
SELECT code, message FROM witness.refused($$INSERT INTO vals.broken VALUES (2, '1 day', 'boom')$$);
SHOW timezone; SHOW intervalstyle;
RESET timezone; RESET intervalstyle;
SELECT aggregate_id, payload FROM witness.stream('broken');
SELECT * FROM witness.differences('broken');

-- NAME: NaN, infinities and the ends of every type
CREATE TABLE ends (id int PRIMARY KEY, n numeric, f float8, f4 float4, ts timestamp, tz timestamptz, d date, i8 int8, i2 int2, t text, b bytea);
SELECT esync_enable('ends');
INSERT INTO ends VALUES (1, 'NaN', 'NaN', 'NaN', 'infinity', 'infinity', 'infinity', 9223372036854775807, 32767, E'\x01\t\n"\\/\x7f\u00e9\U0001F600', '\x'),
	(2, 'Infinity', 'Infinity', '-Infinity', '-infinity', '-infinity', '-infinity', -9223372036854775808, -32768, '', NULL),
	(3, '-Infinity', '1.7976931348623157e308', '1e-45', '4713-11-24 00:00:00 BC', '4714-11-24 00:00:00+00 BC', '5874897-12-31', 0, 0, repeat('x', 10), NULL),
	(4, 1e-1000 + 1, 5e-324, 3.4028235e38, '294276-12-31 23:59:59.999999', '0001-12-31 23:59:59+00 BC', '4714-11-24 BC', 1, 1, ' ', NULL);
SELECT payload - 'n' AS payload FROM witness.stream('ends');
SELECT * FROM witness.differences('ends');
SELECT id, a::text = e::text AS same FROM ends e JOIN esync_as_of(NULL::ends, 'infinity') a USING (id) ORDER BY id;

-- NAME: bytea and text of a megabyte
INSERT INTO ends (id, t, b) SELECT 5, repeat('0123456789', 100000), decode(repeat('00ff10', 300000), 'hex');
UPDATE ends SET t = t || 'x' WHERE id = 5;
SELECT version, length(payload->>'t'), length(payload->>'b'), jsonb_array_length(patch) FROM witness.stream('ends') WHERE aggregate_id = '5';
SELECT * FROM witness.differences('ends');

-- NAME: domains, enums, arrays, ranges, composites, and arrays and domains of these
CREATE TYPE color AS ENUM ('red', 'Grün', '"');
CREATE DOMAIN code AS text CHECK (value ~ '^[A-Z]');
CREATE DOMAIN moment AS timestamptz;
CREATE TYPE inner_t AS (at timestamptz, "q""u" color, n numeric(10,3));
CREATE TYPE outer_t AS (i inner_t, many inner_t[], c code);
CREATE DOMAIN outer_d AS outer_t CHECK ((value).c <> 'X');
CREATE TABLE rich (id int PRIMARY KEY, c color, cs color[], d code, ds code[], m moment, ms moment[], o outer_t, od outer_d, os outer_t[], rg numrange, mrg tstzmultirange, rgs int4range[],
	bits bit(5), vb varbit, net inet, mac macaddr, ts tsvector, jp jsonpath, u uuid, ch "char", nm name, bp char(4), vc varchar(3), ln pg_lsn, xi xid, ti time, tt timetz, bo bool, bx box);
SELECT esync_enable('rich');
INSERT INTO rich (id, c, cs, d, ds, m, ms, o, od, os, rg, mrg, rgs) VALUES (1, 'Grün', '{red,NULL,"\""}', 'A', '{B,C}', '2025-01-01 12:00+02', '{2025-01-01 12:00+02,NULL}',
	ROW(ROW('2025-01-01 00:00+01', '"', 1.5), ARRAY[ROW(NULL, 'red', 2)::inner_t, NULL], 'C'), ROW(NULL, NULL, 'D'),
	ARRAY[ROW(NULL, '{}', 'E')::outer_t], '[1.0,2.50)', '{[2025-01-01 00:00+01,2025-01-02 00:00+01)}', '{"[1,5)",empty}');
INSERT INTO rich (id, bits, vb, net, mac, ts, jp, u, ch, nm, bp, vc, ln, xi, ti, tt, bo, bx) VALUES (2, '10101', '1', '10.0.0.0/8', '08:00:2b:01:02:03', 'a:1 fat:2',
	'$.a[*] ? (@ > 1)', '00000000-0000-0000-0000-000000000001', 'c', 'Name', 'ab', 'abc', '16/B374D848', '42', '24:00', '12:00:00.5+05:30', true, '((0.1,0.2),(3,4))');
SELECT jsonb_strip_nulls(payload) AS payload FROM witness.stream('rich');
UPDATE rich SET o.i.n = 7 WHERE id = 1;
UPDATE rich SET cs[2] = 'Grün', od.c = 'DD' WHERE id = 1;
UPDATE rich SET (c, cs, d, ds, m, ms, o, od, os, rg, mrg, rgs, bits, vb, net, mac, ts, jp, u, ch, nm, bp, vc, ln, xi, ti, tt, bo, bx)
	= (SELECT o.c, o.cs, o.d, o.ds, o.m, o.ms, o.o, o.od, o.os, o.rg, o.mrg, o.rgs, o.bits, o.vb, o.net, o.mac, o.ts, o.jp, o.u, o.ch, o.nm, o.bp, o.vc, o.ln, o.xi, o.ti, o.tt, o.bo, o.bx
	   FROM rich o WHERE o.id = 2) WHERE id = 1;
SELECT version, jsonb_array_length(patch) FROM witness.stream('rich') WHERE version > 1;
SELECT * FROM witness.differences('rich');
SELECT id, a::text = e::text AS same FROM rich e JOIN esync_as_of(NULL::rich, 'infinity') a USING (id) ORDER BY id;

-- NAME: more columns than a function has arguments, and members whose names sort by length first
CREATE TABLE many (zz int, id int PRIMARY KEY, aaa int, b int);
DO $$ BEGIN FOR i IN 1 .. 150 LOOP EXECUTE format('ALTER TABLE vals.many ADD COLUMN c%s int DEFAULT %s', i, i); END LOOP; END $$;
SELECT esync_enable('many');
INSERT INTO many (id, zz, aaa, b) VALUES (1, 1, 2, 3);
UPDATE many SET c7 = 70, zz = 10, aaa = NULL;
SELECT patch, payload->'c150' AS c150 FROM witness.stream('many') WHERE version = 2;
SELECT * FROM witness.differences('many');

-- NAME: keys of many types have one canonical text
CREATE TABLE knum (k numeric PRIMARY KEY, v int);
CREATE TABLE kflt (k float8 PRIMARY KEY, v int);
CREATE TABLE ktz (k timestamptz PRIMARY KEY, v int);
CREATE TABLE kby (k bytea PRIMARY KEY, v int);
CREATE TABLE kenum (k color PRIMARY KEY, v int);
CREATE TABLE krng (k int4range PRIMARY KEY, v int);
CREATE TABLE karr (k int[] PRIMARY KEY, v int);
CREATE TABLE kbool (k bool, k2 date, k3 "char", v int, PRIMARY KEY (k, k2, k3));
SELECT count(esync_enable(t)) FROM unnest('{knum,kflt,ktz,kby,kenum,krng,karr,kbool}'::regclass[]) t;
INSERT INTO knum VALUES (1.0, 0), (100, 0), (0.00, 0), (-1.50, 0), (1e30, 0), ('NaN', 0);
UPDATE knum SET k = k + 0.000, v = 1;
INSERT INTO kflt VALUES (1e30, 0), ('-0', 0), (0.1, 0), ('Infinity', 0);
UPDATE kflt SET k = 0, v = 1 WHERE k = 0;
SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German';
INSERT INTO ktz VALUES ('2025-01-01 12:00+02', 0), ('infinity', 0);
SET timezone = 'UTC';
UPDATE ktz SET v = 1;
SET bytea_output = 'escape';
INSERT INTO kby VALUES ('\x00ff', 0), ('', 0);
RESET bytea_output;
UPDATE kby SET v = 1;
INSERT INTO kenum VALUES ('"', 0);
INSERT INTO krng VALUES ('[1,5]', 0), ('empty', 0);
INSERT INTO karr VALUES ('{1,2}', 0), ('{}', 0);
INSERT INTO kbool VALUES (true, '2025-01-02', 'x', 0);
RESET datestyle; RESET timezone;
UPDATE kbool SET v = 1;
SELECT t.table_name, e.aggregate_id, e.version, e.event_type FROM esync.event e JOIN esync.tracked_table t USING (table_id)
WHERE t.schema_name = 'vals' AND t.table_name ~ '^k' ORDER BY t.table_name, e.aggregate_id, e.version;
SELECT t.relation, d.* FROM esync.tracked_table t, witness.differences(t.relation) d WHERE t.table_name IN ('knum', 'kby', 'kenum', 'krng', 'karr', 'kbool');
SELECT t.relation, d.* FROM esync.tracked_table t, esync_verify(t.relation) d WHERE t.schema_name = 'vals';
-- and any spelling of it finds the row
SELECT esync_state('knum', '1.000'), esync_state('knum', 100.0), esync_state('knum', 1::int), esync_state('ktz', '2025-01-01 10:00Z'),
	esync_state('ktz', timestamptz '2025-01-01 15:45+05:45'), esync_state('kby', '\000\377'), esync_state('krng', '[1,6)'), esync_state('karr', '{ 1, 2}') AS karr,
	esync_state('kbool', ROW(true, date '2025-01-02', 'x')), esync_state('kbool', '["t", "Jan 2 2025", "x"]');

SELECT count(esync_disable(relation, true)) FROM esync.tracked_table WHERE schema_name = 'vals';
DROP SCHEMA vals, witness CASCADE;
