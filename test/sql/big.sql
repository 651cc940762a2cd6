-- Wide rows, long values, many partitions, many rows.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA big;
SET search_path = big, public;

-- NAME: a table of 1,600 columns
DO $$ BEGIN EXECUTE 'CREATE TABLE big.wide (id int PRIMARY KEY, ' || (SELECT string_agg(format('c%s %s', i, CASE WHEN i % 3 = 0 THEN 'bool' WHEN i % 3 = 1 THEN '"char"' ELSE 'int2' END), ', ') FROM generate_series(1, 1599) i) || ')'; END $$;
SELECT esync_enable('wide');
INSERT INTO wide (id, c1, c1599) VALUES (1, 'a', true);
UPDATE wide SET c2 = 2, c800 = 8, c1598 = 15;
SELECT version, patch, (SELECT count(*) FROM jsonb_object_keys(payload)) AS members FROM witness.stream('wide');
DO $$ BEGIN EXECUTE 'UPDATE big.wide SET ' || (SELECT string_agg(format('c%s = %s', i, CASE WHEN i % 3 = 0 THEN 'true' WHEN i % 3 = 1 THEN '''x''' ELSE '-' || i END), ', ') FROM generate_series(1, 1599) i); END $$;
SELECT jsonb_array_length(patch) FROM witness.stream('wide') WHERE version = 3;
SELECT count(*) FROM field_history('wide', 1);
SELECT a.* IS NOT DISTINCT FROM w.* AS same FROM esync_as_of(NULL::wide, 'infinity') a, wide w;
SELECT * FROM witness.differences('wide');
-- no room for another column, but names can change, and columns go
SELECT code FROM witness.refused('ALTER TABLE big.wide ADD COLUMN one_more int');
ALTER TABLE wide RENAME c2 TO two;
ALTER TABLE wide DROP COLUMN c3;
UPDATE wide SET two = 22;
SELECT version, value FROM field_history('wide', 1, 'two');
SELECT * FROM esync_verify('wide');

-- NAME: values in TOAST that did not change are neither fetched nor told
CREATE TABLE toast (id int PRIMARY KEY, n int, ext text, comp text, doc jsonb, bin bytea, arr text[]);
ALTER TABLE toast ALTER ext SET STORAGE EXTERNAL, ALTER bin SET STORAGE EXTERNAL;
SELECT esync_enable('toast', payload => 'changes');
INSERT INTO toast SELECT 1, 0, string_agg(md5(i::text), ''), repeat('comp', 100000), jsonb_object_agg(i, md5(i::text)), decode(string_agg(md5((-i)::text), ''), 'hex'), array_agg(md5((2 * i)::text)) FROM generate_series(1, 3000) i;
UPDATE toast SET n = 1;
UPDATE toast SET n = 2, ext = ext || 'x';
UPDATE toast SET ext = ext, comp = comp || '', doc = doc || '{}', bin = bin || '', arr = arr || '{}'::text[];
SELECT version, jsonb_path_query_array(patch, '$[*].path') AS paths, length(patch::text) > 96000 AS long, payload IS NOT NULL AS payload FROM witness.stream('toast');
SELECT * FROM witness.differences('toast');
SELECT a.* IS NOT DISTINCT FROM t.* AS same FROM esync_as_of(NULL::toast, 'infinity') a, toast t;
-- the same in mode full, and after a rewrite, and for a moved row
SELECT esync_enable('toast', payload => 'full');
UPDATE toast SET n = 3;
VACUUM FULL toast;
UPDATE toast SET n = 4;
UPDATE toast SET id = 2;
SELECT aggregate_id, version, event_type, jsonb_path_query_array(patch, '$[*].path') AS paths, (SELECT count(*) FROM jsonb_object_keys(payload)) AS members FROM witness.stream('toast') OFFSET 3;
SELECT esync_enable('toast', payload => 'changes');
SELECT * FROM witness.differences('toast');
-- an old payload is read from the stream's own TOAST
SELECT version, length(payload->>'ext') AS ext, length(payload->>'comp') AS comp FROM esync_history('toast', 2);

