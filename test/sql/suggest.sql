-- esync_suggest: the values of a track, and what speaks for each
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE ROLE regress_esync_column;
CREATE ROLE regress_esync_nokey;
CREATE ROLE regress_esync_rls;
CREATE SCHEMA sug;
GRANT USAGE ON SCHEMA sug, witness TO PUBLIC;
CREATE TABLE sug.valve (id int PRIMARY KEY, pressure numeric, label text, pin text, spec jsonb, gone_at timestamptz);
SELECT esync_enable('sug.valve', mask => '{pin}', tombstone => 'gone_at');
-- somebody saved that, having seen which version, on which day
CREATE FUNCTION sug.edit(who text, base bigint, day int, document jsonb, tbl regclass DEFAULT 'sug.valve') RETURNS text LANGUAGE sql AS $$
SELECT esync_save(tbl, document, base, context => jsonb_build_object('user_id', who, 'device_id', 'tablet of ' || who,
	'submit_timestamp', '2025-11-16 12:00Z'::timestamptz + day * interval '1 day'))->>'status'
$$;
CREATE FUNCTION sug.values(key text, field name, tbl regclass DEFAULT 'sug.valve')
RETURNS TABLE (value jsonb, confidence float8, support bigint, who text, reason text) LANGUAGE sql AS $$
SELECT value, confidence, support, (SELECT string_agg(format('v%s %s %s', s->>'version', s->>'user_id', s->>'status'), ', ') FROM jsonb_array_elements(sources) AS s), reason
FROM esync_suggest(tbl, key, field) $$;

-- NAME: authors alone: no other row, so nothing to compare with; each counts by the last word
SELECT sug.edit('office', NULL, 0, '{"id": 1, "pressure": 137, "label": "main"}');
SELECT sug.edit('ann', 1, 1, '{"id": 1, "pressure": 1390}'), sug.edit('ben', 1, 2, '{"id": 1, "pressure": 139}'), sug.edit('cleo', 1, 3, '{"id": 1, "pressure": 139.0}');
SELECT * FROM sug.values('1', 'pressure');
-- ann on another device is still one author, and takes back what she said
SELECT sug.edit('ann', 2, 4, '{"id": 1, "pressure": 138}');
SELECT * FROM sug.values('1', 'pressure');
SELECT kind, field FROM esync_conflicts('sug.valve');

-- NAME: other rows: those that hold a value, and the distance from their median
INSERT INTO sug.valve SELECT i, 138 + i % 4, CASE i % 3 WHEN 0 THEN 'main' WHEN 1 THEN 'spare' END FROM generate_series(11, 30) AS i;
INSERT INTO sug.valve VALUES (90, 1390, 'main', NULL, NULL, now()), (91, 1390, 'main', NULL, NULL, now());
SELECT count(*) AS living, percentile_disc(0.5) WITHIN GROUP (ORDER BY pressure) AS median, count(*) FILTER (WHERE pressure = 139) AS "139",
	count(*) FILTER (WHERE label = 'main') AS main, count(*) FILTER (WHERE label IS NULL) AS blank FROM sug.valve WHERE gone_at IS NULL AND id <> 1;
SELECT * FROM sug.values('1', 'pressure');
-- a field that is not in conflict, and a text; [Blank] is a value
SELECT sug.edit('dan', NULL, 5, '{"id": 1, "label": null}'), sug.edit('eve', NULL, 6, '{"id": 1, "label": "mian"}');
SELECT * FROM sug.values('1', 'label');
-- the answer itself
SELECT pg_typeof(value), pg_typeof(confidence), pg_typeof(reason), pg_typeof(support), pg_typeof(sources),
	(SELECT jsonb_agg(s - 'event_id') FROM jsonb_array_elements(sources) AS s) FROM esync_suggest('sug.valve', '1', 'label') LIMIT 1;
SELECT s->'event_id' = to_jsonb(h.event_id) AS "event of the history" FROM esync_suggest('sug.valve', '1', 'label') AS v, jsonb_array_elements(v.sources) AS s,
	field_history('sug.valve', '1', 'label') AS h WHERE h.version = (s->>'version')::bigint;

