-- Who may switch, write and read.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE ROLE regress_esync_owner;
CREATE ROLE regress_esync_other;
CREATE ROLE regress_esync_reader;
CREATE ROLE regress_esync_column;
CREATE ROLE regress_esync_rls;
CREATE SCHEMA sec AUTHORIZATION regress_esync_owner;
GRANT USAGE ON SCHEMA sec, witness TO PUBLIC;

-- NAME: PUBLIC cannot execute anything that switches or writes
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'esync'
WHERE has_function_privilege('regress_esync_other', p.oid, 'EXECUTE') AND p.provolatile = 'v' ORDER BY p.oid::regprocedure::text;
SELECT has_function_privilege('regress_esync_other', p.oid, 'EXECUTE') AS executable, p.proname FROM pg_proc p WHERE p.proname IN ('esync_enable', 'esync_disable') ORDER BY 2;
SET ROLE regress_esync_owner;
CREATE TABLE sec.t (id int PRIMARY KEY, a text, b text, secret text);
SELECT code, message FROM witness.refused($$SELECT public.esync_enable('sec.t')$$);
SELECT code, message FROM witness.refused($$SELECT public.esync_disable('sec.t')$$);
SELECT code, message FROM witness.refused($$SELECT esync.enable_table('sec.t', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)$$);
SELECT code, message FROM witness.refused($$SELECT esync.disable_table('sec.t', true)$$);
SELECT code, message FROM witness.refused($$SELECT esync.make_leaf(1)$$);
RESET ROLE;

-- NAME: a non-superuser owner, granted EXECUTE, enables and disables his own table alone
GRANT EXECUTE ON FUNCTION public.esync_enable, public.esync_disable TO regress_esync_owner, regress_esync_other;
SET ROLE regress_esync_other;
SELECT code, message FROM witness.refused($$SELECT public.esync_enable('sec.t')$$);
SELECT code, message FROM witness.refused($$SELECT public.esync_disable('sec.t')$$);
SET ROLE regress_esync_owner;
INSERT INTO sec.t VALUES (1, 'a', 'b', 'old secret');
SELECT public.esync_enable('sec.t', baseline => true);
INSERT INTO sec.t VALUES (2, 'a2', 'b2', 's2');
UPDATE sec.t SET a = 'A', secret = 'new secret' WHERE id = 1;
SELECT version, event_type, patch FROM public.esync_history('sec.t', 1);
SELECT count(*) FROM public.esync_verify('sec.t');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'sec.t'::regclass ORDER BY 1;
RESET ROLE;
SELECT c.relowner = e.extowner AS "leaf belongs to the extension's owner" FROM pg_class c, pg_extension e, esync.tracked_table t WHERE e.extname = 'esync' AND t.relation = 'sec.t'::regclass AND c.oid = ('esync.event_' || t.table_id)::regclass;

-- NAME: nobody can read, write or delete events, or the configuration
SELECT 'esync.event_' || table_id AS leaf FROM esync.tracked_table WHERE relation = 'sec.t'::regclass \gset
SET ROLE regress_esync_owner;
SELECT r.code, s.statement FROM unnest(ARRAY['SELECT * FROM esync.event', 'INSERT INTO esync.event SELECT * FROM esync.event', 'DELETE FROM esync.event', 'UPDATE esync.event SET user_id = NULL', 'TRUNCATE esync.event',
	'SELECT * FROM LEAF', 'DELETE FROM LEAF', 'UPDATE LEAF SET user_id = NULL', 'TRUNCATE LEAF', 'DROP TABLE LEAF', 'ALTER TABLE esync.event DETACH PARTITION LEAF', 'CREATE INDEX ON LEAF (xid)',
	'UPDATE esync.tracked_table SET enabled = false', 'DELETE FROM esync.tracked_table', 'INSERT INTO esync.tracked_table SELECT * FROM esync.tracked_table', 'SELECT * FROM esync.tracked_column', 'SELECT * FROM esync.life',
	'SELECT nextval(''esync.event_id_seq'')', 'SELECT setval(''esync.event_id_seq'', 1)', 'CREATE TABLE esync.mine (i int)', 'DROP EXTENSION esync', 'DROP FUNCTION esync.capture() CASCADE']) s (statement),
	witness.refused(replace(s.statement, 'LEAF', :'leaf')) r;
-- the configuration, which holds no data, can be read
SELECT count(*) > 0 AS readable FROM esync.tracked_table;
RESET ROLE;