-- NAME: many partitions, of several levels, made before and after enable
CREATE TABLE many (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
DO $$
BEGIN
	FOR i IN 0 .. 11 LOOP
		EXECUTE format('CREATE TABLE big.many_%s PARTITION OF big.many FOR VALUES FROM (%L) TO (%L) PARTITION BY HASH (id)', i, date '2025-01-01' + make_interval(months => i), date '2025-01-01' + make_interval(months => i + 1));
		FOR j IN 0 .. 7 LOOP
			EXECUTE format('CREATE TABLE big.many_%s_%s PARTITION OF big.many_%s FOR VALUES WITH (MODULUS 8, REMAINDER %s)', i, j, i, j);
		END LOOP;
		IF i = 5 THEN
			PERFORM public.esync_enable('big.many');
		END IF;
	END LOOP;
END $$;
SELECT count(*) FROM pg_trigger WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('many')) AND tgname ~ 'esync';
SELECT count(*) FROM esync_verify('many');
INSERT INTO many SELECT i, date '2025-01-01' + i % 365, 'row' FROM generate_series(1, 2000) i;
UPDATE many SET v = 'changed' WHERE id % 3 = 0;
UPDATE many SET day = day + 31 WHERE day < '2025-12-01' AND id % 10 = 0;
DELETE FROM many WHERE id % 7 = 0;
SELECT event_type, count(*) FROM witness.stream('many') GROUP BY 1 ORDER BY 1;
SELECT * FROM witness.differences('many') LIMIT 3;
TRUNCATE many;
SELECT count(*) FROM witness.differences('many');
SELECT esync_disable('many');
SELECT count(*) FROM pg_trigger WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('many'));

-- NAME: many rows in one statement, and one row changed many times
CREATE TABLE rows (id int PRIMARY KEY, n int);
SELECT esync_enable('rows');
INSERT INTO rows SELECT i, 0 FROM generate_series(1, 20000) i;
UPDATE rows SET n = n + 1;
UPDATE rows SET id = -id WHERE id > 19000;
DELETE FROM rows WHERE id % 2 = 0;
SELECT count(*), count(DISTINCT aggregate_id), max(version) FROM witness.events('rows');
SELECT count(*) FROM witness.differences('rows');
DO $$ BEGIN FOR i IN 1 .. 2000 LOOP UPDATE big.rows SET n = i WHERE id = 1; END LOOP; END $$;
SELECT esync_version('rows', 1), esync_state('rows', 1);
SELECT count(*) FROM esync_verify('rows', '1');
-- capture keeps no memory from row to row, nor from statement to statement
SELECT sum(total_bytes) < 10 * 1024 * 1024 AS small FROM pg_backend_memory_contexts WHERE name ~ 'esync';

-- NAME: an index of many columns as key
CREATE TABLE keys (k1 int, k2 text, k3 uuid, k4 date, k5 numeric, k6 bool, k7 timestamptz, k8 bytea, v int, PRIMARY KEY (k8, k7, k6, k5, k4, k3, k2, k1));
SELECT esync_enable('keys');
INSERT INTO keys VALUES (1, 'x', '00000000-0000-0000-0000-000000000001', '2025-01-02', 1.500, true, '2025-01-02 03:04+00', '\xff', 0);
UPDATE keys SET v = 1;
SELECT aggregate_id, version FROM witness.stream('keys');
SELECT esync_version('keys', ROW('\xff'::bytea, timestamptz '2025-01-02 03:04+00', true, 1.5, date '2025-01-02', '00000000-0000-0000-0000-000000000001'::uuid, 'x', 1));

-- NAME: a key whose text is longer than an index of the stream can hold
CREATE TABLE long (k bytea PRIMARY KEY, v int);
SELECT esync_enable('long');
INSERT INTO long SELECT decode(string_agg(md5(i::text), ''), 'hex'), 0 FROM generate_series(1, 80) i;
UPDATE long SET v = 1;
SELECT length(aggregate_id), version, event_type FROM witness.stream('long');
SELECT code FROM witness.refused($$INSERT INTO big.long SELECT decode(string_agg(md5(i::text), ''), 'hex'), 0 FROM generate_series(1, 160) i$$);
SELECT count(*) FROM long;

SELECT count(esync_disable(relation, true)) FROM esync.tracked_table WHERE schema_name = 'big';
DROP SCHEMA big, witness CASCADE;
