-- Edits by callers who have grants on some columns alone: what they may read of the key and of what they name
-- is enough; what is missing is named.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE ROLE regress_esync_part;
CREATE ROLE regress_esync_seer;
CREATE SCHEMA gra;
GRANT USAGE ON SCHEMA gra, witness TO PUBLIC;
CREATE TABLE gra.t (id int, site text, a text, b text, secret text, street text, zip text, PRIMARY KEY (site, id));
CREATE TABLE gra.soft (id int PRIMARY KEY, a text, secret text, gone_at timestamptz);
CREATE TABLE gra.split (id int PRIMARY KEY, a text, secret text) PARTITION BY RANGE (id);
CREATE TABLE gra.split_1 PARTITION OF gra.split FOR VALUES FROM (1) TO (10);
CREATE TABLE gra.split_2 (secret text, x int, id int NOT NULL, a text);
ALTER TABLE gra.split_2 DROP COLUMN x;
ALTER TABLE gra.split ATTACH PARTITION gra.split_2 FOR VALUES FROM (10) TO (20);
SELECT esync_enable('gra.t', groups => '{"address": ["street", "zip"]}'), esync_enable('gra.soft', tombstone => 'gone_at'), esync_enable('gra.split');
INSERT INTO gra.t SELECT i, 'n', 'a', 'b', 'hidden', 's', 'z' FROM generate_series(1, 9) AS i;
INSERT INTO gra.soft SELECT i, 'a', 'hidden' FROM generate_series(1, 9) AS i;
INSERT INTO gra.split VALUES (1, 'a', 'hidden'), (11, 'a', 'hidden');
GRANT SELECT (id, site, a), UPDATE (a) ON gra.t TO regress_esync_part;
GRANT SELECT (id, a), UPDATE (a, gone_at), INSERT (id, a) ON gra.soft TO regress_esync_part;
GRANT SELECT (id, a), UPDATE (a), DELETE ON gra.split TO regress_esync_part;
GRANT SELECT, DELETE ON gra.split TO regress_esync_seer;
-- one edit; what is answered less what differs from run to run
CREATE FUNCTION gra.told(r jsonb) RETURNS jsonb LANGUAGE sql AS $$
SELECT jsonb_strip_nulls(r - 'id' - 'effective_timestamp' - 'duplicate' - 'ignored' - 'rejected_id' - 'retryable' - 'conflicts' || jsonb_build_object('conflicts',
	(SELECT jsonb_agg(c - 'conflict_id' - 'others' || jsonb_build_object('others', (SELECT jsonb_agg(o->'value') FROM jsonb_array_elements(c->'others') o))) FROM jsonb_array_elements(r->'conflicts') c))) $$;