-- NAME: writing needs no right on the stream
GRANT INSERT, UPDATE, DELETE, SELECT ON sec.t TO regress_esync_other;
SET ROLE regress_esync_other;
UPDATE sec.t SET b = 'by other' WHERE id = 2;
RESET ROLE;
SELECT version, db_role FROM witness.events('sec.t') WHERE aggregate_id = '2';

-- NAME: trigger functions: PUBLIC may execute them, for owners make partitions; they refuse what is not tracked
SET ROLE regress_esync_owner;
CREATE TABLE sec.part (id int PRIMARY KEY, v text) PARTITION BY LIST (id);
SELECT public.esync_enable('sec.part');
CREATE TABLE sec.part1 PARTITION OF sec.part FOR VALUES IN (1);
INSERT INTO sec.part VALUES (1, 'x');
SELECT event_type FROM public.esync_history('sec.part', 1);
CREATE TABLE sec.forged (LIKE sec.t);
CREATE TRIGGER "0_esync_capture" AFTER INSERT OR UPDATE OR DELETE ON sec.forged FOR EACH ROW EXECUTE FUNCTION esync.capture();
SELECT * FROM witness.refused($$INSERT INTO sec.forged VALUES (1)$$);
DROP TRIGGER "0_esync_capture" ON sec.forged;
-- another name, another moment, and on a tracked table a second one
CREATE TRIGGER mine AFTER INSERT ON sec.forged FOR EACH ROW EXECUTE FUNCTION esync.capture();
SELECT * FROM witness.refused($$INSERT INTO sec.forged VALUES (1)$$);
CREATE TRIGGER twice AFTER INSERT ON sec.t FOR EACH ROW EXECUTE FUNCTION esync.capture();
SELECT code, message, hint FROM witness.refused($$INSERT INTO sec.t VALUES (99)$$);
DROP TRIGGER twice ON sec.t;
CREATE TRIGGER "~_esync_stamp" BEFORE DELETE ON sec.t FOR EACH ROW EXECUTE FUNCTION esync.stamp();
SELECT code, message FROM witness.refused($$DELETE FROM sec.t$$);
DROP TRIGGER "~_esync_stamp" ON sec.t;
SELECT code, message FROM witness.refused($$SELECT esync.capture()$$);
DROP TABLE sec.forged;
RESET ROLE;

-- NAME: who may not SELECT may read nothing
SET ROLE regress_esync_reader;
SELECT n.q, r.code, r.message FROM unnest(ARRAY['field_history(''sec.t'', 1)', 'esync_history(''sec.t'', 1)', 'esync_replay(''sec.t'', 1)', 'esync_state(''sec.t'', 1)', 'esync_timeline(''sec.t'', 1)', 'esync_graph(''sec.t'', 1)',
	'esync_row(''sec.t'', ''1'')', 'esync_verify(''sec.t'')', 'esync_as_of(NULL::sec.t, ''infinity'')', 'esync_version(''sec.t'', 1)', 'esync_suggest(''sec.t'', ''1'', ''v'')']) n(q), witness.refused('SELECT * FROM public.' || n.q) r;
SELECT events, aggregates, bytes, oldest FROM public.esync_status() WHERE tbl = 'sec.t'::regclass;
RESET ROLE;
GRANT SELECT ON sec.t TO regress_esync_reader;
SET ROLE regress_esync_reader;
SELECT count(*) FROM public.field_history('sec.t', 1);
SELECT events FROM public.esync_status() WHERE tbl = 'sec.t'::regclass;
SELECT code, message FROM witness.refused($$SELECT public.esync_enable('sec.t')$$);
RESET ROLE;

-- NAME: column grants hide fields wherever they could show
GRANT SELECT (id, a) ON sec.t TO regress_esync_column;
SET ROLE regress_esync_column;
SELECT field, version, value FROM public.field_history('sec.t', 1);
SELECT code, message FROM witness.refused($$SELECT * FROM public.field_history('sec.t', 1, 'secret')$$);
SELECT version, event_type, patch, payload FROM public.esync_history('sec.t', 1);
SELECT version, patch, state FROM public.esync_replay('sec.t', 1);
SELECT public.esync_state('sec.t', 1);
SELECT count(*) FROM public.esync_timeline('sec.t', 1) x WHERE x::text ~ 'secret|/b';
SELECT count(*) FROM public.esync_graph('sec.t', 1) x WHERE x ~ 'secret';
SELECT public.esync_row('sec.t', '1')::text ~ 'secret' AS leaks, public.esync_row('sec.t', '1')->'row' AS "row", public.esync_row('sec.t', '1')->'drift' AS drift;
SELECT code, message FROM witness.refused($$SELECT * FROM public.esync_verify('sec.t')$$);
SELECT * FROM public.esync_as_of(NULL::sec.t, 'infinity') ORDER BY id;
RESET ROLE;
-- a column that is gone needs SELECT on the table
ALTER TABLE sec.t DROP COLUMN secret;
SET ROLE regress_esync_column;
SELECT count(*) FROM public.field_history('sec.t', 1) f WHERE f.field NOT IN ('id', 'a');
SELECT count(*) FROM public.esync_history('sec.t', 1) f WHERE f::text ~ 'secret';
SET ROLE regress_esync_reader;
SELECT DISTINCT field FROM public.field_history('sec.t', 1) ORDER BY 1;
RESET ROLE;

