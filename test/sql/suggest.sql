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

-- NAME: what a constraint refused is offered too, with its name, and below what the table can take; it is its author's last word
CREATE TABLE sug.part (id int PRIMARY KEY, code text CONSTRAINT code_key UNIQUE, low int, high int, title text NOT NULL, street text, zip text, spec jsonb, CONSTRAINT range CHECK (low <= high), CONSTRAINT place CHECK (street <> zip));
SELECT esync_enable('sug.part', groups => '{"place": ["street", "zip"]}', json_merge => '{spec}');
INSERT INTO sug.part SELECT i, 'c' || i, 1, 10, 't', 's', 'z', '{"a": {"x": 1, "y": 1}, "b": 1}' FROM generate_series(1, 6) AS i;
SELECT sug.edit('ann', 1, 1, '{"id": 1, "low": 5}', 'sug.part'), sug.edit('ben', 1, 2, '{"id": 1, "high": 3, "title": "ben"}', 'sug.part'), sug.edit('cleo', 1, 3, '{"id": 1, "high": 4, "title": "ben"}', 'sug.part');
SELECT kind, field, contenders->0->>'constraint' AS of_it FROM esync_conflicts('sug.part', '1');
SELECT * FROM sug.values('1', 'high', 'sug.part');
-- by a NOT NULL, by an index that holds the value for another row, and of a group
SELECT sug.edit('ann', 1, 1, '{"id": 2, "title": null, "code": "c1", "low": 2}', 'sug.part'), sug.edit('ben', 1, 2, '{"id": 2, "street": "same", "zip": "same", "low": 2}', 'sug.part');
SELECT value, confidence, support, who, reason FROM sug.values('2', 'title', 'sug.part');
SELECT value, confidence, support, who, reason FROM sug.values('2', 'code', 'sug.part');
SELECT s->>'constraint' AS "constraint" FROM esync_suggest('sug.part', '2', 'code'), jsonb_array_elements(sources) AS s;
SELECT value, confidence, support, who, reason FROM sug.values('2', 'place', 'sug.part');
-- decided, it waits no longer
SELECT count(esync_resolve(conflict_id, 'server_wins')) FROM esync_conflicts('sug.part', '2', field => 'code');
SELECT value FROM sug.values('2', 'code', 'sug.part');

-- NAME: groups and paths, by the names and in the shape that conflicts have
SELECT sug.edit('ann', 1, 1, '{"id": 3, "street": "ann", "spec": {"a": {"x": 2, "y": 1}, "b": 1}}', 'sug.part'), sug.edit('ben', 1, 2, '{"id": 3, "zip": "ben", "spec": {"a": {"x": 3, "y": 1}, "b": 1}}', 'sug.part'),
	sug.edit('cleo', 1, 3, '{"id": 3, "spec": {"a": {"x": 1, "y": 7}, "b": 1}}', 'sug.part');
SELECT field, jsonb_path_query_array(contenders, '$[*].value') AS contenders FROM esync_conflicts('sug.part', '3');
SELECT * FROM sug.values('3', 'place', 'sug.part');
SELECT * FROM sug.values('3', 'spec/a/x', 'sug.part');
SELECT value, who FROM sug.values('3', 'spec/a/y', 'sug.part');
SELECT value, confidence, support, who FROM sug.values('3', 'spec/a', 'sug.part');
-- what is not there is null, and nobody said anything of it but who made the row
SELECT value, confidence, support, who, reason FROM sug.values('3', 'spec/c', 'sug.part');
-- each value of a contender is among those suggested, and the row's is said to show
SELECT c.field, count(*) AS contenders, count(v.value) AS suggested, count(*) FILTER (WHERE v.reason LIKE 'Shown%') AS shown, bool_or(v.value = c.shown_value AND v.reason LIKE 'Shown%') AS "the same"
FROM esync_conflicts('sug.part') c, jsonb_array_elements(contenders) x LEFT JOIN LATERAL sug.values(c.aggregate_id, c.field::name, 'sug.part') v ON v.value = x->'value' GROUP BY c.conflict_id, c.field ORDER BY c.conflict_id;
-- a former name of a column; a group of which one column is gone
ALTER TABLE sug.part RENAME COLUMN title TO heading;
SELECT value FROM sug.values('1', 'title', 'sug.part') EXCEPT SELECT value FROM sug.values('1', 'heading', 'sug.part');
SELECT count(*) FROM sug.values('1', 'title', 'sug.part');
ALTER TABLE sug.part DROP COLUMN zip;
SELECT value FROM sug.values('3', 'place', 'sug.part');