-- NAME: nobody's word: a row without events, and baselines
CREATE TABLE sug.old (id int PRIMARY KEY, v text);
INSERT INTO sug.old VALUES (1, 'a'), (2, 'b'), (3, 'b');
SELECT esync_enable('sug.old');
SELECT * FROM sug.values('1', 'v', 'sug.old');
SELECT esync_enable('sug.old', baseline => true);
SELECT * FROM sug.values('1', 'v', 'sug.old');
UPDATE sug.old SET v = 'b' WHERE id = 1;
SELECT value, confidence, support, reason FROM sug.values('1', 'v', 'sug.old');

-- NAME: rows that are gone, columns that are gone, documents, several tenants
SELECT sug.edit('ann', NULL, 8, '{"id": 1, "spec": {"a": 1.0}}');
INSERT INTO sug.valve VALUES (31, 1, 'x', NULL, '{"a": 1}');
SELECT * FROM sug.values('1', 'spec');
ALTER TABLE sug.valve DROP COLUMN spec;
SELECT * FROM sug.values('1', 'spec');
DELETE FROM sug.valve WHERE id = 31;
SELECT value, confidence, support, reason FROM sug.values('31', 'label');
CREATE TABLE sug.tenant (site text, id bigint, owner text, v float8, PRIMARY KEY (site, id));
SELECT esync_enable('sug.tenant', tenant => 'owner');
INSERT INTO sug.tenant SELECT 'north', i, CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END, CASE i % 2 WHEN 0 THEN 1.5 ELSE 'Infinity' END FROM generate_series(1, 10) AS i;
INSERT INTO sug.tenant VALUES ('south', 1, NULL, 2);
UPDATE sug.tenant SET v = 2.5 WHERE id = 2;
SELECT value, confidence, support, reason FROM sug.values('["north", 2]', 'v', 'sug.tenant');
SELECT value, confidence, support, reason FROM sug.values('["north", 1]', 'v', 'sug.tenant');
SELECT value, confidence, support, reason FROM sug.values('["south", 1]', 'v', 'sug.tenant');
DELETE FROM sug.tenant WHERE id = 2;
SELECT value, confidence, support, reason FROM sug.values('["north", 2]', 'v', 'sug.tenant');

-- NAME: nothing, and errors
SELECT count(*) FROM esync_suggest('sug.valve', '1', 'pin') UNION ALL SELECT count(*) FROM esync_suggest('sug.valve', '77', 'label')
UNION ALL SELECT count(*) FROM esync_suggest('sug.valve', '1', NULL) UNION ALL SELECT count(*) FROM esync_suggest(NULL, '1', 'label') UNION ALL SELECT count(*) FROM esync_suggest('sug.valve', NULL, 'label');
SELECT code, message, hint FROM unnest(ARRAY['''sug.valve'', ''1'', ''nothing''', '''sug.valve'', ''x'', ''label''', '''pg_class'', ''1'', ''relname''']) AS a, witness.refused(format('SELECT esync_suggest(%s)', a));

-- NAME: rights: of the column; without the key, or the tombstone, other rows are not counted; policies hide rows, and what is counted of them
GRANT SELECT (id, label, gone_at) ON sug.valve TO regress_esync_column;
GRANT SELECT (label) ON sug.valve TO regress_esync_nokey;
GRANT SELECT (id, pressure) ON sug.valve TO regress_esync_nokey;
GRANT SELECT ON sug.tenant TO regress_esync_rls;
GRANT SELECT (v) ON sug.tenant TO regress_esync_nokey;
ALTER TABLE sug.tenant ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON sug.tenant USING (owner = 'b' AND id < 6);
SET ROLE regress_esync_column;
SELECT code, message FROM witness.refused($$SELECT esync_suggest('sug.valve', '1', 'pressure')$$);
SELECT value, reason FROM esync_suggest('sug.valve', '1', 'label');
SET ROLE regress_esync_nokey;
SELECT value, reason FROM esync_suggest('sug.valve', '1', 'pressure');
SELECT count(*) FROM esync_suggest('sug.tenant', '["north", 1]', 'v');
SET ROLE regress_esync_rls;
SELECT value, reason FROM esync_suggest('sug.tenant', '["north", 1]', 'v');
SELECT count(*) FROM esync_suggest('sug.tenant', '["north", 7]', 'v');
RESET ROLE;
SELECT value, reason FROM esync_suggest('sug.tenant', '["north", 1]', 'v');

SELECT esync_disable('sug.valve', true), esync_disable('sug.old', true), esync_disable('sug.tenant', true);
DROP SCHEMA sug CASCADE;
DROP SCHEMA witness CASCADE;
DROP ROLE regress_esync_column, regress_esync_nokey, regress_esync_rls;