-- NAME: RLS: history of a living row to whom its policies show it
SET ROLE regress_esync_owner;
CREATE TABLE sec.r (id int PRIMARY KEY, who text, v text);
SELECT public.esync_enable('sec.r');
INSERT INTO sec.r VALUES (1, 'regress_esync_rls', 'mine'), (2, 'another', 'not mine'), (3, 'regress_esync_rls', 'to be deleted');
UPDATE sec.r SET v = v || '!';
DELETE FROM sec.r WHERE id = 3;
ALTER TABLE sec.r ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON sec.r USING (who = current_user);
GRANT SELECT, UPDATE ON sec.r TO regress_esync_rls;
SET ROLE regress_esync_rls;
SELECT * FROM sec.r;
SELECT field, version, value FROM public.field_history('sec.r', 1);
SELECT count(*) FROM public.field_history('sec.r', 2);
SELECT count(*) FROM public.esync_history('sec.r', 2);
SELECT count(*) FROM public.esync_replay('sec.r', 2);
SELECT public.esync_state('sec.r', 2);
SELECT count(*) FROM public.esync_timeline('sec.r', 2);
SELECT count(*) FROM public.esync_graph('sec.r', 2);
SELECT * FROM public.esync_as_of(NULL::sec.r, 'infinity');
SELECT count(*) FROM public.esync_verify('sec.r');
SELECT public.esync_row('sec.r', '2');

-- NAME: RLS: of a row that is gone: key, version and deleted alone
SELECT public.esync_row('sec.r', '3');
SELECT count(*) FROM public.field_history('sec.r', 3), public.esync_history('sec.r', 3) h;
SELECT public.esync_state('sec.r', 3, 'infinity'), public.esync_version('sec.r', 3);

-- NAME: RLS: a row that became another's is no longer his to read, in its past neither
RESET ROLE;
UPDATE sec.r SET who = 'another' WHERE id = 1;
SET ROLE regress_esync_rls;
SELECT count(*) FROM public.field_history('sec.r', 1);
SELECT count(*) FROM public.esync_as_of(NULL::sec.r, 'infinity');
-- the owner, exempt from his policies, reads all; forced, he does not
SET ROLE regress_esync_owner;
SELECT count(*) FROM public.field_history('sec.r', 3);
ALTER TABLE sec.r FORCE ROW LEVEL SECURITY;
SELECT count(*) FROM public.field_history('sec.r', 3), public.esync_history('sec.r', 2) h;
-- and is recorded all the same
UPDATE sec.r SET v = 'invisible';
RESET ROLE;
UPDATE sec.r SET v = 'by superuser' WHERE id = 2;
SELECT version, event_type FROM witness.stream('sec.r') WHERE aggregate_id = '2';
-- row_security off: an error rather than a filtered answer
SET ROLE regress_esync_rls;
SET row_security = off;
SELECT code FROM witness.refused($$SELECT count(*) FROM public.field_history('sec.r', 2)$$);
RESET row_security;
RESET ROLE;

