-- Three-way merge of documents.
SET client_min_messages TO warning;
CREATE SCHEMA jm;
SET search_path = jm, public;
CREATE FUNCTION m(base jsonb, ours jsonb, theirs jsonb, arrays text DEFAULT 'atomic') RETURNS text LANGUAGE sql AS
	$$ SELECT merged::text || ' ' || conflicts::text FROM esync_merge(base, ours, theirs, arrays) $$;

-- NAME: one side, both alike, different members
SELECT m('{"a":1}', '{"a":1}', '{"a":1}'), m('{"a":1}', '{"a":2}', '{"a":1}'), m('{"a":1}', '{"a":1}', '{"a":2}'), m('{"a":1}', '{"a":2}', '{"a":2}');
SELECT m('{"a":1}', '{"a":1,"b":2}', '{"a":1,"c":3}'), m('{"a":1}', '{"a":1,"b":2}', '{"a":1,"b":2}');
SELECT m('{"a":1,"b":1}', '{"a":1}', '{"b":1}'), m('{"a":1,"b":1}', '{"b":1}', '{"b":1}'), m('{"a":1,"b":1}', '{"a":2}', '{"a":1,"b":1,"c":1}');
SELECT m('{"a":{"b":{"c":1,"d":1}}}', '{"a":{"b":{"c":2,"d":1}}}', '{"a":{"b":{"c":1,"d":2}}}');

-- NAME: null is a value, missing is not
SELECT m('{"a":1}', '{"a":null}', '{"a":1}'), m('{"a":1}', '{"a":null}', '{}'), m('{}', '{"a":null}', '{}'), m('{"a":null}', '{}', '{"a":null}');

-- NAME: every kind of conflict; ours is taken
SELECT m('{"a":1}', '{"a":2}', '{"a":3}');
SELECT m('{}', '{"a":2}', '{"a":3}');
SELECT m('{"a":1}', '{}', '{"a":3}');
SELECT m('{"a":1}', '{"a":2}', '{}');
SELECT m('{"a":1}', '{"a":{"b":1}}', '{"a":[1]}'), m('{"a":1}', '{"a":2}', '{"a":{}}');
SELECT m('{"a":[1]}', '{"a":[1,2]}', '{"a":[1,3]}');
SELECT m('1', '2', '3'), m('null', '[]', '{}'), m('1', '2', '1'), m('1', '1', '[1]');
-- deleted against edited deeper: the conflict is at what was deleted
SELECT m('{"a":{"b":{"c":1}}}', '{}', '{"a":{"b":{"c":2}}}'), m('{"a":{"b":{"c":1}}}', '{"a":{"b":{"c":2}}}', '{"a":{}}');
-- objects both added are merged; over something else they conflict
SELECT m('{}', '{"a":{"x":1,"z":1}}', '{"a":{"y":1,"z":2}}'), m('{"a":1}', '{"a":{"x":1}}', '{"a":{"y":1}}');
-- document order, escaped paths
SELECT m('{}', '{"b/c":1,"a~":1,"z":{"":1},"":1}', '{"b/c":2,"a~":2,"z":{"":2},"":2}');

-- NAME: 1.0 and 1.00 are no change
SELECT m('{"a":1.0}', '{"a":1.00}', '{"a":2}'), m('{"a":1}', '{"a":2.0}', '{"a":2.00}'), m('{"a":[1.0]}', '{"a":[1]}', '{"a":[2]}');

-- NAME: arrays, atomic: one side, both alike
SELECT m('{"a":[1,2]}', '{"a":[1,2,3]}', '{"a":[1,2]}'), m('{"a":[1,2]}', '{"a":[2]}', '{"a":[2]}'), m('{}', '{"a":[1]}', '{"a":[2]}');
SELECT m('{"a":[1],"b":1}', '{"a":[2],"b":1}', '{"a":[1],"b":2}'), m('{"a":[1]}', '{}', '{"a":[2]}');

-- NAME: arrays by key: edits of different elements, additions, removals
SELECT m('[{"id":1,"v":1},{"id":2,"v":1}]', '[{"id":1,"v":2},{"id":2,"v":1}]', '[{"id":1,"v":1},{"id":2,"v":2}]', 'keyed:id');
SELECT m('[{"id":1},{"id":2},{"id":3}]', '[{"id":1},{"id":9},{"id":2},{"id":3}]', '[{"id":8},{"id":1},{"id":2},{"id":7},{"id":6}]', 'keyed:id');
SELECT m('[{"id":1},{"id":2}]', '[{"id":2}]', '[{"id":1}]', 'keyed:id'), m('[]', '[{"id":1}]', '[{"id":2}]', 'keyed:id'), m('{}', '{"a":[{"id":1,"x":1}]}', '{"a":[{"id":1,"y":2},{"id":2}]}', 'keyed:id');
SELECT m('[{"id":1,"v":{"x":1}}]', '[{"id":1,"v":{"x":2}}]', '[{"id":1,"v":{"x":3}}]', 'keyed:id');
-- deleted against edited; the path is the index in base
SELECT m('[{"id":1},{"id":2,"v":1}]', '[{"id":1}]', '[{"id":0},{"id":1},{"id":2,"v":2}]', 'keyed:id');
SELECT m('[{"id":1},{"id":2,"v":1}]', '[{"id":0},{"id":1},{"id":2,"v":2}]', '[{"id":1}]', 'keyed:id');
-- added by both; the path is the index in ours
SELECT m('[{"id":1}]', '[{"id":1},{"id":5,"v":1}]', '[{"id":5,"v":2},{"id":1}]', 'keyed:id');
-- 1 and 1.0 are one key, "1" is another; nested arrays by the same key
SELECT m('[{"id":1,"v":1}]', '[{"id":1.0,"v":1,"w":1},{"id":"1"}]', '[{"id":1.00,"v":2}]', 'keyed:id');
SELECT m('[{"id":1,"l":[{"id":1,"v":1}]}]', '[{"id":1,"l":[{"id":1,"v":2}]}]', '[{"id":1,"l":[{"id":1,"v":1},{"id":2}]}]', 'keyed:id');

