-- Switching: options, idempotence, re-enable, and every bad input.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA en;
SET search_path = en, public;
CREATE VIEW options AS SELECT aggregate_type, enabled, mode, payload, key_columns, key, exclude, mask, last_modified, tombstone, tenant, notify, retention
FROM esync.tracked_table WHERE schema_name = 'en';
CREATE TABLE t (id int PRIMARY KEY, a text, b text, c text, d timestamptz, e timestamptz, "Mixed" text);

-- NAME: enable is one call, with the defaults of the reference
SELECT esync_enable('t');
SELECT * FROM options;
SELECT tgname, pg_get_triggerdef(oid), tgenabled FROM pg_trigger WHERE tgrelid = 't'::regclass ORDER BY tgname;
-- the leaf: of the owner of the extension, with its three indexes, attached
SELECT inhparent::regclass, regexp_replace(pg_get_expr(c.relpartbound, c.oid), '[0-9]+', 'N') AS bound, c.relowner = e.extowner AS "of the extension's owner",
	regexp_replace(pg_get_indexdef(i.indexrelid), '[0-9]+', 'N', 'g') AS index
FROM esync.tracked_table t JOIN pg_class c ON c.oid = ('esync.event_' || t.table_id)::regclass
JOIN pg_inherits ON inhrelid = c.oid JOIN pg_index i ON i.indrelid = c.oid JOIN pg_extension e ON extname = 'esync'
WHERE t.relation = 't'::regclass ORDER BY 4;
SELECT count(*) AS "members of the extension" FROM pg_depend WHERE deptype = 'e' AND objid IN (SELECT ('esync.event_' || table_id)::regclass FROM esync.tracked_table WHERE relation = 't'::regclass);

-- NAME: idempotent: a second call changes nothing
SELECT esync_enable('t');
SELECT count(*) FROM options;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass;

-- NAME: a second call changes the options given, and keeps the others
SELECT esync_enable('t', exclude => '{b}', mask => '{c,Mixed}', last_modified => '{d}', tombstone => 'e', tenant => 'a', retention => '1 year', notify => true,
	aggregate_type => 'thing', payload => 'changes');
SELECT * FROM options;
SELECT esync_enable('t', mask => '{Mixed}');
SELECT * FROM options;
SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 't'::regclass AND tgname !~ '^0';
SELECT esync_enable('t', exclude => '{}', mask => '{}', last_modified => '{}', tombstone => '', tenant => '', retention => '0', notify => false);
SELECT * FROM options;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass;
-- a failed change leaves all as it was
SELECT code FROM witness.refused($$SELECT esync_enable('t', mask => '{c}', exclude => '{nope}')$$);
SELECT payload, mask FROM options;

-- NAME: disable drops the triggers and keeps history; a second one is harmless
INSERT INTO t (id, a) VALUES (1, 'recorded');
SELECT esync_disable('t');
SELECT esync_disable('t');
SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass;
UPDATE t SET a = 'not recorded';
SELECT enabled, aggregate_type FROM options;
SELECT version, event_type, payload->'a' AS a FROM esync_history('t', 1);
SELECT tbl, enabled, events, aggregates FROM esync_status() WHERE tbl = 't'::regclass;

-- NAME: enabled again it goes on where it stopped, with its options
SELECT esync_enable('t');
UPDATE t SET a = 'recorded again';
SELECT version, event_type, patch FROM witness.stream('t');
SELECT * FROM witness.differences('t');
SELECT aggregate_type, payload FROM options;

-- NAME: drop_history takes everything along; enabling then begins anew
SELECT table_id AS old FROM esync.tracked_table WHERE relation = 't'::regclass \gset
SELECT esync_disable('t', drop_history => true);
SELECT to_regclass('esync.event_' || :old), count(*) FROM options GROUP BY 1;
SELECT count(*) FROM options;
SELECT count(*) FROM esync.tracked_column WHERE table_id = :old;
SELECT esync_enable('t');
UPDATE t SET a = 'afresh';
SELECT version, event_type, payload - '{b,c,d,e,Mixed}'::text[] AS payload FROM witness.stream('t');

