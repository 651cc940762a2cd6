-- JSON Patch (RFC 6902) and Merge Patch (RFC 7396) on jsonb, without any tracked table.
\set ECHO none
SET client_min_messages TO warning;
CREATE SCHEMA jp;
-- what a patch makes of a document, or its error in short
CREATE FUNCTION jp.go(doc jsonb, patch jsonb) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(result::text, (error->>'code') || ' ' || coalesce(error->>'op', '-') || ': ' || (error->>'message')) FROM esync_try_patch(doc, patch) $$;
CREATE FUNCTION jp.op(op text, path text, value jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
$$ SELECT jsonb_build_array(jsonb_build_object('op', op, 'path', path, 'value', value)) $$;
-- are the bytes those that jsonb_in makes of the same text
CREATE FUNCTION jp.canonical(doc jsonb) RETURNS boolean LANGUAGE sql AS
$$ SELECT record_image_eq(ROW(doc), ROW(doc::text::jsonb)) $$;
\set ECHO all
SET search_path = jp, public;
\set VERBOSITY verbose
\set SHOW_CONTEXT never
\pset format unaligned
\pset tuples_only on

-- NAME: an error names the operation, counted from 0, its name and its pointers
\set VERBOSITY default
SELECT esync_patch('{"a": {"b": 1}}', '[{"op": "add", "path": "/c", "value": 1}, {"op": "test", "path": "/a", "value": 1}]');
SELECT esync_patch('{"a": 1}', '[{"op": "copy", "from": "/x", "path": "/b"}]');
SELECT esync_patch('{"a": 1}', '{"op": "copy"}');
SELECT esync_patch(jsonb_build_object('a', repeat('é', 80)), '[{"op": "test", "path": "/a", "value": 1}]');
SELECT esync_patch(jsonb_build_object('a', repeat('é', 80)), jsonb_build_array(jsonb_build_object('op', 'remove', 'path', '/' || repeat('é', 300))));
SELECT esync_patch(jsonb_build_object('a', jsonb_agg(i)), '[{"op": "test", "path": "/a", "value": 1}]') FROM generate_series(1, 200) i;
\set VERBOSITY sqlstate
SELECT esync_patch('{"a": 1}', '[{"op": "test", "path": "/a", "value": 2}]');
SELECT esync_patch('[1]', '[{"op": "remove", "path": "/1"}]');
\set VERBOSITY default
SELECT * FROM esync_try_patch('{"a": 1}', '[{"op": "test", "path": "/a", "value": 1}, {"op": "remove", "path": "/b~1c"}]');
SELECT error FROM esync_try_patch('{}', '"x"');
SELECT result IS NULL, error IS NULL FROM esync_try_patch('null', '[]');
SELECT esync_patch(NULL, '[]') IS NULL, esync_patch('{}', NULL) IS NULL, esync_try_patch(NULL, '[]') IS NULL;

-- NAME: the six operations
SELECT go('{"a": 1}', '[{"op": "add", "path": "/b", "value": [1]}, {"op": "add", "path": "/b/0", "value": 0}, {"op": "add", "path": "/b/-", "value": 2}, {"op": "add", "path": "/b/3", "value": 3}]');
SELECT go('{"a": 1}', '[{"op": "add", "path": "/a", "value": null}]');
SELECT go('{"a": [1, 2, 3], "b": 1}', '[{"op": "remove", "path": "/a/1"}, {"op": "remove", "path": "/b"}]');
SELECT go('{"a": [1, 2, 3], "b": 1}', '[{"op": "replace", "path": "/a/2", "value": {}}, {"op": "replace", "path": "/b", "value": "x"}]');
SELECT go('{"a": [1, 2, 3]}', '[{"op": "move", "from": "/a/0", "path": "/a/2"}]');
SELECT go('{"a": [1, 2, 3]}', '[{"op": "move", "from": "/a/0", "path": "/a/3"}]');
SELECT go('{"a": [1, 2, 3]}', '[{"op": "move", "from": "/a/0", "path": "/a/-"}]');
SELECT go('{"a": [{"x": 1}]}', '[{"op": "copy", "from": "/a/0", "path": "/a/0"}, {"op": "replace", "path": "/a/0/x", "value": 2}, {"op": "copy", "from": "/a/0", "path": "/b"}, {"op": "remove", "path": "/b/x"}]');
SELECT go('{"a": {"x": [1, 2]}}', '[{"op": "test", "path": "/a", "value": {"x": [1, 2]}}, {"op": "test", "path": "/a/x/1", "value": 2}]');

-- NAME: move into itself, by tokens and not by text
SELECT go('{"a": {"b": 1}}', '[{"op": "move", "from": "/a", "path": "/a/b"}]');
SELECT go('{"a": {"b": 1}}', '[{"op": "move", "from": "", "path": "/a"}]');
SELECT go('{"key": {"b": 1}}', '[{"op": "move", "from": "/key/b", "path": "/key/bb"}]');
SELECT go('{"a/b": 1}', '[{"op": "move", "from": "/a~1b", "path": "/a~1b"}]');
SELECT go('{"a": 1}', '[{"op": "move", "from": "/x", "path": "/x"}]');
SELECT go('{"a": 1}', '[{"op": "move", "from": "", "path": ""}]');
SELECT go('{"a": {"b": [1]}}', '[{"op": "move", "from": "/a/b", "path": "/a"}]');
SELECT go('{"a": {"b": [1]}}', '[{"op": "move", "from": "/a/b", "path": ""}]');
SELECT go('{"a": [[], [1]]}', '[{"op": "move", "from": "/a/0", "path": "/a/0/0"}]');
SELECT go('{"a": [[1], [2]]}', '[{"op": "move", "from": "/a/1", "path": "/a/0/0"}, {"op": "move", "from": "/a/0/0", "path": "/a/0"}]');

-- NAME: copy into itself, from and to the root
SELECT go('{"a": {"b": 1}}', '[{"op": "copy", "from": "/a", "path": "/a/b"}, {"op": "add", "path": "/a/b/c", "value": 2}]');
SELECT go('{"a": 1}', '[{"op": "copy", "from": "", "path": "/b"}, {"op": "copy", "from": "", "path": "/b/c"}]');
SELECT go('{"a": [1]}', '[{"op": "copy", "from": "/a", "path": ""}]');

-- NAME: test: numbers by value, null is not missing, order of members does not count
SELECT go('{"a": 1.0}', op('test', '/a', '1')), go('{"a": 1}', op('test', '/a', '1e0')), go('[1.10]', op('test', '', '[1.1]'));
SELECT go('{"a": "1"}', op('test', '/a', '1')), go('{"a": null}', op('test', '/a', 'null')), go('{"a": 0}', op('test', '/a', 'false'));
SELECT go('{}', op('test', '/a', 'null'));
SELECT go('{"b": 1, "a": {"d": [1, {"x": 2}], "c": 1}}', '[{"op": "add", "path": "/a/d/1/y", "value": 3}, {"op": "test", "path": "", "value": {"a": {"c": 1.0, "d": [1, {"y": 3, "x": 2}]}, "b": 1}}]');
SELECT go('[1, 2]', '[{"op": "add", "path": "/0", "value": 0}, {"op": "test", "path": "", "value": [0, 2, 1]}]');
SELECT go('"x"', op('test', '', '["x"]')), go('["x"]', op('test', '', '"x"')), go('"x"', op('test', '', '"x"'));
SELECT go('[]', op('test', '', '{}')), go('{"a": [1, 2]}', op('test', '/a', '[1]')), go('{"a": {"b": 1}}', op('test', '/a', '{"c": 1}'));

-- NAME: escapes in one pass, and nothing but ~0 and ~1
SELECT go('{"~1": 1, "/": 2, "m~n": 3, "": 4}', '[{"op": "replace", "path": "/~01", "value": "a"}, {"op": "replace", "path": "/~1", "value": "b"}, {"op": "replace", "path": "/m~0n", "value": "c"}, {"op": "replace", "path": "/", "value": "d"}]');
SELECT go('{}', op('add', '/~2', '1')), go('{}', op('add', '/a~', '1')), go('{}', op('add', '/~', '1')), go('{}', op('add', 'a', '1')), go('{}', op('add', '#/a', '1'));
SELECT go('{"foo": {}}', '[{"op": "add", "path": "/foo/", "value": 1}, {"op": "add", "path": "//", "value": 2}]'), go('{"foo": {"": {}}}', op('add', '/foo//', '1'));

-- NAME: "-" only where something is added
SELECT go('[1]', op('remove', '/-', '1')), go('[1]', op('replace', '/-', '1')), go('[1]', op('test', '/-', '1')), go('[[1]]', op('add', '/-/0', '1'));
SELECT go('[1]', '[{"op": "copy", "from": "/-", "path": "/0"}]'), go('[1]', '[{"op": "move", "from": "/-", "path": "/0"}]'), go('[1]', '[{"op": "move", "from": "/-", "path": "/-"}]');
SELECT go('{"-": 1, "0": 2, "01": 3}', '[{"op": "remove", "path": "/-"}, {"op": "replace", "path": "/01", "value": 4}, {"op": "copy", "from": "/0", "path": "/-"}]');

-- NAME: indexes are 0 or begin with 1-9, and lie in the array
SELECT path, go('[1, 2]', op('add', path, '0')) FROM unnest('{/2,/3,/00,/01,/+1,/-1,/1e0,/ 1,"/1 ",/,/a,/2147483647,/2147483648,/4294967296,/18446744073709551616,/99999999999999999999,/1.0,/٣}'::text[]) path;
SELECT path, go('[1, 2]', op('replace', path, '0')) FROM unnest('{/0,/1,/2,/4294967296}'::text[]) path;

-- NAME: remove, replace of nothing, no parents made, scalars have no children
SELECT go('{"a": 1}', op('remove', '', '0')), go('{"a": 1}', op('remove', '/b', '0')), go('{}', op('replace', '/b', '0')), go('{}', op('add', '/a/b', '0'));
SELECT go('{"a": "foo"}', op('add', '/a/b', '0')), go('{"a": "foo"}', op('add', '/a/0', '0')), go('{"a": null}', op('add', '/a/-', '0')), go('{"a": 5}', op('remove', '/a/b/c', '0'));
SELECT go('[1]', '[{"op": "copy", "from": "/0/x", "path": "/0"}]');

-- NAME: root and scalar
SELECT go('"x"', op('replace', '', '[1]')), go('[1]', op('replace', '', '"x"')), go('{}', op('add', '', 'null')), go('1', op('add', '/a', '1')), go('1.50', '[]');
SELECT go('1', '[{"op": "replace", "path": "", "value": {}}, {"op": "add", "path": "/a", "value": 1}, {"op": "replace", "path": "", "value": 2}, {"op": "copy", "from": "", "path": ""}]');

-- NAME: what is not a patch
SELECT go('{}', '{}'), go('{}', '1'), go('{}', 'null'), go('{}', '[1]'), go('{}', '[[]]'), go('{}', '[{}]'), go('{}', '[null]');
SELECT go('{}', '[{"op": 1, "path": ""}]'), go('{}', '[{"op": null, "path": ""}]'), go('{}', '[{"op": "spam", "path": ""}]'), go('{}', '[{"op": "Add", "path": "", "value": 1}]'), go('{}', '[{"OP": "add", "path": "", "value": 1}]');
SELECT go('{}', '[{"op": "add", "value": 1}]'), go('{}', '[{"op": "add", "path": null, "value": 1}]'), go('{}', '[{"op": "add", "path": 1, "value": 1}]'), go('{}', '[{"op": "add", "path": ["a"], "value": 1}]');
SELECT go('{}', '[{"op": "copy", "path": ""}]'), go('{}', '[{"op": "move", "path": "", "from": null}]'), go('{}', '[{"op": "copy", "path": "", "from": 1}]');
SELECT go('{"a": 1}', '[{"op": "remove", "path": "/a", "from": 7, "value": 1, "note": [1]}]');

-- NAME: a missing value is an error even where null would do; a null value is a value
SELECT go('{"a": null}', '[{"op": "add", "path": "/a"}]'), go('{"a": null}', '[{"op": "replace", "path": "/a"}]'), go('{"a": null}', '[{"op": "test", "path": "/a"}]');
SELECT go('{"a": 1}', op('add', '/a', 'null')), go('{"a": 1}', op('replace', '/a', 'null')), go('{"a": 1}', op('test', '/a', 'null'));

-- NAME: all or nothing
CREATE TABLE doc (d jsonb);
INSERT INTO doc VALUES ('{"a": [1, 2], "b": {"c": 1}}');
UPDATE doc SET d = esync_patch(d, '[{"op": "remove", "path": "/a/0"}, {"op": "add", "path": "/b/d", "value": 2}, {"op": "remove", "path": "/nope"}]');
SELECT d, go(d, '[{"op": "remove", "path": "/a/0"}, {"op": "add", "path": "/b/d", "value": 2}, {"op": "remove", "path": "/nope"}]'), d = '{"a": [1, 2], "b": {"c": 1}}' FROM doc;

-- NAME: keys beyond the basic plane, in stored order
SELECT go('{"😀": {"é": 1}}', '[{"op": "add", "path": "/😀/ü", "value": 2}, {"op": "add", "path": "/😀/z", "value": 3}, {"op": "move", "from": "/😀/é", "path": "/\ud83d\ude01"}]');

-- NAME: a patch of 1000 operations
SELECT md5(r::text) = md5(x::text), canonical(r) FROM
	(SELECT esync_patch('{}', jsonb_agg(jsonb_build_object('op', 'add', 'path', '/k' || i, 'value', i) ORDER BY i DESC)) AS r, jsonb_object_agg('k' || i, i) AS x FROM generate_series(1, 1000) i) s;

-- NAME: the copy bomb
SELECT go('{"a": []}', '[{"op": "add", "path": "/a/-", "value": "0123456789"}]' || jsonb_agg('{"op": "copy", "from": "/a", "path": "/a/-"}'::jsonb)) FROM generate_series(1, 40) i;
SELECT go(jsonb_build_object('a', repeat('x', 1000000)), jsonb_agg(jsonb_build_object('op', 'copy', 'from', '/a', 'path', '/b'))) FROM generate_series(1, 70) i;
SELECT length(go(jsonb_build_object('a', repeat('x', 1000000)), jsonb_agg(jsonb_build_object('op', 'copy', 'from', '/a', 'path', '/b')))) FROM generate_series(1, 60) i;

-- NAME: depth 5000
SET max_stack_depth = '6MB';
CREATE TABLE deep AS SELECT (repeat('{"a":[', 2500) || '1' || repeat(']}', 2500))::jsonb AS d, repeat('/a/0', 2500) AS path;
SELECT r = (repeat('{"a":[', 2500) || '1,2' || repeat(']}', 2500))::jsonb, canonical(r), esync_patch(r, esync_invert(d, p))::text = d::text
FROM deep, op('add', path || '' , '2') o, LATERAL (SELECT jsonb_set(o, '{0,path}', to_jsonb(left(path, -1) || '1')) AS p) p, LATERAL (SELECT esync_patch(d, p) AS r) r;
SELECT go(d, op('test', '', d)) = d::text, go(d, op('test', path, '1')) = d::text, left(go(d, op('add', path || '/b', '1')), 30) FROM deep;
SELECT esync_merge_patch('{}', esync_patch(d, '[]')) = d, esync_merge_patch(d, d) = d FROM deep;

-- too deep for the stack is a value as well
SET max_stack_depth = '100kB';
SELECT go(d, op('add', path, '2')), go(d, '[]') IS NOT NULL FROM deep;
SELECT esync_patch(d, op('add', path, '2')) FROM deep;
SELECT esync_invert(d, op('add', path, '2') || '[{"op": "replace", "path": "", "value": 1}]') FROM deep;
SELECT go(d, op('add', path, '2') || '[{"op": "copy", "from": "", "path": "/b"}]') FROM deep;
RESET max_stack_depth;

-- NAME: inputs toasted, compressed, with a short header
CREATE TABLE kept (name text, d jsonb, p jsonb);
ALTER TABLE kept ALTER d SET STORAGE PLAIN;
INSERT INTO kept VALUES ('short', '{"a": [1, 2]}', '[{"op": "add", "path": "/a/1", "value": 1.5}]');
ALTER TABLE kept ALTER d SET STORAGE EXTERNAL;
INSERT INTO kept SELECT 'external', jsonb_build_object('a', jsonb_agg(md5(i::text))), '[{"op": "add", "path": "/a/1", "value": 1.5}]' FROM generate_series(1, 200) i;
ALTER TABLE kept ALTER d SET STORAGE MAIN;
INSERT INTO kept SELECT 'compressed', jsonb_build_object('a', jsonb_agg(repeat('x', 100))), '[{"op": "add", "path": "/a/1", "value": 1.5}]' FROM generate_series(1, 100) i;
ALTER TABLE kept ALTER d SET STORAGE EXTENDED;
INSERT INTO kept SELECT 'both', jsonb_build_object('a', jsonb_agg(repeat(md5(i::text), 4))), jsonb_agg(jsonb_build_object('op', 'add', 'path', '/a/1', 'value', repeat(md5(i::text), 4))) FROM generate_series(1, 2000) i;
SELECT name, pg_column_size(d) < length(d::text) AS small, esync_patch(d, p) = esync_patch(d::text::jsonb, p::text::jsonb) AS patch, canonical(esync_patch(d, p)) AS bytes,
	esync_patch(esync_patch(d, p), esync_invert(d, p))::text = d::text AS invert, (esync_try_patch(d, p)).result = esync_patch(d, p) AS try, esync_merge_patch(d, '{"b": 1}') = d || '{"b": 1}' AS merge,
	(SELECT esync_patch_agg(x.d, x.p) FROM (SELECT k.d, k.p OFFSET 0) x) = esync_patch(d, p) AS agg FROM kept k ORDER BY name;

-- NAME: containers around the stride of offsets, and alignment after odd strings
SELECT n, odd, bool_and(canonical(r)) AS bytes, bool_and(r = x) AS same, bool_and(esync_patch(r, inv)::text = d::text) AS invert FROM (
	SELECT n, odd, d, esync_patch(d, p) AS r, jsonb_insert(d, ARRAY['a', at::text], '2.50') #- '{o,k1}' AS x, esync_invert(d, p) AS inv
	FROM unnest('{0,1,30,31,32,33,63,64,65,127,128}'::int[]) n, generate_series(0, 3) odd, LATERAL unnest(ARRAY[0, n / 2, n]) at,
		LATERAL (SELECT jsonb_build_object('a', coalesce((SELECT jsonb_agg(CASE i % 3 WHEN 0 THEN to_jsonb(i) WHEN 1 THEN to_jsonb(repeat('s', odd)) ELSE jsonb_build_array(i) END) FROM generate_series(1, n) i), '[]'),
			'o', coalesce((SELECT jsonb_object_agg('k' || i, CASE WHEN i % 2 = 0 THEN to_jsonb(i) ELSE to_jsonb(repeat('s', odd)) END) FROM generate_series(1, n + 1) i), '{}')) AS d) d,
		LATERAL (SELECT jsonb_build_array(jsonb_build_object('op', 'add', 'path', '/a/' || at, 'value', 2.50), '{"op": "remove", "path": "/o/k1"}'::jsonb) AS p) p) s
GROUP BY n, odd HAVING NOT bool_and(canonical(r) AND r = x AND esync_patch(r, inv)::text = d::text) OR (n, odd) IN ((32, 1), (65, 3)) ORDER BY n, odd;

-- NAME: inverses: scale, order, "-", moves that overwrite or go up and down
CREATE TABLE inverse (d jsonb, p jsonb);
INSERT INTO inverse VALUES
	('{"a": 1.0}', '[{"op": "replace", "path": "/a", "value": 1.00}]'),
	('{"a": 1.0}', '[{"op": "add", "path": "/a", "value": 2}, {"op": "add", "path": "/b", "value": 2}, {"op": "test", "path": "/b", "value": 2}]'),
	('[1, 2]', '[{"op": "add", "path": "/-", "value": 3}, {"op": "add", "path": "/-", "value": 4}]'),
	('[1, 2, 3]', '[{"op": "move", "from": "/0", "path": "/-"}]'),
	('[1, 2, 3]', '[{"op": "move", "from": "/2", "path": "/0"}]'),
	('{"a": {"b": 1.0}, "c": 2}', '[{"op": "move", "from": "/a/b", "path": "/c"}]'),
	('{"a": {"b": 1.0, "c": 2}}', '[{"op": "move", "from": "/a/b", "path": "/a"}]'),
	('[[1.0], 0, {"x": 2}]', '[{"op": "move", "from": "/0", "path": "/1/x"}]'),
	('[0, {"x": 2}]', '[{"op": "move", "from": "/1/x", "path": "/1"}]'),
	('{"a": {"b": [1.0]}}', '[{"op": "move", "from": "/a/b", "path": ""}, {"op": "add", "path": "/0", "value": 1}]'),
	('{"a": [1], "b": 0}', '[{"op": "move", "from": "/a", "path": "/b"}, {"op": "add", "path": "/b/-", "value": 2}, {"op": "copy", "from": "", "path": "/c"}, {"op": "remove", "path": "/c/b/0"}]'),
	('{"a/b": [1], "m~n": 1}', '[{"op": "add", "path": "/a~1b/-", "value": 2}, {"op": "remove", "path": "/m~0n"}]'),
	('1.50', '[{"op": "replace", "path": "", "value": {}}, {"op": "add", "path": "/a", "value": 1}, {"op": "remove", "path": "/a"}]');
SELECT p, esync_invert(d, p), esync_patch(esync_patch(d, p), esync_invert(d, p))::text = d::text AS law, canonical(esync_invert(d, p)) AS bytes FROM inverse ORDER BY d::text COLLATE "C", p::text COLLATE "C";
SELECT esync_invert('{}', '[{"op": "remove", "path": "/a"}]');
-- moves that overwrite write the value into the inverse each time; that is bounded as copies are
SELECT length(esync_invert(doc, patch)::text) FROM (SELECT jsonb_build_object('a', repeat('x', 1000000)) AS doc, jsonb_agg(o ORDER BY i, n) AS patch FROM generate_series(1, 3) i,
	jsonb_array_elements('[{"op": "add", "path": "/b", "value": 1}, {"op": "move", "from": "/a", "path": "/b"}, {"op": "move", "from": "/b", "path": "/a"}]') WITH ORDINALITY AS e (o, n)) s;
SELECT esync_invert(doc, patch) FROM (SELECT jsonb_build_object('a', repeat('x', 1000000)) AS doc, jsonb_agg(o ORDER BY i, n) AS patch FROM generate_series(1, 80) i,
	jsonb_array_elements('[{"op": "add", "path": "/b", "value": 1}, {"op": "move", "from": "/a", "path": "/b"}, {"op": "move", "from": "/b", "path": "/a"}]') WITH ORDINALITY AS e (o, n)) s;

-- NAME: the law of inverses and canonical bytes, on random documents and patches
CREATE FUNCTION val(depth int) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE r float := random(); n int := CASE WHEN random() < 0.1 THEN 30 + (random() * 40)::int ELSE (random() * 4)::int END;
BEGIN
	IF depth <= 0 OR r < 0.3 THEN
		RETURN ('[null, true, false, 0, 1, 1.0, 1.00, -1, 1e20, "", "a", "odd", "longer text"]'::jsonb)->(random() * 12)::int;
	ELSIF r < 0.65 THEN
		RETURN coalesce((SELECT jsonb_object_agg(('["a", "b", "", "/", "~", "0", "01", "-", "aa", "a/b", "m~n", "~1", "é", "😀"]'::jsonb)->>(random() * 13)::int, val(depth - 1)) FROM generate_series(1, n % 5)), '{}');
	END IF;
	RETURN coalesce((SELECT jsonb_agg(val(depth - 1 - n / 30)) FROM generate_series(1, n)), '[]');
END $$;
CREATE FUNCTION place(doc jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE p text := ''; k text; d jsonb := doc;
BEGIN
	LOOP
		IF random() < 0.25 OR jsonb_typeof(d) NOT IN ('object', 'array') THEN RETURN p; END IF;
		IF jsonb_typeof(d) = 'array' THEN
			k := CASE WHEN random() < 0.2 THEN '-' ELSE (random() * jsonb_array_length(d))::int::text END;
			d := CASE WHEN k <> '-' THEN d->k::int END;
		ELSE
			SELECT x INTO k FROM (SELECT jsonb_object_keys(d) AS x UNION SELECT 'new') s ORDER BY random() LIMIT 1;
			d := d->k;
		END IF;
		p := p || '/' || replace(replace(k, '~', '~0'), '/', '~1');
		IF d IS NULL THEN RETURN p; END IF;
	END LOOP;
END $$;
CREATE FUNCTION mutate(doc jsonb, OUT patch jsonb, OUT result jsonb) LANGUAGE plpgsql AS $$
DECLARE o jsonb; t record;
BEGIN
	patch := '[]'; result := doc;
	FOR i IN 1 .. 12 LOOP
		o := jsonb_build_object('op', ('{add,add,remove,replace,move,move,copy}'::text[])[1 + (random() * 6)::int], 'path', place(result), 'from', place(result), 'value', val(2));
		SELECT * INTO t FROM esync_try_patch(result, jsonb_build_array(o));
		IF t.error IS NULL THEN patch := patch || o; result := t.result; END IF;
	END LOOP;
END $$;
SELECT setseed(0.42);
CREATE TABLE random_case AS SELECT i, d, m.* FROM (SELECT i, val(4) AS d FROM generate_series(1, 400) i OFFSET 0) s, LATERAL mutate(d) m;
SELECT count(*), sum(jsonb_array_length(patch)) > 1000 AS many FROM random_case;
SELECT i, d, patch FROM random_case WHERE esync_patch(d, patch)::text <> result::text OR NOT canonical(esync_patch(d, patch));
SELECT i, d, patch, esync_invert(d, patch) FROM random_case WHERE esync_patch(esync_patch(d, patch), esync_invert(d, patch))::text IS DISTINCT FROM d::text;
SELECT i, d, patch FROM random_case WHERE NOT canonical(esync_invert(d, patch)) OR esync_invert(esync_patch(d, patch), esync_invert(d, patch)) IS NULL;
SELECT i FROM random_case c WHERE (SELECT esync_patch_agg(c.d, CASE WHEN n > 0 THEN jsonb_build_array(o) END ORDER BY n) FROM (SELECT o, n FROM jsonb_array_elements(c.patch) WITH ORDINALITY AS e (o, n) UNION ALL SELECT NULL, 0) s)::text IS DISTINCT FROM result::text AND jsonb_array_length(patch) > 0;

-- NAME: merge patch, appendix A of RFC 7396
SELECT esync_merge_patch(d, p) = r AS ok, d, p, esync_merge_patch(d, p) FROM (VALUES
	('{"a":"b"}'::jsonb, '{"a":"c"}'::jsonb, '{"a":"c"}'::jsonb), ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'), ('{"a":"b"}', '{"a":null}', '{}'), ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
	('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'), ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'), ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'), ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
	('["a","b"]', '["c","d"]', '["c","d"]'), ('{"a":"b"}', '["c"]', '["c"]'), ('{"a":"foo"}', 'null', 'null'), ('{"a":"foo"}', '"bar"', '"bar"'),
	('{"e":null}', '{"a":1}', '{"e":null,"a":1}'), ('[1,2]', '{"a":"b","c":null}', '{"a":"b"}'), ('{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}')) v (d, p, r);
SELECT esync_merge_patch('{"a": 1.0}', '{"b": [null, {"c": null}]}'), esync_merge_patch('1', '{"a": {"b": null, "c": 1.00}}'), esync_merge_patch('"x"', '{}'), esync_merge_patch('{"a": {"b": 1}}', '{"a": {"b": {"c": null}}}');
SELECT bool_and(canonical(esync_merge_patch(d, result))) FROM random_case;

-- NAME: many patches folded
SELECT esync_patch_agg('{"n": 0}', patch ORDER BY i DESC) FROM (SELECT i, jsonb_build_array(jsonb_build_object('op', 'replace', 'path', '/n', 'value', i)) AS patch FROM generate_series(1, 1000) i) s;
SELECT esync_patch_agg(doc, patch ORDER BY i) FROM (VALUES (1, NULL::jsonb, '[{"op": "remove", "path": "/lost"}]'::jsonb), (2, '{"a": 1}', NULL), (3, '{"ignored": 1}', '[{"op": "add", "path": "/b", "value": 2}]'), (4, NULL, '[]')) v (i, doc, patch);
SELECT esync_patch_agg(NULL, '[]') IS NULL, esync_patch_agg('{}', NULL), (SELECT esync_patch_agg('{}', '[]') WHERE false) IS NULL, (SELECT esync_patch_agg('1', '[]') FROM generate_series(1, 0)) IS NULL;
SELECT i, esync_patch_agg('{"n": []}', patch) OVER (ORDER BY i) AS grown, esync_patch_agg('{"n": []}', patch) OVER (ORDER BY i ROWS 1 PRECEDING) AS last_two, esync_patch_agg('{"n": []}', patch) OVER (ORDER BY i DESC) AS down
FROM (SELECT i, jsonb_build_array(jsonb_build_object('op', 'add', 'path', '/n/-', 'value', i)) AS patch FROM generate_series(1, 4) i) s ORDER BY i;
SELECT g, esync_patch_agg('{}', patch ORDER BY i) FROM (SELECT i, i % 3 AS g, op('add', '/k' || i % 4, to_jsonb(i)) AS patch FROM generate_series(1, 30) i) s GROUP BY g ORDER BY g;
SET search_path = jp, public;
\set SHOW_CONTEXT always
SELECT esync_patch_agg('{"n": 0}', patch ORDER BY i) FROM (VALUES (1, '[]'::jsonb), (2, '[{"op": "test", "path": "/n", "value": 0}, {"op": "test", "path": "/n", "value": 1}]')) v (i, patch);
\set SHOW_CONTEXT never
-- its memory follows the document, not the patches: 300 patches of 100 kB each pass the limit at which it is written out
SELECT length(r->>'n'), r->'k', canonical(r) FROM (SELECT esync_patch_agg('{"k": [1]}', op('add', '/n', to_jsonb(repeat(chr(97 + i % 26), 100000))) || op('replace', '/k/0', to_jsonb(i)) ORDER BY i) AS r FROM generate_series(1, 300) i) s;

-- NAME: what the catalog says
SELECT p.oid::regprocedure::text COLLATE "C" AS f, provolatile, proisstrict, proparallel FROM pg_proc p WHERE pronamespace = 'public'::regnamespace AND proname ~ '^esync_(patch|try_patch|invert|merge_patch)' ORDER BY 1;
DROP SCHEMA jp CASCADE;