-- NAME: order: one side's, both alike, and both differently
SELECT m('[{"k":"a"},{"k":"b"},{"k":"c"}]', '[{"k":"a"},{"k":"b"},{"k":"c"}]', '[{"k":"c"},{"k":"x"},{"k":"a"},{"k":"b"}]', 'keyed:k');
SELECT m('[{"k":"a"},{"k":"b"},{"k":"c"}]', '[{"k":"c"},{"k":"a"},{"k":"y"},{"k":"b"}]', '[{"k":"a"},{"k":"b"},{"k":"x"},{"k":"c"}]', 'keyed:k');
SELECT m('[{"k":"a"},{"k":"b"},{"k":"c"}]', '[{"k":"c"},{"k":"b"},{"k":"a"}]', '[{"k":"c"},{"k":"b"},{"k":"a","v":1}]', 'keyed:k');
SELECT m('[{"k":"a","v":1},{"k":"b"},{"k":"c"}]', '[{"k":"c"},{"k":"a","v":1},{"k":"b"}]', '[{"k":"b"},{"k":"a","v":2},{"k":"c"}]', 'keyed:k');

-- NAME: no key or two the same: atomic, and the conflict says so
SELECT m('[{"id":1}]', '[{"id":1},{"x":1}]', '[{"id":1},{"id":2}]', 'keyed:id');
SELECT m('[{"id":1}]', '[{"id":1},{"id":1.0}]', '[{"id":1},{"id":2}]', 'keyed:id');
SELECT m('[{"id":null}]', '[{"id":3}]', '[1]', 'keyed:id'), m('[1]', '[1,2]', '[1]', 'keyed:id');

-- NAME: bad options
SELECT esync_merge('1', '2', '3', 'diff3');
SELECT esync_merge('1', '2', '3', 'keyed:');
\set VERBOSITY sqlstate
SELECT esync_merge('1', '2', '3', 'diff3');
\set VERBOSITY default
SELECT esync_merge(NULL, '2', '3') IS NULL AS strict;

-- NAME: laws, for random documents
SELECT setseed(0.17);
CREATE FUNCTION scalar() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT ('{"null",true,0,1,1.0,1.00,"\"\"","\"a\""}'::text[])[1 + floor(random() * 8)::int]::jsonb $$;
CREATE FUNCTION rkey() RETURNS text LANGUAGE sql VOLATILE AS
	$$ SELECT (ARRAY['a', 'b', '', '/', '~', '0', '-', 'a/b', 'm~n', 'é'])[1 + floor(random() * 10)::int] $$;
CREATE FUNCTION make(depth int) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	v jsonb := '{}';
	r float := random();
BEGIN
	IF depth >= 4 OR depth > 0 AND r < 0.4 THEN RETURN scalar(); END IF;
	IF r < 0.8 THEN
		FOR i IN 1..floor(random() * 6)::int LOOP v := v || jsonb_build_object(rkey(), make(depth + 1)); END LOOP;
		RETURN v;
	END IF;
	v := '[]';
	FOR i IN 1..5 LOOP
		IF random() < 0.6 THEN v := v || jsonb_build_array(jsonb_build_object('id', i, 'v', scalar(), 'w', make(depth + 2))); END IF;
	END LOOP;
	RETURN v;
END $$;
CREATE FUNCTION edit(v jsonb, depth int) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	w jsonb := '{}';
	e jsonb;
	k text;