-- NAME: enable rolled back leaves nothing
BEGIN;
CREATE TABLE back (id int PRIMARY KEY);
SELECT esync_enable('back');
INSERT INTO back VALUES (1);
SELECT count(*) FROM witness.events('back');
ROLLBACK;
CREATE TABLE back (id int PRIMARY KEY);
INSERT INTO back VALUES (1);
SELECT esync_enable('back');
BEGIN;
SAVEPOINT s;
SELECT esync_disable('back');
ROLLBACK TO s;
INSERT INTO back VALUES (2);
COMMIT;
SELECT aggregate_id, event_type FROM witness.stream('back');

-- NAME: a trigger of esync that was disabled or dropped by hand: esync_verify tells, enable mends
ALTER TABLE back DISABLE TRIGGER "0_esync_capture";
DROP TRIGGER "0_esync_truncate" ON back;
SELECT * FROM esync_verify('back');
SELECT esync_enable('back');
SELECT * FROM esync_verify('back');
-- ENABLE ALWAYS stays
ALTER TABLE back ENABLE ALWAYS TRIGGER "0_esync_capture";
SELECT esync_enable('back');
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'back'::regclass ORDER BY 1;

-- NAME: baseline writes one for every row, now; ground, version 1, before all time
CREATE TABLE base (id int PRIMARY KEY, a text, gone timestamptz);
INSERT INTO base VALUES (1, 'one', NULL), (2, 'two', '2025-01-01 00:00+00');
SELECT esync_enable('base', tombstone => 'gone', baseline => true);
SELECT *, '-infinity' = (SELECT max(effective_timestamp) FROM witness.events('base')) AS ground FROM witness.stream('base');
-- again: nothing to tell
SELECT esync_enable('base', baseline => true);
SELECT count(*) FROM witness.events('base');
-- and after a time of blindness, what differs
SELECT esync_disable('base');
UPDATE base SET a = 'uno' WHERE id = 1;
INSERT INTO base VALUES (3, 'three', NULL);
SELECT esync_enable('base', baseline => true);
SELECT aggregate_id, version, event_type, patch, payload, flags FROM witness.stream('base') OFFSET 2;
SELECT * FROM witness.differences('base');

-- NAME: enable takes the lock of CREATE TRIGGER, rewrites nothing and reads no row
CREATE TABLE locked (id int PRIMARY KEY, a text);
INSERT INTO locked SELECT i, 'row' FROM generate_series(1, 100) i;
SELECT pg_relation_filenode('locked') AS file \gset
BEGIN;
SELECT seq_scan + coalesce(idx_scan, 0) AS scans FROM pg_stat_xact_user_tables WHERE relid = 'locked'::regclass \gset
SELECT esync_enable('locked');
SELECT DISTINCT mode FROM pg_locks WHERE relation = 'locked'::regclass AND pid = pg_backend_pid() AND mode NOT IN ('AccessShareLock', 'RowExclusiveLock');
SELECT mode FROM pg_locks WHERE relation = 'esync.event'::regclass AND pid = pg_backend_pid() AND mode = 'AccessExclusiveLock';
SELECT seq_scan + coalesce(idx_scan, 0) - :scans AS scans FROM pg_stat_xact_user_tables WHERE relid = 'locked'::regclass;
COMMIT;
SELECT pg_relation_filenode('locked') = :file AS same_file;

-- NAME: option key: the columns of an index fit for REPLICA IDENTITY
CREATE TABLE k (a int NOT NULL, b text NOT NULL, c int, d int NOT NULL, e int NOT NULL);
SELECT * FROM witness.refused($$SELECT esync_enable('k')$$);
CREATE UNIQUE INDEX ON k (b, a) INCLUDE (c);
SELECT esync_enable('k', key => '{a,b}');
INSERT INTO k VALUES (1, 'x', NULL, 0, 0);
SELECT aggregate_id FROM witness.stream('k');
SELECT esync_disable('k', true);
SELECT r.code, n.key, r.message, r.detail FROM unnest('{"{a}","{b}","{a,b,d}","{c}","{}","{a,a,b}","{a,nope}","{NULL}","{d}"}'::text[]) n(key),
	witness.refused(format('SELECT esync_enable(''k'', key => %L)', n.key)) r;
CREATE UNIQUE INDEX partial ON k (d) WHERE e > 0;
CREATE UNIQUE INDEX expression ON k (abs(e));
ALTER TABLE k ADD CONSTRAINT late UNIQUE (e) DEFERRABLE;
CREATE UNIQUE INDEX nullable ON k (c);
SELECT n.key, r.* FROM unnest('{"{d}","{e}","{c}"}'::text[]) n(key), witness.refused(format('SELECT esync_enable(''k'', key => %L)', n.key)) r;