-- NAME: search_path hijack: nothing that esync calls is taken from the caller's path
CREATE SCHEMA evil;
GRANT ALL ON SCHEMA evil TO PUBLIC;
SET ROLE regress_esync_other;
CREATE FUNCTION evil.boom() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked as %', current_user; END $$;
CREATE FUNCTION evil.eq(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked = as %', current_user; END $$;
CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.eq);
CREATE FUNCTION evil.eqt(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked = as %', current_user; END $$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eqt);
CREATE FUNCTION evil.conc(jsonb, jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked || as %', current_user; END $$;
CREATE OPERATOR evil.|| (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = evil.conc);
CREATE FUNCTION evil.arrow(jsonb, text) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked -> as %', current_user; END $$;
CREATE OPERATOR evil.-> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = evil.arrow);
CREATE FUNCTION evil.count(bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT evil.boom()::bigint $$;
CREATE FUNCTION evil.nextval(regclass) RETURNS bigint LANGUAGE sql AS $$ SELECT evil.boom()::bigint $$;
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT evil.boom()::timestamptz $$;
CREATE FUNCTION evil.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS $$ SELECT evil.boom()::jsonb $$;
CREATE FUNCTION evil.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked unnest as %', current_user; END $$;
CREATE TABLE evil.tracked_table (i int);
CREATE TABLE evil.event (i int);
CREATE DOMAIN evil.jsonb AS int;
CREATE DOMAIN evil.int8 AS int;
RESET ROLE;
-- by one who is no superuser: nothing of his is run with more rights than he has
GRANT SELECT ON ALL TABLES IN SCHEMA sec TO regress_esync_other;
SET ROLE regress_esync_other;
SET search_path = evil, pg_catalog;
SELECT pg_catalog.count(s.tbl) OPERATOR(pg_catalog.>) 0 AS counted FROM public.esync_status() AS s WHERE s.events OPERATOR(pg_catalog.>) 0;
RESET search_path;
RESET ROLE;
-- by a superuser
CREATE TABLE sec.h (id int PRIMARY KEY, v text);
CREATE TEMP TABLE pg_class (oid int);
CREATE TEMP TABLE tracked_table (i int);
SET search_path = evil, pg_temp, pg_catalog;
SELECT public.esync_enable('sec.h', mask => '{}', baseline => true);
INSERT INTO sec.h VALUES (1, 'x');
UPDATE sec.h SET v = 'y';
SELECT public.esync_enable('sec.h', notify => false);
SELECT version, event_type FROM public.esync_history('sec.h', '1');
SELECT field, value FROM public.field_history('sec.h', '1');
SELECT public.esync_state('sec.h', '1'), public.esync_version('sec.h', '1'), pg_catalog.jsonb_typeof(public.esync_row('sec.h', '1'));
SELECT aggregate_id FROM public.esync_verify('sec.h');
SELECT version FROM public.esync_replay('sec.h', '1');
SELECT id FROM public.esync_as_of(NULL::sec.h, 'infinity');
SELECT events FROM public.esync_status() WHERE tbl OPERATOR(pg_catalog.=) 'sec.h'::pg_catalog.regclass;
DELETE FROM sec.h WHERE id OPERATOR(pg_catalog.=) 1;
TRUNCATE sec.h;
SELECT public.esync_disable('sec.h', true);
RESET search_path;
DROP TABLE pg_temp.pg_class, pg_temp.tracked_table;

-- NAME: every function with more rights than its caller, and every function in SQL that could be hijacked, pins search_path
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'esync'
WHERE (p.prosecdef OR l.lanname = 'plpgsql') AND NOT coalesce(p.proconfig::text ~ 'search_path=pg_catalog, pg_temp', false) ORDER BY 1::text;

-- NAME: every object of the extension has a comment
SELECT d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'esync' AND d.deptype = 'e'
WHERE d.classid IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_namespace'::regclass, 'pg_event_trigger'::regclass) AND obj_description(d.objid, d.classid::regclass::name) IS NULL;

-- NAME: a user's cast to json runs as the one who writes, in the baseline as him who enables
SET ROLE regress_esync_other;
CREATE TYPE evil.e AS ENUM ('x');
CREATE FUNCTION evil.ejson(evil.e) RETURNS json LANGUAGE sql AS $$ SELECT to_json('as ' || current_user) $$;
RESET ROLE;
CREATE CAST (evil.e AS json) WITH FUNCTION evil.ejson(evil.e);
SET ROLE regress_esync_owner;
CREATE TABLE sec.e (id int PRIMARY KEY, e evil.e);
INSERT INTO sec.e VALUES (1, 'x');
SELECT public.esync_enable('sec.e', baseline => true);
INSERT INTO sec.e VALUES (2, 'x');
RESET ROLE;
SELECT aggregate_id, event_type, payload FROM witness.stream('sec.e');

SELECT count(public.esync_disable(relation, true)) FROM esync.tracked_table WHERE relation IS NOT NULL AND schema_name = 'sec';
REVOKE EXECUTE ON FUNCTION public.esync_enable, public.esync_disable FROM regress_esync_owner, regress_esync_other;
DROP SCHEMA sec, evil, witness CASCADE;
DROP ROLE regress_esync_owner, regress_esync_other, regress_esync_reader, regress_esync_column, regress_esync_rls;