CREATE FUNCTION gra.save(tbl regclass, document jsonb, base bigint DEFAULT 1, shown jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$ SELECT gra.told(public.esync_save(tbl, document, base, shown, context => '{"user_id": "part"}')) $$;

-- NAME: the columns that are named, and the key: it is merged, and the answer shows no more
SET ROLE regress_esync_part;
SELECT gra.save('gra.t', '{"id": 1, "site": "n", "a": "mine"}'), gra.save('gra.t', '{"id": 1, "site": "n", "a": "again"}', NULL), gra.save('gra.soft', '{"id": 1, "a": "mine"}'), gra.save('gra.split', '{"id": 11, "a": "mine"}');
RESET ROLE;
SELECT public.esync_save('gra.t', '{"id": 2, "site": "n", "a": "office", "secret": "other", "b": "B"}', 1)->>'status';
SET ROLE regress_esync_part;
SELECT gra.save('gra.t', '{"id": 2, "site": "n", "a": "mine"}'), gra.save('gra.t', '{"id": 3, "site": "n", "a": "mine"}', NULL, '{"a": "a"}');
SELECT jsonb_path_query_array(public.esync_submit('{"device_id": "part-tablet", "events": [
	{"id": "00000000-0000-0000-0000-0000000000c1", "table": "gra.t", "op": "update", "key": {"site": "n", "id": 4}, "base_version": 1, "set": {"a": "one"}},
	{"id": "00000000-0000-0000-0000-0000000000c2", "table": "gra.t", "op": "update", "key": {"site": "n", "id": 5}, "base_version": 1, "set": {"b": "two"}},
	{"id": "00000000-0000-0000-0000-0000000000c3", "table": "gra.soft", "op": "update", "key": 4, "base_version": 1, "set": {"a": "three"}},
	{"id": "00000000-0000-0000-0000-0000000000c4", "table": "gra.split", "op": "update", "key": 1, "base_version": 1, "set": {"a": "four"}}]}'), '$.results[*].status');
RESET ROLE;
SELECT id, a, b, secret FROM gra.t WHERE id <= 5 ORDER BY id;
SELECT 'soft' AS t, id, a, secret FROM gra.soft WHERE id IN (1, 4) UNION ALL SELECT 'split', * FROM gra.split ORDER BY 1, 2;

-- NAME: what is missing is named: to read what the edit names, in any of its parts and by any name, or to write it
ALTER TABLE gra.t RENAME COLUMN secret TO hidden;
SET ROLE regress_esync_part;
SELECT gra.save('gra.t', '{"id": 6, "site": "n", "b": "x"}'), gra.save('gra.t', '{"id": 6, "site": "n", "a": "x", "secret": "hidden"}'), gra.save('gra.t', '{"id": 6, "site": "n", "a": "x"}', NULL, '{"hidden": "hidden"}'),
	gra.save('gra.t', '{"id": 6, "site": "n", "street": "x"}'), gra.told(public.esync_delete('gra.t', '["n", 6]', 1, '{"hidden": "guess"}'));
SELECT gra.told(public.esync_delete('gra.t', '["n", 6]', 1)), gra.save('gra.t', '{"id": 60, "site": "n", "a": "new"}', NULL), gra.save('gra.soft', '{"id": 60, "a": "new"}', NULL), gra.told(public.esync_delete('gra.soft', '5', 1)), gra.save('gra.soft', '{"id": 61, "secret": "new"}', NULL);
RESET ROLE;
REVOKE UPDATE (a) ON gra.t FROM regress_esync_part;
GRANT UPDATE (b) ON gra.t TO regress_esync_part;
SET ROLE regress_esync_part;
SELECT gra.save('gra.t', '{"id": 6, "site": "n", "a": "x"}'), gra.save('gra.t', '{"id": 6, "site": "n", "a": "a"}');
RESET ROLE;
REVOKE SELECT (site) ON gra.t FROM regress_esync_part;
REVOKE ALL ON gra.soft FROM regress_esync_part;
SET ROLE regress_esync_part;
SELECT gra.save('gra.t', '{"id": 6, "site": "n", "a": "x"}'), gra.save('gra.soft', '{"id": 6, "a": "x"}');
RESET ROLE;
SELECT user_id, code, message FROM esync_rejected('gra.t') ORDER BY rejected_id DESC LIMIT 1;
SELECT count(*) FROM gra.t WHERE id >= 6 AND (a, b, hidden, street) <> ('a', 'b', 'hidden', 's');

-- NAME: deleting: by grants on the table, or with the lock; a conflict of it shows the columns that may be read
SELECT public.esync_save('gra.split', '{"id": 11, "a": "later", "secret": "later"}', 2)->>'status';
SET ROLE regress_esync_part;
SELECT gra.told(public.esync_delete('gra.split', '11', 2)), gra.told(public.esync_delete('gra.split', '1', NULL));
RESET ROLE;
INSERT INTO gra.split VALUES (2, 'a', 'hidden'), (3, 'a', 'hidden');
REVOKE UPDATE (a) ON gra.split FROM regress_esync_part;
SET ROLE regress_esync_part;
SELECT gra.told(public.esync_delete('gra.split', '2', NULL)), gra.told(public.esync_delete('gra.split', '77', NULL));
SET ROLE regress_esync_seer;
SELECT gra.told(public.esync_delete('gra.split', '2', NULL));
SELECT gra.save('gra.split', '{"id": 3, "a": "x"}');
RESET ROLE;
SELECT id FROM gra.split ORDER BY id;

-- NAME: decisions need the same of what is decided; an undo needs SELECT on the table
SELECT public.esync_save('gra.t', '{"id": 7, "site": "n", "a": "x"}', 1)->>'status', public.esync_save('gra.t', '{"id": 7, "site": "n", "a": "y"}', 1)->>'status';
GRANT SELECT (site), UPDATE (a) ON gra.t TO regress_esync_part;
SET ROLE regress_esync_part;
SELECT public.esync_resolve_row('gra.t', '["n", 7]', '{"a": {"value": "z"}}')->'row';
SELECT code, message, detail FROM unnest(ARRAY['public.esync_resolve_row(''gra.t'', ''["n", 7]'', ''{"b": {"value": "z"}}'')', 'public.esync_resolve_row(''gra.t'', ''["n", 7]'', ''{"address": {"value": {"street": "z"}}}'')', 'public.esync_undo((SELECT event_id FROM public.esync_history(''gra.t'', ''["n", 7]'') WHERE version = 2))']) AS q, witness.refused('SELECT ' || q);
RESET ROLE;
-- a policy's decision is a part of the edit
SELECT esync_enable('gra.t', on_conflict => 'server_wins');
SET ROLE regress_esync_part;
SELECT gra.save('gra.t', '{"id": 7, "site": "n", "a": "z"}');
RESET ROLE;

-- NAME: row policies on top
SELECT esync_enable('gra.t', on_conflict => 'merge');
ALTER TABLE gra.t ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON gra.t FOR SELECT USING (id <> 8);
CREATE POLICY changed ON gra.t FOR UPDATE USING (id < 9);
SET ROLE regress_esync_part;
SELECT gra.save('gra.t', '{"id": 3, "site": "n", "a": "rls"}', NULL), gra.save('gra.t', '{"id": 8, "site": "n", "a": "rls"}'), gra.save('gra.t', '{"id": 9, "site": "n", "a": "rls"}');
RESET ROLE;
SELECT * FROM esync_verify('gra.t') UNION ALL SELECT * FROM esync_verify('gra.soft') UNION ALL SELECT * FROM esync_verify('gra.split');

DO $$ BEGIN PERFORM public.esync_disable(relation, true) FROM esync.tracked_table WHERE schema_name = 'gra'; END $$;
DROP SCHEMA gra, witness CASCADE;
DROP ROLE regress_esync_part, regress_esync_seer;