-- NAME: the figures, recomputed in SQL from the stream and the table
CREATE TABLE sug.pump (id int PRIMARY KEY, site text, v numeric, gone_at timestamptz);
SELECT esync_enable('sug.pump', tenant => 'site', tombstone => 'gone_at');
SELECT setseed(0.5);
INSERT INTO sug.pump SELECT i, chr(97 + i % 2), round((random() * 8)::numeric), CASE WHEN i % 11 = 10 THEN now() END FROM generate_series(1, 90) AS i;
DO $$ BEGIN
	FOR r IN 1..9 LOOP FOR w IN 1..5 LOOP
		PERFORM sug.edit('u' || w, CASE w % 3 WHEN 0 THEN r % 2 + 1 ELSE 1 END, (7 * w) % 5 + 1, jsonb_build_object('id', r, 'v', (r * w + w) % 7), 'sug.pump');
		IF w > 3 THEN PERFORM sug.edit('u1', NULL, 9, jsonb_build_object('id', r, 'v', (r + w) % 6), 'sug.pump'); END IF;
	END LOOP; END LOOP;
END $$;
-- the edits in their order: an author by the last one; of a value that is shown or in dispute whole, else half
CREATE VIEW sug.oracle AS
WITH said AS (SELECT aggregate_id AS id, (p->'value')::numeric AS v, user_id, row_number() OVER w AS rank, row_number() OVER (PARTITION BY aggregate_id, user_id ORDER BY effective_timestamp DESC, device_id DESC NULLS LAST, event_id DESC) = 1 AS last,
		row_number() OVER w = 1 AS shown, EXISTS (SELECT FROM esync_conflicts('sug.pump', e.aggregate_id), jsonb_array_elements(contenders) c WHERE (c->>'event_id')::bigint = e.event_id) AS disputed
	FROM (SELECT aggregate_id, user_id, device_id, event_id, effective_timestamp, jsonb_array_elements(CASE WHEN patch = '[]' THEN jsonb_build_array(jsonb_build_object('path', '/v', 'value', payload->'v')) ELSE patch END) AS p FROM witness.events('sug.pump') WHERE event_type IN ('Created', 'Updated')) e
	WHERE p->>'path' = '/v' WINDOW w AS (PARTITION BY aggregate_id ORDER BY effective_timestamp DESC, device_id DESC NULLS LAST, event_id DESC)),
given AS (SELECT id, v, count(*) FILTER (WHERE last) AS authors, CASE WHEN bool_or(shown OR disputed) THEN 1 ELSE 0.5 END AS weight, min(rank) AS rank FROM said GROUP BY id, v),
others AS (SELECT g.*, (SELECT count(*) FILTER (WHERE o.v = g.v) FROM sug.pump o WHERE o.id <> me.id AND o.site = me.site AND o.gone_at IS NULL) AS rows,
	(SELECT count(*) FROM sug.pump o WHERE o.id <> me.id AND o.site = me.site AND o.gone_at IS NULL) AS of_rows,
	(SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY o.v) FROM sug.pump o WHERE o.id <> me.id AND o.site = me.site AND o.gone_at IS NULL) AS median, me.site, me.id AS row FROM given g JOIN sug.pump me ON me.id = g.id::int),
usual AS (SELECT o.*, (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY abs(x.v - o.median)) FROM sug.pump x WHERE x.id <> o.row AND x.site = o.site AND x.gone_at IS NULL) AS usual FROM others o)
SELECT id, v, round((authors * weight / sum(authors * weight) OVER (PARTITION BY id) + CASE WHEN sum(rows) OVER (PARTITION BY id) > 0 THEN rows::numeric / of_rows ELSE 0 END + CASE WHEN v = median THEN 1 WHEN usual = 0 THEN 0 ELSE 1 / (1 + abs(v - median) / usual) END)
	/ (2 + (sum(rows) OVER (PARTITION BY id) > 0)::int), 4)::float8 AS confidence, authors + rows AS support, rank, authors, rows, abs(v - median) AS distance FROM usual;
SELECT count(*) AS values, count(DISTINCT o.id) AS rows, count(*) FILTER (WHERE abs(s.confidence - o.confidence) > 0.00011 OR s.support <> o.support OR s.confidence IS NULL OR o.confidence IS NULL) AS wrong,
	count(*) FILTER (WHERE s.reason NOT LIKE format('%%; %s of %% authors said so last%%; %s of %% other rows of the tenant hold it; %s away from their median %%', o.authors, o.rows, trim_scale(o.distance))) AS "not in the sentence"