-- NAME: key with a deferrable primary key alone: refused
CREATE TABLE dk (id int PRIMARY KEY DEFERRABLE);
SELECT * FROM witness.refused($$SELECT esync_enable('dk')$$);
SELECT code FROM witness.refused($$SELECT esync_enable('dk', key => '{id}')$$);

-- NAME: key types whose equal values may differ: refused
CREATE TABLE kj (id jsonb PRIMARY KEY);
CREATE TABLE ki (id interval PRIMARY KEY);
CREATE TABLE kn (id numrange PRIMARY KEY);
CREATE TYPE comp AS (a numeric);
CREATE TABLE kc (id comp PRIMARY KEY);
CREATE TABLE kna (id numeric[] PRIMARY KEY);
CREATE DOMAIN di AS interval;
CREATE TABLE kd (id int, j di, PRIMARY KEY (id, j));
CREATE TABLE kb (id char(5) PRIMARY KEY);
CREATE TABLE ktt (id timetz PRIMARY KEY);
SELECT n.t, r.code, r.message FROM unnest('{kj,ki,kn,kc,kna,kd}'::text[]) n(t), witness.refused(format('SELECT esync_enable(%L)', n.t)) r;
SELECT detail, hint FROM witness.refused($$SELECT esync_enable('kj')$$);
-- a collation whose equality is not that of bytes, where the server has ICU
DO $$
BEGIN
	CREATE COLLATION en.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	CREATE TABLE en.kicu (id text COLLATE en.blind PRIMARY KEY);
EXCEPTION WHEN feature_not_supported THEN
	RETURN;
END $$;
SELECT r.code, r.message FROM (SELECT DISTINCT 1 FROM pg_class) x, witness.refused(CASE WHEN to_regclass('en.kicu') IS NULL THEN $$SELECT esync_enable('kj')$$ ELSE $$SELECT esync_enable('kicu')$$ END) r
WHERE r.code <> 'YS002';

-- NAME: what is no table, or none of the user's: refused
CREATE VIEW vw AS SELECT * FROM t;
CREATE MATERIALIZED VIEW mv AS SELECT * FROM t;
CREATE FOREIGN DATA WRAPPER en_fdw;
CREATE SERVER en_server FOREIGN DATA WRAPPER en_fdw;
CREATE FOREIGN TABLE ft (id int NOT NULL) SERVER en_server;
CREATE TEMP TABLE tt (id int PRIMARY KEY);
CREATE SEQUENCE sq;
CREATE TYPE ct AS (id int);
CREATE INDEX ix ON t (a);
SELECT n.t, r.* FROM unnest('{vw,mv,ft,pg_temp.tt,sq,ct,ix,pg_class,information_schema.sql_features,esync.tracked_table,esync.event}'::text[]) n(t),
	witness.refused(format('SELECT esync_enable(%L)', n.t)) r;
SELECT * FROM witness.refused($$SELECT esync_enable('nope')$$);
SELECT * FROM witness.refused($$SELECT esync_enable(NULL)$$);
SELECT * FROM witness.refused($$SELECT esync_enable(0)$$);
SELECT * FROM witness.refused($$SELECT esync_enable(999999999)$$);
SELECT * FROM witness.refused($$SELECT esync_disable(999999999)$$);
SELECT esync_disable(NULL);
-- an unlogged table is a table
CREATE UNLOGGED TABLE ul (id int PRIMARY KEY);
SELECT esync_enable('ul');

-- NAME: unknown column in each option
SELECT n.o, r.code, r.message FROM unnest('{"exclude => ''{nope}''","mask => ''{mixed}''","last_modified => ''{nope}''","tombstone => ''nope''","tenant => ''nope''","key => ''{nope}''","exclude => ''{NULL}''","mask => ''{ctid}''"}'::text[]) n(o),
	witness.refused(format('SELECT esync_enable(''t'', %s)', n.o)) r;
SELECT hint FROM witness.refused($$SELECT esync_enable('t', mask => '{mixed}')$$);

-- NAME: columns that cannot play their part
CREATE TABLE parts (id int PRIMARY KEY, ts timestamp, tz timestamptz, nn timestamptz NOT NULL, n int, d date, g timestamptz GENERATED ALWAYS AS ('2025-01-01 00:00+00'::timestamptz) STORED);
SELECT n.o, r.* FROM unnest('{"tombstone => ''ts''","tombstone => ''d''","tombstone => ''nn''","tombstone => ''g''","last_modified => ''{ts}''","last_modified => ''{tz,n}''","last_modified => ''{g}''"}'::text[]) n(o),
	witness.refused(format('SELECT esync_enable(''parts'', %s)', n.o)) r;

