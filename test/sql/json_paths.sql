-- Edits inside of a jsonb column: events whose patches have deeper paths, as
-- merges of json_merge columns write them.  Made by hand here.
SET TIME ZONE 'UTC';
SET DateStyle TO 'ISO';
SET client_min_messages TO warning;
CREATE SCHEMA json_paths;

-- one event, saved at that hour of day 17; versions in the order of the calls
CREATE FUNCTION json_paths.event(tbl regclass, id text, type text, hour int, patch jsonb,
	payload jsonb DEFAULT NULL, device text DEFAULT NULL, seq bigint DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
INSERT INTO esync.event (event_id, xid, version, base_version, branch_timestamp, submit_timestamp,
	commit_timestamp, effective_timestamp, effective_high, device_seq, epoch, table_id, flags, row_xmin, row_tid,
	event_type, aggregate_id, user_id, device_id, db_role, patch, payload)
SELECT nextval('esync.event_id_seq'), pg_current_xact_id(), coalesce(max(e.version), 0) + 1, 0,
	coalesce(at, '2025-11-17'), coalesce(at, '2025-11-17'),
	'2025-11-30 00:00+00'::timestamptz + make_interval(mins => coalesce(max(e.version), 0)::int + 1),
	coalesce(at, '-infinity'), greatest(max(e.effective_high), coalesce(at, '-infinity')),
	event.seq, 1, t.table_id, 0, '3', '(0,1)', event.type, event.id, event.device, event.device, 'nobody', event.patch,
	event.payload
FROM esync.tracked_table t LEFT JOIN esync.event e ON e.table_id = t.table_id AND e.aggregate_id = event.id,
	LATERAL (SELECT '2025-11-17 00:00+00'::timestamptz + make_interval(hours => hour)) h(at)
WHERE t.relation = tbl GROUP BY t.table_id, at
$$;

CREATE TABLE json_paths.valve (id int PRIMARY KEY, title text, spec jsonb, pin jsonb);
SELECT esync_enable('json_paths.valve');

-- two devices edit one document, and the one that saved first comes last
SELECT json_paths.event('json_paths.valve', '1', 'Created', 8, '[]',
	'{"id": 1, "title": "Main", "spec": {"dim": {"length": 10, "width": 5}, "tags": ["a"]}, "pin": null}', 'ann');
SELECT json_paths.event('json_paths.valve', '1', 'Updated', 12, '[{"op": "replace", "path": "/spec/dim/length", "value": 12},
	{"op": "add", "path": "/spec/dim/height", "value": 3}, {"op": "replace", "path": "/title", "value": "Valve"}]', NULL, 'ann');
SELECT json_paths.event('json_paths.valve', '1', 'Updated', 10, '[{"op": "replace", "path": "/spec/dim/width", "value": 6},
	{"op": "remove", "path": "/spec/tags"}, {"op": "replace", "path": "/spec/dim/length", "value": 11}]', NULL, 'bob');
SELECT jsonb_pretty(esync_state('json_paths.valve', 1));
SELECT version, value, previous_value, user_id, status FROM field_history('json_paths.valve', 1, 'spec');
SELECT version, patch, state->'spec' AS spec FROM esync_replay('json_paths.valve', 1);
SELECT version, patch, payload->'spec' AS spec FROM esync_history('json_paths.valve', 1);
SELECT id, title, spec FROM esync_as_of(NULL::json_paths.valve, '2025-11-17 11:00+00', NULL);
SELECT esync_state('json_paths.valve', 1, known_at => '2025-11-30 00:02:30+00')->'spec' AS before_bob_came;
SELECT f->'current_value' AS value, jsonb_array_length(f->'history') AS bars
FROM jsonb_array_elements(esync_row('json_paths.valve', '1')->'fields') f WHERE f->>'field' = 'spec';
SELECT regexp_replace(line, ' +$', '') FROM esync_graph('json_paths.valve', 1) AS line;

-- an earlier set of the whole column, and an earlier one of the object around, do
-- not take away what was edited inside of it later; later ones do
SELECT json_paths.event('json_paths.valve', '1', 'Updated', 11, '[{"op": "replace", "path": "/spec", "value": {"whole": true}}]', NULL, 'cleo');
SELECT esync_state('json_paths.valve', 1)->'spec' AS spec;
SELECT json_paths.event('json_paths.valve', '1', 'Updated', 9, '[{"op": "replace", "path": "/spec/dim", "value": {"lost": 1}}]', NULL, 'cleo');
SELECT esync_state('json_paths.valve', 1)->'spec' AS spec;
SELECT json_paths.event('json_paths.valve', '1', 'Updated', 13, '[{"op": "replace", "path": "/spec/dim", "value": 7}]', NULL, 'cleo');
SELECT json_paths.event('json_paths.valve', '1', 'Updated', 14, '[{"op": "add", "path": "/spec/dim/a/b", "value": []}]', NULL, 'cleo');
SELECT json_paths.event('json_paths.valve', '1', 'Updated', 15, '[{"op": "remove", "path": "/spec/never/was"}]', NULL, 'cleo');
SELECT version, value, previous_value, user_id, status FROM field_history('json_paths.valve', 1, 'spec');

-- the column may never have been set, or be gone; a name may need escapes, or be that
-- of another column now; what is no path changes nothing
SELECT json_paths.event('json_paths.valve', '2', 'Created', 8,
	'[{"op": "add", "path": "/id", "value": 2}]', '{"id": 2, "title": null, "spec": null, "pin": null}', 'ann');
SELECT json_paths.event('json_paths.valve', '2', 'Updated', 9, '[{"op": "add", "path": "/spec/a~1b/~0c//", "value": 1},
	{"op": "add", "path": "/spec/~2", "value": 2}, {"op": "add", "path": "/spec/x~", "value": 2},
	{"op": "add", "path": "spec/y", "value": 2}, {"op": "add", "path": "/other/y", "value": 2},
	{"op": "test", "path": "/spec/z", "value": 2}]', NULL, 'ann');
SELECT jsonb_pretty(esync_state('json_paths.valve', 2));
ALTER TABLE json_paths.valve RENAME spec TO "a/~b";
ALTER TABLE json_paths.valve ADD spec jsonb;
ALTER TABLE json_paths.valve ADD added jsonb DEFAULT '{"by": "default"}';
INSERT INTO json_paths.valve (id) VALUES (100);
SELECT json_paths.event('json_paths.valve', '2', 'Updated', 10, '[{"op": "add", "path": "/a~1~0b/y", "value": 2},
	{"op": "add", "path": "/spec/new", "value": 2}, {"op": "add", "path": "/added/too", "value": 2}]', NULL, 'ann');
SELECT jsonb_pretty(esync_state('json_paths.valve', 2));
SELECT field, value, previous_value FROM field_history('json_paths.valve', 2, 'added');
SELECT field, value, previous_value FROM field_history('json_paths.valve', 2, 'a/~b');

-- rights: the column decides.  Of a masked column neither values nor members show.
CREATE ROLE json_paths_reader;
GRANT USAGE ON SCHEMA json_paths TO json_paths_reader;
GRANT SELECT (id, title) ON json_paths.valve TO json_paths_reader;
SET ROLE json_paths_reader;
SELECT version, patch FROM esync_history('json_paths.valve', 1);
SELECT version, patch, state FROM esync_replay('json_paths.valve', 2);
RESET ROLE;
SELECT json_paths.event('json_paths.valve', '2', 'Updated', 11, '[{"op": "add", "path": "/pin/code", "value": 1234},
	{"op": "add", "path": "/pin/hint", "value": "birthday"}, {"op": "replace", "path": "/title", "value": "t"}]', NULL, 'ann');
SELECT field, value, previous_value FROM field_history('json_paths.valve', 2, 'pin');
SELECT esync_enable('json_paths.valve', mask => '{pin}');
SELECT patch, payload FROM esync_history('json_paths.valve', 2) OFFSET 3;
SELECT field, value, previous_value FROM field_history('json_paths.valve', 2, 'pin');
SELECT esync_state('json_paths.valve', 2)->'pin' AS pin;

-- an event of another key of the row
ALTER TABLE json_paths.valve DISABLE TRIGGER USER;
INSERT INTO json_paths.valve (id, title, "a/~b", spec, added) SELECT 2, 't', s->'a/~b', s->'spec', s->'added' FROM esync_state('json_paths.valve', 2) s;
ALTER TABLE json_paths.valve ENABLE TRIGGER USER;
UPDATE json_paths.valve SET id = 3 WHERE id = 2;
SELECT json_paths.event('json_paths.valve', '3', 'Updated', 876000, '[{"op": "add", "path": "/a~1~0b/moved", "value": 3}]');
SELECT version, event_type, value, previous_value FROM field_history('json_paths.valve', 3, 'a/~b');
SELECT esync_state('json_paths.valve', 3)->'a/~b' AS after_move;

-- Any order: sets of edits at random, each put in three random orders, against
-- a recomputation that knows no esync.
CREATE TABLE json_paths.doc (id int PRIMARY KEY, t text, spec jsonb);
SELECT esync_enable('json_paths.doc');
CREATE TABLE json_paths.edit (id int, version int, effective timestamptz, device text COLLATE "C", seq int,
	ord int, op text, path text[], value jsonb);

CREATE FUNCTION json_paths.put(doc jsonb, path text[], value jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF path = '{}' THEN
		RETURN value;
	END IF;
	IF jsonb_typeof(doc) IS DISTINCT FROM 'object' THEN
		doc := '{}';
	END IF;
	RETURN doc || jsonb_build_object(path[1], json_paths.put(doc->path[1], path[2:], value));
END
$$;
CREATE FUNCTION json_paths.expected(of_id int, versions int DEFAULT NULL, as_of timestamptz DEFAULT NULL)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	doc jsonb := 'null';
	e json_paths.edit;
BEGIN
	FOR e IN SELECT * FROM json_paths.edit WHERE id = of_id AND version <= coalesce(versions, version) AND
			(effective <= as_of OR effective = '-infinity' OR as_of IS NULL)
		ORDER BY effective, device NULLS FIRST, seq NULLS FIRST, ord
	LOOP
		IF e.op <> 'remove' THEN
			doc := json_paths.put(doc, e.path, e.value);
		ELSIF e.path = '{}' THEN
			doc := 'null';
		ELSIF cardinality(e.path) = 1 OR jsonb_typeof(doc #> trim_array(e.path, 1)) = 'object' THEN
			IF jsonb_typeof(doc) = 'object' THEN
				doc := doc #- e.path;
			END IF;
		END IF;
	END LOOP;
	RETURN doc;
END
$$;
CREATE FUNCTION json_paths.pick(VARIADIC list text[]) RETURNS text LANGUAGE sql
	AS $$ SELECT list[1 + floor(random() * cardinality(list))::int] $$;
CREATE FUNCTION json_paths.value() RETURNS jsonb LANGUAGE sql AS $$
SELECT json_paths.pick('1', '2.50', '"s"', 'null', 'true', '{}', '[]', '{"x": 1}', '{"x": {"p": 2}, "y": 3}', '[1, {"x": 2}]',
	'{"a": {"x": {"p": "deep"}}}', '{"b/c": {"~d": 1}}', '"' || repeat('long ', 50) || '"')::jsonb
$$;
-- a set under one id: what made the row, then edits; several of one event have one ord each
CREATE FUNCTION json_paths.invent(new_id int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	whole boolean;
	at timestamptz;
	device text;
BEGIN
	at := CASE WHEN random() < 0.5 THEN '2025-11-17'::timestamptz + make_interval(hours => floor(random() * 5)::int)
		ELSE '-infinity' END;
	INSERT INTO json_paths.edit VALUES (new_id, 1, at, NULL, NULL, 0, 'row', '{}', json_paths.value());
	FOR v IN 2 .. 3 + floor(random() * 9)::int LOOP
		whole := false;
		at := '2025-11-17'::timestamptz + make_interval(hours => floor(random() * 8)::int);
		device := json_paths.pick('A', 'b', 'bb', NULL);
		FOR ord IN 1 .. 1 + floor(random() * 3)::int LOOP
			IF random() < 0.15 AND NOT whole THEN
				INSERT INTO json_paths.edit VALUES (new_id, v, at, device, v, ord,
					json_paths.pick('replace', 'replace', 'replace', 'remove'), '{}', json_paths.value());
				whole := true;
			ELSE
				INSERT INTO json_paths.edit VALUES (new_id, v, at, device, v, ord, json_paths.pick('add', 'replace', 'remove'),
					json_paths.pick('{a}', '{b}', '{x}', '{a,x}', '{a,y}', '{a,x,p}', '{b/c,~d}', '{"",x}', '{a,x,p,q}', '{x,0}')::text[],
					json_paths.value());
			END IF;
		END LOOP;
	END LOOP;
END
$$;
-- the same edits under another id, arriving in another order
CREATE FUNCTION json_paths.shuffle(old_id int, new_id int) RETURNS void LANGUAGE sql AS $$
WITH v AS (SELECT version, row_number() OVER (ORDER BY version > 1, random()) AS arrived
	FROM (SELECT DISTINCT version FROM json_paths.edit WHERE id = old_id) d)
INSERT INTO json_paths.edit SELECT new_id, v.arrived, effective, device, seq, ord, op, path, value
FROM json_paths.edit JOIN v USING (version) WHERE id = old_id
$$;
-- the edits of one id as events: some with the row as it was then, some without
CREATE FUNCTION json_paths.store(of_id int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	e record;
	doc jsonb;
BEGIN
	FOR e IN SELECT version, min(effective) AS at, min(device) AS device, min(seq) AS seq, bool_or(op = 'row') AS creates,
			jsonb_agg(jsonb_build_object('op', op, 'path', '/spec' || coalesce((SELECT string_agg('/' ||
				replace(replace(token, '~', '~0'), '/', '~1'), '' ORDER BY n) FROM unnest(path) WITH ORDINALITY u(token, n)), ''),
				'value', value) - CASE WHEN op = 'remove' THEN 'value' ELSE '' END ORDER BY ord) AS patch
		FROM json_paths.edit WHERE id = of_id GROUP BY version ORDER BY version
	LOOP
		doc := jsonb_build_object('id', of_id, 't', NULL, 'spec', json_paths.expected(of_id, e.version));
		PERFORM json_paths.event('json_paths.doc', of_id::text,
			CASE WHEN NOT e.creates THEN 'Updated' WHEN e.at = '-infinity' AND of_id % 2 = 0 THEN 'Baseline' ELSE 'Created' END,
			CASE WHEN e.at > '-infinity' THEN extract(epoch FROM e.at - '2025-11-17 00:00+00')::int / 3600 END,
			CASE WHEN NOT e.creates THEN e.patch WHEN e.at = '-infinity' AND of_id % 2 = 1
				THEN jsonb_build_array(jsonb_build_object('op', 'add', 'path', '/id', 'value', of_id)) ELSE '[]' END,
			CASE WHEN e.creates OR random() < 0.3 THEN doc END, e.device, e.seq);
	END LOOP;
END
$$;
SELECT setseed(0.5);
DO $$
BEGIN
	FOR i IN 1 .. 60 LOOP
		PERFORM json_paths.invent(i);
		PERFORM json_paths.shuffle(i, 100 + i);
		PERFORM json_paths.shuffle(i, 200 + i);
	END LOOP;
END
$$;
SELECT count(json_paths.store(id)) AS stored FROM (SELECT DISTINCT id FROM json_paths.edit ORDER BY id) d;
ANALYZE esync.event;
-- sets in which something happened, orders that differ in the end, and states that are not as expected: none
SELECT count(*) FILTER (WHERE jsonb_typeof(s) = 'object') > 20 AS objects,
	count(*) FILTER (WHERE s IS DISTINCT FROM esync_state('json_paths.doc', 100 + i)->'spec') AS second,
	count(*) FILTER (WHERE s IS DISTINCT FROM esync_state('json_paths.doc', 200 + i)->'spec') AS third,
	count(*) FILTER (WHERE s::text IS DISTINCT FROM json_paths.expected(i)::text) AS wrong
FROM (SELECT i, esync_state('json_paths.doc', i)->'spec' AS s FROM generate_series(1, 60) i) x;
-- at every point of both axes; esync_as_of does not read beyond rows that tell enough
CREATE VIEW json_paths.points AS SELECT h, v, '2025-11-17'::timestamptz + make_interval(hours => h) AS as_of,
	'2025-11-30'::timestamptz + make_interval(mins => v) AS known_at
FROM unnest('{0,2,5,NULL}'::int[]) h, unnest('{1,3,6,NULL}'::int[]) v;
CREATE FUNCTION json_paths.wrong_states() RETURNS bigint LANGUAGE sql AS $$
SELECT count(*) FROM json_paths.points, (SELECT DISTINCT id FROM json_paths.edit WHERE version = 1 AND effective <= '2025-11-17') d
WHERE esync_state('json_paths.doc', id, as_of, known_at)->'spec' IS DISTINCT FROM json_paths.expected(id, v, as_of)
$$;
SELECT json_paths.wrong_states();
SELECT count(*) > 2000 AS many, count(*) FILTER (WHERE coalesce(spec, 'null') IS DISTINCT FROM json_paths.expected(id, v, as_of)) AS wrong
FROM json_paths.points, LATERAL esync_as_of(NULL::json_paths.doc, as_of, known_at);
-- each state and each bar, one event after the other
WITH o AS (SELECT id, version, row_number() OVER w AS n FROM (SELECT DISTINCT ON (id, version) * FROM json_paths.edit) e
	WINDOW w AS (PARTITION BY id ORDER BY effective, device NULLS FIRST, seq NULLS FIRST))
SELECT count(*) > 500 AS many, count(*) FILTER (WHERE r.state->'spec' IS DISTINCT FROM x) AS wrong_states,
	count(*) FILTER (WHERE f.value IS DISTINCT FROM x) AS wrong_values,
	count(*) FILTER (WHERE coalesce(f.previous_value, 'null') <> coalesce(lag, 'null') AND n > 1) AS wrong_previous
FROM (SELECT d.id, d.n, r.version, r.state, lag(r.state->'spec') OVER (PARTITION BY d.id ORDER BY d.n) AS lag
		FROM o d, LATERAL esync_replay('json_paths.doc', d.id) r WHERE r.version = d.version) r,
	LATERAL (SELECT r.state->'spec') s(x), LATERAL (SELECT value, previous_value FROM field_history('json_paths.doc', r.id, 'spec') h
		WHERE h.version = r.version OFFSET 0) f
WHERE NOT EXISTS (SELECT FROM json_paths.edit e
	WHERE e.id = r.id AND e.version = 1 AND e.effective > '2025-11-17');
-- the table as the events have it: nothing to report, and no drift at the next write
SET session_replication_role = replica;
INSERT INTO json_paths.doc SELECT id, NULL, nullif(json_paths.expected(id), 'null') FROM (SELECT DISTINCT id FROM json_paths.edit) d;
RESET session_replication_role;
SELECT * FROM esync_verify('json_paths.doc');
UPDATE json_paths.doc SET t = 'x';
SELECT event_type, count(*) FROM esync.event WHERE table_id = (SELECT table_id FROM esync.tracked_table WHERE relation = 'json_paths.doc'::regclass)
	AND patch = '[{"op": "replace", "path": "/t", "value": "x"}]' GROUP BY 1;
SELECT count(*) AS drift FROM esync.event WHERE event_type = 'Baseline' AND (flags & 32) <> 0
	AND table_id = (SELECT table_id FROM esync.tracked_table WHERE relation = 'json_paths.doc'::regclass);
SELECT * FROM esync_verify('json_paths.doc');
UPDATE json_paths.doc SET spec = jsonb_set(spec, '{a}', '"plain SQL"') WHERE id = 7;
SELECT esync_state('json_paths.doc', 7)->'spec' = spec AS same FROM json_paths.doc WHERE id = 7;

DROP OWNED BY json_paths_reader;
DROP ROLE json_paths_reader;
SELECT count(esync_disable(relation, true)) FROM esync.tracked_table WHERE schema_name = 'json_paths';
DROP SCHEMA json_paths CASCADE;
