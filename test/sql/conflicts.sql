-- The ledger as users read it.  Conflicts are written by hand here: who is shown which is the subject.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE ROLE regress_esync_reads;
CREATE ROLE regress_esync_column;
CREATE ROLE regress_esync_rls;
CREATE ROLE regress_esync_none;
CREATE SCHEMA conf;
GRANT USAGE ON SCHEMA conf, witness TO PUBLIC;
CREATE TABLE conf.valve (id int PRIMARY KEY, title text, note text, pin text, street text, zip text, spec jsonb, gone_at timestamptz);
CREATE TABLE conf.tenant (id int PRIMARY KEY, owner text, v text);
SELECT esync_enable('conf.valve', mask => '{pin}', groups => '{"address": ["street", "zip"]}', json_merge => '{spec}', tombstone => 'gone_at');
SELECT esync_enable('conf.tenant');
INSERT INTO conf.valve VALUES (1, 'a', 'n', 'p', 's', 'z', '{"dim": {"length": 1}}', NULL), (2, 'b', NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE conf.valve SET title = 'x';
UPDATE conf.valve SET title = 'y', note = 'm';
INSERT INTO conf.tenant VALUES (1, 'regress_esync_rls', 'a'), (2, 'somebody', 'b');
UPDATE conf.tenant SET v = 'x';
UPDATE conf.tenant SET v = 'y';

-- a conflict between versions 2 and 3 of a row, of which the later shows; a and b are what they said
CREATE FUNCTION conf.dispute(tbl regclass, id text, field text, kind text, base jsonb, a jsonb, b jsonb, closed boolean DEFAULT false)
RETURNS void LANGUAGE sql AS $$
INSERT INTO esync.conflict (conflict_id, table_id, aggregate_id, field, kind, base_value, contenders, shown_event, shown_value,
	status, opened_at, opened_event, resolved_at, resolved_by, resolution)
SELECT nextval('esync.conflict_id_seq'), t.table_id, id, field, kind, base,
	jsonb_agg(jsonb_build_object('event_id', event_id, 'version', version, 'base_version', 1, 'device_seq', NULL, 'type', event_type,
		'user_id', CASE version WHEN 2 THEN 'ann' ELSE 'ben' END, 'device_id', NULL, 'value', CASE version WHEN 2 THEN a ELSE b END,
		'submit_timestamp', '2025-11-19T06:00:00+00:00'::text) ORDER BY version),
	max(event_id), b, CASE WHEN closed THEN 'closed' ELSE 'open' END, '2025-11-20', max(event_id),
	CASE WHEN closed THEN '2025-11-21'::timestamptz END, CASE WHEN closed THEN 'eve' END, CASE WHEN closed THEN 'superseded' END
FROM esync.tracked_table t JOIN esync.event e ON e.table_id = t.table_id AND aggregate_id = id AND version IN (2, 3)
WHERE relation = tbl GROUP BY t.table_id
$$;
CREATE TABLE conf.base AS SELECT nextval('esync.conflict_id_seq') AS n;
SELECT conf.dispute('conf.valve', '1', 'title', 'field', '"a"', '"x"', '"y"'),
	conf.dispute('conf.valve', '1', 'note', 'field', '"n"', '"o"', '"m"', true),
	conf.dispute('conf.valve', '1', 'address', 'field', '{"street": "s", "zip": "z"}', '{"street": "s1", "zip": "z1"}', '{"street": "s2", "zip": "z2"}'),
	conf.dispute('conf.valve', '1', 'spec/dim/length', 'field', '1', '2', '3'),
	conf.dispute('conf.valve', '1', NULL, 'delete_edit', NULL, 'null', '{"title": "y", "note": "m", "pin": "***", "spec/dim/length": 3}'),
	conf.dispute('conf.valve', '2', 'title', 'create_create', NULL, '"x"', '"y"'),
	conf.dispute('conf.tenant', '1', 'v', 'field', '"a"', '"x"', '"y"'),
	conf.dispute('conf.tenant', '2', 'v', 'field', '"b"', '"x"', '"y"'),
	-- of a column that has no values to be told
	conf.dispute('conf.valve', '1', 'pin', 'field', '"p"', '"q"', '"r"');
-- conflicts without their events' names, as the answers show them
CREATE VIEW conf.seen AS
SELECT conflict_id - base.n AS n, tbl, aggregate_id AS id, field, kind, base_value, shown_value,
	(SELECT string_agg(format('%s: %s', c->>'user_id', c->'value'), ', ' ORDER BY c->'event_id') FROM jsonb_array_elements(contenders) AS c) AS contenders
FROM conf.base, LATERAL esync_conflicts(after => base.n);
GRANT SELECT ON conf.seen TO PUBLIC;

-- NAME: what there is: open ones of all tables, by conflict_id; a masked column has none
SELECT * FROM conf.seen;
SELECT conflict_id - n AS n, shown_value, opened_at, resolved_at, resolved_by, resolution,
	(SELECT jsonb_agg(c - 'event_id') FROM jsonb_array_elements(contenders) AS c) AS contenders
FROM conf.base, esync_conflicts('conf.valve', status => 'closed');
SELECT c->'event_id' = to_jsonb(h.event_id) AS "event of the history", c->'shown' AS shown
FROM esync_conflicts('conf.valve', '1', field => 'title'), jsonb_array_elements(contenders) AS c, field_history('conf.valve', '1', 'title') AS h
WHERE h.version = (c->>'version')::bigint;

-- NAME: what can be asked for
CREATE FUNCTION conf.list(tbl regclass DEFAULT NULL, key text DEFAULT NULL, status text DEFAULT 'open', field name DEFAULT NULL, kind text DEFAULT NULL,
	user_id text DEFAULT NULL, after bigint DEFAULT NULL, max_rows int DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
SELECT string_agg((c.conflict_id - n) || left(c.status, 1), ' ') FROM conf.base, esync_conflicts($1, $2, $3, $4, $5, $6, coalesce($7, 0) + n, $8) AS c $$;
GRANT SELECT ON conf.base TO PUBLIC;
SELECT conf.list() AS "open", conf.list(status => 'closed') AS closed, conf.list(status => 'all') AS "all", conf.list(status => NULL) AS "null is all",
	conf.list('conf.valve') AS valve, conf.list('conf.valve', '1') AS "row", conf.list('conf.valve', '01', 'all') AS "all of the row", conf.list('conf.valve', '77') AS "no row";
SELECT conf.list(field => 'title') AS title, conf.list(field => 'zip') AS member, conf.list(field => 'address') AS "group",
	conf.list(field => 'spec') AS "column", conf.list(field => 'spec/dim/length') AS path, conf.list(field => 'spec/dim') AS inside;
-- a field that there never was, in the table or in any; a group, or a path of what is no document
SELECT a, code, message, hint FROM unnest(ARRAY['''conf.valve'', field => ''none''', 'field => ''none''', '''conf.valve'', field => ''title/x''', '''conf.valve'', field => ''none/x''', '''conf.valve'', ''1'', field => ''''', '''conf.valve'', field => ''v''', 'field => ''v''', '''conf.tenant'', field => ''title''', '''conf.valve'', field => ''note''']) AS a,
	witness.refused(format('SELECT esync_conflicts(%s)', a));
SELECT conf.list(kind => 'field') AS field, conf.list(kind => 'delete_edit') AS delete_edit, conf.list(kind => 'create_create') AS create_create,
	conf.list(kind => 'orphan') AS orphan, conf.list(user_id => 'ann') = conf.list() AS ann, conf.list(user_id => 'eve', status => 'all') AS eve;
SELECT conf.list(after => 0, max_rows => 2) AS "page 1", conf.list(after => 3, max_rows => 2) AS "page 2", conf.list(after => 5, max_rows => 2) AS "page 3",
	conf.list(after => 7, max_rows => 2) AS "page 4", conf.list(after => 8, max_rows => 2) AS "page 5", conf.list(max_rows => 0) AS "none",
	conf.list(status => 'all', max_rows => 3) AS "of both", conf.list(status => 'all', after => 1, max_rows => 2) AS "and after";
SELECT code, message, hint FROM unnest(ARRAY['status => ''opened''', 'status => ''''', 'kind => ''Field''', 'max_rows => -1', 'key => ''1''']) AS a, witness.refused(format('SELECT esync_conflicts(%s)', a));
SELECT code, message FROM unnest(ARRAY['esync.event', 'pg_class']) AS t, witness.refused(format('SELECT esync_conflicts(%L)', t));
SELECT code, message FROM witness.refused($$SELECT esync_conflicts('conf.valve', 'x')$$);

-- NAME: what others make of it
SELECT field, version, value, status FROM field_history('conf.valve', '1') WHERE status <> 'current';
SELECT regexp_replace(line, '^.*?v(?=\d)', 'v') AS line FROM esync_graph('conf.valve', 1) AS line;
SELECT c->>'field' AS field, c->>'status' AS status, c->>'kind' AS kind FROM jsonb_array_elements(esync_row('conf.valve', '1')->'conflicts') AS c;
SELECT tbl, open_conflicts FROM esync_status() WHERE tbl IN ('conf.valve'::regclass, 'conf.tenant'::regclass) ORDER BY tbl::text;

-- NAME: a column was renamed, another bears its name now, and one is gone
BEGIN;
ALTER TABLE conf.valve RENAME title TO heading;
ALTER TABLE conf.valve RENAME note TO title;
ALTER TABLE conf.valve DROP COLUMN spec;
SELECT n, field, contenders FROM conf.seen WHERE tbl = 'conf.valve'::regclass;
SELECT conf.list(field => 'title') AS title, conf.list(field => 'title', status => 'closed') AS "title, closed", conf.list(field => 'heading') AS heading;
-- by a name that a column had, where none has it; by that of one that is gone, and of a group that is
ALTER TABLE conf.valve RENAME title TO remark;
ALTER TABLE conf.valve RENAME heading TO head;
SELECT conf.list(field => 'heading') AS heading, conf.list(field => 'head') AS head, conf.list(field => 'title') AS "title, the latest", conf.list(field => 'spec') AS spec, conf.list(field => 'spec/dim/length') AS path;
SELECT (SELECT groups FROM esync.tracked_table WHERE relation = 'conf.valve'::regclass) AS groups \gset
SELECT conf.list(field => k) AS "group" FROM jsonb_object_keys(:'groups') AS k;
SELECT esync_enable('conf.valve', groups => '{}');
SELECT conf.list('conf.valve', field => k) AS "group that is no more" FROM jsonb_object_keys(:'groups') AS k;
SELECT field, version, value, status FROM field_history('conf.valve', '1') WHERE status IN ('conflict', 'lost');
ROLLBACK;

-- NAME: who may read one column is shown conflicts about it alone, and of groups and rows what lies in it
GRANT SELECT ON conf.valve TO regress_esync_reads;
GRANT SELECT (id, title, zip) ON conf.valve TO regress_esync_column;
GRANT SELECT (v) ON conf.tenant TO regress_esync_column;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA conf TO PUBLIC;
SET ROLE regress_esync_reads;
SELECT conf.list(), conf.list(status => 'all');
SELECT tbl, open_conflicts FROM esync_status() WHERE tbl IN ('conf.valve'::regclass, 'conf.tenant'::regclass) ORDER BY tbl::text;
SELECT code, message FROM witness.refused($$SELECT esync_conflicts('conf.tenant')$$);
SELECT code FROM witness.refused($$SELECT * FROM esync.conflict$$) UNION ALL SELECT code FROM witness.refused($$SELECT nextval('esync.conflict_id_seq')$$);
SET ROLE regress_esync_column;
-- without the key the rows of the other table have no name
SELECT * FROM conf.seen;
SELECT conf.list('conf.valve', '1', 'all') AS "all of the row", conf.list(field => 'spec') AS spec, conf.list('conf.tenant', '1') AS named;
SELECT field, version, status FROM field_history('conf.valve', '1') WHERE status IN ('conflict', 'lost');
SELECT regexp_replace(line, '^.*?v(?=\d)', 'v') AS line FROM esync_graph('conf.valve', 1) AS line;
SELECT tbl, open_conflicts FROM esync_status() WHERE tbl IN ('conf.valve'::regclass, 'conf.tenant'::regclass) ORDER BY tbl::text;
SET ROLE regress_esync_none;
SELECT conf.list(), conf.list(status => 'all');
SELECT tbl, open_conflicts FROM esync_status() WHERE tbl IN ('conf.valve'::regclass, 'conf.tenant'::regclass) ORDER BY tbl::text;
SELECT code FROM witness.refused($$SELECT esync_conflicts('conf.valve')$$);
RESET ROLE;

-- NAME: one table spoils nothing for the others: its key column is gone, or it is gone itself
BEGIN;
ALTER TABLE conf.tenant DROP COLUMN id;
SELECT conf.list();
ROLLBACK;
BEGIN;
DROP TABLE conf.tenant;
SELECT conf.list();
SELECT count(*) FROM esync.conflict, conf.base WHERE conflict_id > n AND field = 'v';
SELECT open_conflicts FROM esync_status() WHERE tbl IS NULL AND options->>'table' = 'tenant';
ROLLBACK;

-- NAME: row policies: only conflicts of rows that they show, and of their present life
GRANT SELECT ON conf.tenant TO regress_esync_rls;
ALTER TABLE conf.tenant ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON conf.tenant USING (owner = current_user);
SET ROLE regress_esync_rls;
SELECT * FROM conf.seen;
SELECT conf.list('conf.tenant', '2') AS hidden, conf.list('conf.tenant', '77') AS "never was";
SELECT tbl, open_conflicts FROM esync_status() WHERE tbl = 'conf.tenant'::regclass;
RESET ROLE;
DELETE FROM conf.tenant;
SET ROLE regress_esync_rls;
SELECT conf.list('conf.tenant', '1') AS gone;
RESET ROLE;
-- one's own row with a key that was borne before by another's, which had a conflict
INSERT INTO conf.tenant VALUES (2, 'regress_esync_rls', 'new');
SET ROLE regress_esync_rls;
SELECT count(*) FROM esync_conflicts('conf.tenant', status => 'all');
RESET ROLE;
SELECT conf.list('conf.tenant', status => 'all') AS "whoever reads all";

-- NAME: esync_verify: contenders that are no events, and flags that do not agree
SELECT aggregate_id, problem, detail->'field' AS field, detail->'flag' AS flag, detail ? 'missing_events' AS missing
FROM esync_verify('conf.valve') ORDER BY (detail->>'conflict_id')::bigint;
UPDATE esync.event e SET flags = flags | 128 FROM esync.tracked_table t
WHERE t.relation = 'conf.valve'::regclass AND t.table_id = e.table_id AND version = 3;
SELECT * FROM esync_verify('conf.valve');
DELETE FROM esync.conflict USING conf.base WHERE conflict_id > n AND aggregate_id = '2';
UPDATE esync.conflict SET contenders = jsonb_set(contenders, '{0,event_id}', '0') FROM conf.base WHERE conflict_id > n AND field = 'address';
SELECT aggregate_id, problem, detail - 'conflict_id' - 'event_id' AS detail FROM esync_verify('conf.valve');
SELECT aggregate_id, problem FROM esync_verify('conf.valve', '1') UNION ALL SELECT aggregate_id, problem FROM esync_verify('conf.valve', '2');

-- NAME: the history goes, and the ledger with it
SELECT count(*) > 0 AS "there is some" FROM esync.conflict, conf.base WHERE conflict_id > n;
SELECT esync_disable('conf.valve');
SELECT conf.list('conf.valve', '1');
SELECT esync_disable('conf.valve', true), esync_disable('conf.tenant', true);
SELECT count(*) FROM esync.conflict, conf.base WHERE conflict_id > n;
SELECT conf.list();

DROP SCHEMA conf CASCADE;
DROP SCHEMA witness CASCADE;
DROP ROLE regress_esync_reads, regress_esync_column, regress_esync_rls, regress_esync_none;