-- NAME: contradicting options
SELECT n.o, r.code, r.message FROM unnest('{"exclude => ''{id}''","mask => ''{id}''","exclude => ''{tz}'', tombstone => ''tz''","mask => ''{tz}'', tombstone => ''tz''","last_modified => ''{tz}'', tombstone => ''tz''","exclude => ''{n}'', mask => ''{n}''","exclude => ''{n}'', tenant => ''n''","mask => ''{n}'', tenant => ''n''","exclude => ''{nn}'', last_modified => ''{nn}''"}'::text[]) n(o),
	witness.refused(format('SELECT esync_enable(''parts'', %s)', n.o)) r;
SELECT hint FROM witness.refused($$SELECT esync_enable('parts', mask => '{id}')$$);
-- the tenant may be part of the key
SELECT code FROM witness.refused($$SELECT esync_enable('parts', tenant => 'id')$$);

-- NAME: values of options that mean nothing
SELECT n.o, r.* FROM unnest('{"mode => ''nope''","payload => ''nope''","aggregate_type => ''''","retention => ''-1 day''","on_conflict => ''nope''"}'::text[]) n(o),
	witness.refused(format('SELECT esync_enable(''parts'', %s)', n.o)) r;

-- NAME: aggregate_type taken by another table
CREATE SCHEMA en2;
CREATE TABLE en2.t (id int PRIMARY KEY);
SELECT * FROM witness.refused($$SELECT esync_enable('en2.t')$$);
SELECT code FROM witness.refused($$SELECT esync_enable('en2.t', aggregate_type => 't')$$);
SELECT esync_enable('en2.t', aggregate_type => 'en2.t');

-- NAME: options of work not there yet: feature_not_supported
SELECT n.o, r.* FROM unnest('{"mode => ''last_modified''"}'::text[]) n(o),
	witness.refused(format('SELECT esync_enable(''parts'', %s)', n.o)) r;

-- NAME: a trigger that is not esync's bears the name of one that is
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TABLE taken (id int PRIMARY KEY);
CREATE TRIGGER "0_esync_capture" AFTER INSERT ON taken FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT * FROM witness.refused($$SELECT esync_enable('taken')$$);

-- NAME: partition of a tracked table, and the other way round
CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
SELECT esync_enable('p');
SELECT * FROM witness.refused($$SELECT esync_enable('p1')$$);
SELECT * FROM witness.refused($$SELECT esync_disable('p1')$$);
SELECT * FROM witness.refused($$SELECT esync_state('p1', 1)$$);
SELECT esync_disable('p');
SELECT esync_enable('p1');
SELECT * FROM witness.refused($$SELECT esync_enable('p')$$);

-- NAME: untracked table in every reader, and in disable: YS001
CREATE TABLE un (id int PRIMARY KEY);
SELECT n.f, r.code, r.message FROM unnest('{field_history,esync_history,esync_replay,esync_state,esync_version,esync_timeline,esync_graph,esync_row}'::text[]) n(f),
	witness.refused(format('SELECT %s(''un'', ''1'')', n.f)) r;
SELECT * FROM witness.refused($$SELECT esync_verify('un')$$);
SELECT * FROM witness.refused($$SELECT esync_as_of(NULL::un, now())$$);
SELECT * FROM witness.refused($$SELECT esync_disable('un')$$);
SELECT * FROM witness.refused($$SELECT esync_as_of(1, now())$$);

-- NAME: a key that does not fit the table
CREATE TABLE two (a int, b text, PRIMARY KEY (a, b));
SELECT esync_enable('two');
SELECT n.k, r.* FROM unnest(ARRAY[$$'x'$$, $$ROW(1, 2)$$, $$''$$, $$NULL::int$$, $$NULL$$]) n(k), witness.refused(format('SELECT esync_state(''t'', %s)', n.k)) r;
SELECT n.k, r.* FROM unnest(ARRAY[$$1$$, $$'x'$$, $$ROW(1)$$, $$ROW(1, 'x', 2)$$, $$ROW(1, NULL)$$, $$ROW('x', 'x')$$, $$'[1]'$$, $$'["x", "y"]'$$, $$'{"a": 1}'$$, $$'{"a": 1, "c": 2}'$$, $$'[1, null]'$$,
	$$'{"a": 1, "b": "x"}'$$]) n(k), witness.refused(format('SELECT esync_state(''two'', %s)', n.k)) r;
SELECT code, message FROM witness.refused($$SELECT esync_state('two', '[1, "x')$$);
SELECT code FROM witness.refused($$SELECT esync_state('t', now())$$);

-- NAME: a primary key that changes under esync: an error that says what to do, never a skip
CREATE TABLE pk (a int PRIMARY KEY, b int NOT NULL);
SELECT esync_enable('pk');
INSERT INTO pk VALUES (1, 10);
ALTER TABLE pk DROP CONSTRAINT pk_pkey;
SELECT * FROM esync_verify('pk');
ALTER TABLE pk DROP COLUMN a;
SELECT * FROM witness.refused($$INSERT INTO pk VALUES (11)$$);
SELECT code, message FROM witness.refused($$SELECT esync_enable('pk')$$);
ALTER TABLE pk ADD PRIMARY KEY (b);
SELECT * FROM witness.refused($$SELECT esync_enable('pk')$$);
SELECT esync_disable('pk');
INSERT INTO pk VALUES (11);
SELECT code FROM witness.refused($$SELECT esync_enable('pk')$$);
SELECT esync_disable('pk', drop_history => true);
SELECT esync_enable('pk');
INSERT INTO pk VALUES (12);
UPDATE pk SET b = 13 WHERE b = 11;
SELECT aggregate_id, version, event_type FROM witness.stream('pk');
-- the same columns in another index are the same key
CREATE TABLE pk2 (a int NOT NULL UNIQUE, b int PRIMARY KEY);
SELECT esync_enable('pk2', key => '{a}');
INSERT INTO pk2 VALUES (1, 10);
SELECT code FROM witness.refused($$SELECT esync_enable('pk2', key => '{}')$$);
SELECT code FROM witness.refused($$SELECT esync_enable('pk2', key => '{b}')$$);
ALTER TABLE pk2 DROP CONSTRAINT pk2_pkey, ADD PRIMARY KEY (a), ADD UNIQUE (b);
SELECT esync_enable('pk2', key => '{}');
INSERT INTO pk2 VALUES (2, 20);
SELECT aggregate_id FROM witness.stream('pk2');

-- NAME: temporal (WITHOUT OVERLAPS) keys, where the server has them; a range in a key on any
DO $$
BEGIN
	EXECUTE format('CREATE TABLE en.temporal (id int4range, valid daterange, v text, PRIMARY KEY (id, valid%s))',
		CASE WHEN current_setting('server_version_num')::int >= 180000 THEN ' WITHOUT OVERLAPS' ELSE '' END);
END $$;
SELECT esync_enable('temporal');
INSERT INTO temporal VALUES ('[1,1]', '[2025-01-01,2025-12-31]', 'a'), ('[1,1]', '[2026-01-01,)', 'b');
UPDATE temporal SET v = 'A' WHERE valid @> date '2025-06-01';
UPDATE temporal SET valid = '[2025-01-01,2025-06-30]' WHERE v = 'A';
SELECT aggregate_id, version, event_type, payload->>'v' AS v, flags FROM witness.stream('temporal');
SELECT * FROM witness.differences('temporal');

-- NAME: DROP EXTENSION: its triggers go with it, and writes go on
BEGIN;
CREATE TABLE dx (id int PRIMARY KEY, v text);
SELECT esync_enable('dx', last_modified => '{}');
INSERT INTO dx VALUES (1, 'a');
SAVEPOINT s;
\set VERBOSITY sqlstate
DROP EXTENSION esync;
\set VERBOSITY default
ROLLBACK TO s;
DROP EXTENSION esync CASCADE;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'dx'::regclass;
UPDATE dx SET v = 'b';
SELECT to_regnamespace('esync'), count(*) FROM pg_class WHERE relname ~ '^event_[0-9]+';
ROLLBACK;
INSERT INTO back VALUES (3);
SELECT aggregate_id, event_type FROM witness.stream('back');

SELECT count(esync_disable(relation, true)) FROM esync.tracked_table WHERE relation IS NOT NULL AND schema_name IN ('en', 'en2');
DROP SERVER en_server CASCADE;
DROP FOREIGN DATA WRAPPER en_fdw;
DROP SCHEMA en, en2, witness CASCADE;