FROM sug.oracle o FULL JOIN (SELECT p.id::text AS id, s.* FROM sug.pump p, sug.values(p.id::text, 'v', 'sug.pump') s WHERE p.id <= 9) s ON s.id = o.id AND s.value = to_jsonb(o.v) WHERE o.id::int <= 9 OR s.id IS NOT NULL;
SELECT count(*) AS "out of order" FROM (SELECT p.id, s.*, lag(confidence) OVER (PARTITION BY p.id ORDER BY n) AS before FROM sug.pump p, ROWS FROM (esync_suggest('sug.pump', p.id::text, 'v')) WITH ORDINALITY AS s (value, confidence, reason, support, sources, n) WHERE p.id <= 9) s WHERE confidence > before;

-- NAME: what somebody took back is not his word any more; what he said before counts again
CREATE TABLE sug.back (id int PRIMARY KEY, v int);
SELECT esync_enable('sug.back');
SELECT sug.edit('office', NULL, 0, '{"id": 1, "v": 137}', 'sug.back');
SELECT sug.edit('ben', 1, 1, '{"id": 1, "v": 140}', 'sug.back'), sug.edit('dora', 1, 2, '{"id": 1, "v": 150}', 'sug.back');
BEGIN;
SELECT esync_context(user_id => 'cleo');
SELECT esync_resolve_row('sug.back', '1', '{"v": {"value": 140}}')->'row'->'v' AS v;
COMMIT;
SELECT * FROM sug.values('1', 'v', 'sug.back');
SELECT esync_undo(event_id)->'undone' AS undone FROM esync_history('sug.back', 1) WHERE event_type = 'Resolved';
SELECT * FROM sug.values('1', 'v', 'sug.back');

-- NAME: nothing, and errors
SELECT count(*) FROM esync_suggest('sug.valve', '1', 'pin') UNION ALL SELECT count(*) FROM esync_suggest('sug.valve', '77', 'label')
UNION ALL SELECT count(*) FROM esync_suggest('sug.valve', '1', NULL) UNION ALL SELECT count(*) FROM esync_suggest(NULL, '1', 'label') UNION ALL SELECT count(*) FROM esync_suggest('sug.valve', NULL, 'label');
SELECT code, message, hint FROM unnest(ARRAY['''sug.valve'', ''1'', ''nothing''', '''sug.valve'', ''x'', ''label''', '''pg_class'', ''1'', ''relname''', '''sug.part'', ''1'', ''code/x''', '''sug.part'', ''1'', ''none/x''', '''sug.part'', ''1'', ''''']) AS a, witness.refused(format('SELECT esync_suggest(%s)', a));

-- NAME: rights: of the column; without the key, or the tombstone, other rows are not counted; policies hide rows, and what is counted of them
GRANT SELECT (id, label, gone_at) ON sug.valve TO regress_esync_column;
GRANT SELECT (label) ON sug.valve TO regress_esync_nokey;
GRANT SELECT (id, pressure) ON sug.valve TO regress_esync_nokey;
GRANT SELECT ON sug.tenant TO regress_esync_rls;
GRANT SELECT (v) ON sug.tenant TO regress_esync_nokey;
ALTER TABLE sug.tenant ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON sug.tenant USING (owner = 'b' AND id < 6);
GRANT SELECT (id, street) ON sug.part TO regress_esync_nokey;
SET ROLE regress_esync_column;
SELECT code, message FROM witness.refused($$SELECT esync_suggest('sug.valve', '1', 'pressure')$$);
SELECT value, reason FROM esync_suggest('sug.valve', '1', 'label');
SET ROLE regress_esync_nokey;
SELECT value, reason FROM esync_suggest('sug.valve', '1', 'pressure');
SELECT count(*) FROM esync_suggest('sug.tenant', '["north", 1]', 'v');
SELECT value FROM esync_suggest('sug.part', '3', 'place');
SELECT code, message FROM unnest('{spec,spec/a/x,high}'::text[]) AS f, witness.refused(format('SELECT esync_suggest(''sug.part'', ''3'', %L)', f));
SET ROLE regress_esync_rls;
SELECT value, reason FROM esync_suggest('sug.tenant', '["north", 1]', 'v');
SELECT count(*) FROM esync_suggest('sug.tenant', '["north", 7]', 'v');
RESET ROLE;
SELECT value, reason FROM esync_suggest('sug.tenant', '["north", 1]', 'v');

DO $$ BEGIN PERFORM public.esync_disable(relation, true) FROM esync.tracked_table WHERE schema_name = 'sug'; END $$;
DROP SCHEMA sug CASCADE;
DROP SCHEMA witness CASCADE;
DROP ROLE regress_esync_column, regress_esync_nokey, regress_esync_rls;