BEGIN
	IF depth > 0 AND random() < 0.05 THEN RETURN make(depth); END IF;
	IF jsonb_typeof(v) = 'object' THEN
		FOR k, e IN SELECT * FROM jsonb_each(v) LOOP
			CONTINUE WHEN k <> 'id' AND random() < 0.1;
			w := w || jsonb_build_object(k, CASE WHEN k <> 'id' AND random() < 0.5 THEN edit(e, depth + 1) ELSE e END);
		END LOOP;
		IF random() < 0.3 THEN w := w || jsonb_build_object(rkey(), make(depth + 1)); END IF;
		RETURN w;
	ELSIF jsonb_typeof(v) = 'array' THEN
		w := '[]';
		FOR e IN SELECT * FROM jsonb_array_elements(v) LOOP
			CONTINUE WHEN random() < 0.15;
			w := CASE WHEN random() < 0.15 THEN jsonb_build_array(edit(e, depth + 1)) || w ELSE w || jsonb_build_array(edit(e, depth + 1)) END;
		END LOOP;
		IF random() < 0.3 THEN w := w || jsonb_build_array(jsonb_build_object('id', 10 + floor(random() * 5)::int)); END IF;
		RETURN w;
	END IF;
	RETURN CASE WHEN random() < 0.4 THEN scalar() ELSE v END;
END $$;
CREATE TABLE docs AS SELECT b, edit(b, 0) AS x, edit(b, 0) AS y FROM (SELECT make(0) AS b FROM generate_series(1, 2000) OFFSET 0) s;
-- the conflicts with ours and theirs exchanged
CREATE FUNCTION swap(conflicts jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT coalesce(jsonb_agg(c - '{ours,theirs}'::text[] || CASE WHEN c ? 'theirs' THEN jsonb_build_object('ours', c->'theirs') ELSE '{}' END
		|| CASE WHEN c ? 'ours' THEN jsonb_build_object('theirs', c->'ours') ELSE '{}' END
		|| CASE c->>'kind' WHEN 'edit/delete' THEN '{"kind":"delete/edit"}' WHEN 'delete/edit' THEN '{"kind":"edit/delete"}' ELSE '{}'::jsonb END ORDER BY n), '[]')
	FROM jsonb_array_elements(conflicts) WITH ORDINALITY AS u(c, n) $$;
SELECT arrays, count(*) AS documents, count(*) FILTER (WHERE q.conflicts <> '[]') > 100 AS many_conflict,
	count(*) FILTER (WHERE q.conflicts = '[]' AND b <> x AND b <> y AND x <> y) > 100 AS many_clean,
	count(*) FILTER (WHERE (esync_merge(b, x, b, arrays)).merged <> x OR (esync_merge(b, x, b, arrays)).conflicts <> '[]') AS only_ours,
	count(*) FILTER (WHERE (esync_merge(b, b, x, arrays)).merged <> x OR (esync_merge(b, b, x, arrays)).conflicts <> '[]') AS only_theirs,
	count(*) FILTER (WHERE (esync_merge(b, x, x, arrays)).merged <> x OR (esync_merge(b, x, x, arrays)).conflicts <> '[]') AS both_alike,
	count(*) FILTER (WHERE esync_patch(x, esync_diff(x, q.merged)) <> q.merged) AS diff_law
FROM docs, unnest('{atomic,keyed:id}'::text[]) arrays, esync_merge(b, x, y, arrays) q GROUP BY arrays ORDER BY arrays;
-- exchanging the sides exchanges them in the conflicts, and changes nothing else
SELECT count(*) FILTER (WHERE swap(p.conflicts) <> q.conflicts) AS conflicts_differ,
	count(*) FILTER (WHERE p.conflicts = '[]' AND p.merged <> q.merged) AS merged_differs
FROM docs, esync_merge(b, x, y) p, esync_merge(b, y, x) q;
-- each path is on some side, and what ours alone changed is in the result
SELECT count(*) AS not_found FROM docs, esync_merge(b, x, y) q, jsonb_array_elements(q.conflicts) c,
	LATERAL (SELECT coalesce(array_agg(replace(replace(t, '~1', '/'), '~0', '~') ORDER BY n), '{}') AS path
		FROM unnest((string_to_array(c->>'path', '/'))[2:]) WITH ORDINALITY AS u(t, n)) t
WHERE b #> path IS DISTINCT FROM c->'base' OR x #> path IS DISTINCT FROM c->'ours' OR y #> path IS DISTINCT FROM c->'theirs'
	OR q.merged #> path IS DISTINCT FROM c->'ours';

-- NAME: depth and breadth
SELECT merged = ours AS same, conflicts->0->>'kind' AS kind, length(conflicts->0->>'path') AS path
FROM (SELECT (repeat('{"a":', 1500) || '1' || repeat('}', 1500))::jsonb AS base, (repeat('{"a":', 1500) || '2' || repeat('}', 1500))::jsonb AS ours,
	(repeat('{"a":', 1500) || '3' || repeat('}', 1500))::jsonb AS theirs) d, esync_merge(base, ours, theirs);
SELECT jsonb_array_length(merged), conflicts FROM (SELECT jsonb_agg(jsonb_build_object('id', i) ORDER BY i) FILTER (WHERE i <= 9000) AS base,
	jsonb_agg(jsonb_build_object('id', i) ORDER BY i) FILTER (WHERE i <= 9000 AND i % 3 > 0) AS ours, jsonb_agg(jsonb_build_object('id', i) ORDER BY i) FILTER (WHERE i % 3 < 2) AS theirs
	FROM generate_series(1, 10000) i) d, esync_merge(base, ours, theirs, 'keyed:id');
DROP SCHEMA jm CASCADE;
