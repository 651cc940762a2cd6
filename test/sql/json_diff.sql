-- What differs between two documents, as a patch.
SET client_min_messages TO warning;
CREATE SCHEMA jd;
SET search_path = jd, public;

-- one line a case: the patch, and whether it makes b of a
CREATE FUNCTION d(a jsonb, b jsonb, exclude text[] DEFAULT '{}', arrays text DEFAULT 'minimal', exact boolean DEFAULT false)
RETURNS text LANGUAGE sql AS $$
	SELECT p::text || CASE WHEN esync_patch(a, p) = b OR exclude <> '{}' THEN '' ELSE ' WRONG' END
	FROM esync_diff(a, b, exclude, arrays, exact) p $$;

-- NAME: roots
SELECT d('1', '1'), d('1', '2'), d('null', 'null'), d('null', '0'), d('"x"', '["x"]'), d('["x"]', '"x"');
SELECT d('{}', '[]'), d('[]', '{}'), d('{}', 'null'), d('null', '{}'), d('{}', '{}'), d('[]', '[]');

-- NAME: objects: add, remove, replace, null is not missing, a change of type
SELECT d('{"a":1,"b":2}', '{"b":2,"c":3}');
SELECT d('{"a":null}', '{}'), d('{}', '{"a":null}'), d('{"a":null}', '{"a":false}');
SELECT d('{"a":{"b":1}}', '{"a":[1]}'), d('{"a":[1]}', '{"a":1}'), d('{"a":1}', '{"a":"1"}'), d('{"a":true}', '{"a":1}');
SELECT d('{"a":{"b":{"c":1,"d":2}}}', '{"a":{"b":{"c":1,"d":3}}}');

-- NAME: keys that need care in a pointer
SELECT d('{"":1,"/":1,"~":1,"0":1,"01":1,"-":1,"a/b":1,"m~n":1,"~1":1,"é":1,"😀":1," ":1,"\"":1}',
	'{"":2,"/":2,"~":2,"0":2,"01":2,"-":2,"a/b":2,"m~n":2,"~1":2,"é":2,"😀":2," ":2,"\"":2}');
SELECT d('{"":{"":{"":1}}}', '{"":{"":{"":2}}}');

-- NAME: numbers: by value, or exactly
SELECT d('1.0', '1.00'), d('1.0', '1.00', exact => true), d('[1,1.0]', '[1.0,1]'), d('{"a":[1]}', '{"a":[1.0]}', exact => true);
SELECT d('{"a":1e2}', '{"a":100}', exact => true), d('0', '-0', exact => true), d('9007199254740993', '9007199254740992');
-- 1.0 and 1.00 match as array elements too
SELECT d('[{"v":1.0,"w":"some text that is long"},{"v":2.0,"w":"some text that is long too"}]',
	'[7,{"v":1.00,"w":"some text that is long"},{"v":2.00,"w":"some text that is long too"}]');

-- NAME: arrays: from right to left, in the old indexes, never "-"
CREATE FUNCTION words(VARIADIC w text[]) RETURNS jsonb LANGUAGE sql AS
	$$ SELECT jsonb_agg(repeat(x, 30) ORDER BY n) FROM unnest(w) WITH ORDINALITY AS u(x, n) $$;
SELECT replace(d(words('a','b','c','d'), words('a','b','c','d','e')), repeat('e', 30), 'E');
SELECT d(words('a','b','c','d'), words('b','d'));
SELECT regexp_replace(d(words('a','b','c','d'), words('x','b','y','z','d')), '([a-z])\1{29}', '\1', 'g');
SELECT regexp_replace(d(words('a','b','c','d'), words('b','c','d','a')), '([a-z])\1{29}', '\1', 'g');
-- a replace where that is smaller
SELECT d('[1,2,3,4]', '[4,3,2,1]'), d('[1,2,3]', '[]'), d('[]', '[1,2,3]'), d('{"a":[[1,2],[3]]}', '{"a":[[2,1],[3]]}');

-- NAME: an element is changed, not replaced, if that is smaller; the same id, the same element
SELECT d('[{"id":1,"text":"a text of some length","n":1},{"id":2,"text":"another text of some length","n":1}]',
	'[{"id":0,"text":"new"},{"id":1,"text":"a text of some length","n":2},{"id":2,"text":"another text of some length","n":3}]');

-- NAME: arrays replaced whole
SELECT d('{"a":[1,2],"b":[1.0,{"c":1}]}', '{"a":[1,3],"b":[1,{"c":1.0}]}', arrays => 'replace');
SELECT d('{"b":[1.0]}', '{"b":[1]}', arrays => 'replace', exact => true);

-- NAME: excluded: neither compared nor written
SELECT d('{"a":1,"b":2}', '{"a":2,"b":3}', '{/a}'), d('{"a":1}', '{"b":1}', '{/a,/b}'), d('1', '2', '{""}');
SELECT d('{"x":{"a":1,"b":1},"y":{"a":1}}', '{"x":{"a":2,"b":2},"y":{"a":2}}', '{/*/a}');
SELECT d('{}', '{"x":{"a":{"secret":1,"open":[{"secret":2,"c":3}]}}}', '{/x/*/secret,/x/a/open/*/secret}');
SELECT d('{"x":1}', '{"x":{"a":1,"b":2}}', '{/x/a}'), d('{"x":{"a":1}}', '{"x":{}}', '{/x/a}'), d('{"x":{"a":1}}', '{}', '{/x/a}');
-- elements are equal apart from what is excluded
SELECT d('[{"id":1,"t":1},{"id":2,"t":1}]', '[{"id":0,"t":5},{"id":1,"t":5},{"id":2,"t":5}]', '{/*/t}');
SELECT d('{"a":[{"id":1,"t":1}]}', '{"a":[{"id":1,"t":2}]}', '{/a/*/t}', 'replace'), d('{"a":[1,2]}', '{"a":[3]}', '{/a/*}');
SELECT d(jsonb_agg(jsonb_build_object('id', i % 5, 't' || i % 2, i) ORDER BY i), '[{"id": "new"}]' || jsonb_agg(jsonb_build_object('id', i % 5, 't' || (i + 1) % 2, -i) ORDER BY i), '{/*/t0,/*/t1}') FROM generate_series(1, 100) i;
SELECT d('[null,[1],[]]', '[null,[],[1]]', '{/*/*}');
-- by index: position counts
SELECT d('[1,2,3]', '[9,8,7,6,5]', '{/1,/3}'), d('[1,2,3,4]', '[9]', '{/0,/2}');
-- escapes, and a * that is part of a name
SELECT d('{"a/b":1,"m~n":1,"*x":1,"":1}', '{"a/b":2,"m~n":2,"*x":2,"":2}', '{/a~1b,/m~0n,/}');

-- NAME: bad options
SELECT esync_diff('1', '2', '{a}');
SELECT esync_diff('1', '2', '{/a~2}');
SELECT esync_diff('1', '2', '{/a~}');
SELECT esync_diff('1', '2', ARRAY[NULL]);
SELECT esync_diff('1', '2', array_fill('/a'::text, '{65}'));
SELECT esync_diff('1', '2', arrays => 'best');
SELECT esync_diff('1', '2', arrays => '');
\set VERBOSITY sqlstate
SELECT esync_diff('1', '2', '{a}');
SELECT esync_diff('1', '2', ARRAY[NULL]);
SELECT esync_diff('1', '2', arrays => 'best');
\set VERBOSITY default
SELECT esync_diff(NULL, '2') IS NULL AS strict;

-- NAME: document pairs as other libraries were measured on
CREATE FUNCTION objects(lo int, hi int) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_agg(jsonb_build_object('id', i, 'name', 'item number ' || i, 'tags', jsonb_build_array('t' || i % 7, 'u' || i % 3),
		'price', i * 1.25, 'stock', jsonb_build_object('berlin', i % 11, 'rome', i % 13)) ORDER BY i) FROM generate_series(lo, hi) i $$;
CREATE TABLE pairs (name text, a jsonb, b jsonb);
INSERT INTO pairs SELECT 'form, 4 scalar edits', f, f || '{"field_3":"x","field_9":false,"field_17":null,"field_20":1}'
	FROM (SELECT jsonb_object_agg('field_' || i, 'value ' || i) f FROM generate_series(1, 25) i) x;
INSERT INTO pairs SELECT '200 objects, insert at head', objects(1, 200), objects(0, 200);
INSERT INTO pairs SELECT '200 objects, delete 1, edit 2', o, jsonb_set(jsonb_set(o, '{150,price}', '1'), '{20,stock,rome}', '99') - 100 FROM objects(1, 200) o;
INSERT INTO pairs SELECT '200 objects, edit every one', o, (SELECT jsonb_agg(e || '{"seen":true}') FROM jsonb_array_elements(o) e) FROM objects(1, 200) o;
INSERT INTO pairs SELECT '100 objects, move 1', o, jsonb_insert(o - 10, '{80}', o->10) FROM objects(1, 100) o;
INSERT INTO pairs SELECT '300 integers, 15 deleted, 15 inserted', (SELECT jsonb_agg(i * 37 % 1009 ORDER BY i) FROM generate_series(1, 300) i),
	(SELECT jsonb_agg(v ORDER BY k) FROM (SELECT i * 2 AS k, i * 37 % 1009 AS v FROM generate_series(1, 300) i WHERE i % 20 <> 0
		UNION ALL SELECT i * 2 + 1, i + 5000 FROM generate_series(1, 300) i WHERE i % 20 = 10) x);
INSERT INTO pairs SELECT '100 objects reversed', o, (SELECT jsonb_agg(e ORDER BY n DESC) FROM jsonb_array_elements(o) WITH ORDINALITY u(e, n)) FROM objects(1, 100) o;
INSERT INTO pairs SELECT '400 points, 1 inserted, 1 edited', p, jsonb_set(jsonb_insert(p, '{coordinates,100}', '[1.5,2.5]'), '{coordinates,300,1}', '7')
	FROM (SELECT jsonb_build_object('type', 'LineString', 'coordinates', jsonb_agg(jsonb_build_array(i * 0.001 + 13, i * 0.002 + 52) ORDER BY i)) p FROM generate_series(1, 400) i) x;
INSERT INTO pairs SELECT '50 objects all different', objects(1, 50), (SELECT jsonb_agg(jsonb_build_object('k', md5(i::text), 'v', md5((-i)::text))) FROM generate_series(1, 50) i);
INSERT INTO pairs SELECT '1000 objects, 1 deleted, 1 inserted, 1 edited', o, jsonb_set(jsonb_insert(o - 200, '{500}', '{"id":-1}'), '{800,name}', '"x"') FROM objects(1, 1000) o;
SELECT name, jsonb_array_length(p) AS ops, esync_patch(a, p) = b AS right, length(replace(replace(p::text, '": ', '":'), ', "', ',"')) AS bytes,
	(SELECT string_agg(v->>'op' || ' ' || (v->>'path'), ', ') FROM jsonb_array_elements(p) v WHERE jsonb_array_length(p) <= 4) AS operations
FROM pairs, esync_diff(a, b) p;

-- NAME: no input makes it quadratic, and the result stays right
CREATE TABLE hard (name text, a jsonb, b jsonb);
INSERT INTO hard SELECT 'all equal', jsonb_agg(1), jsonb_agg(1) FILTER (WHERE i <= 15000) FROM generate_series(1, 20000) i;
INSERT INTO hard SELECT 'all different', jsonb_agg(i), jsonb_agg(-i) FROM generate_series(1, 20000) i;
INSERT INTO hard SELECT 'reversed', jsonb_agg(i ORDER BY i), jsonb_agg(i ORDER BY i DESC) FROM generate_series(1, 20000) i;
INSERT INTO hard SELECT 'period 2', jsonb_agg(i % 2 ORDER BY i), jsonb_agg((i + 1) % 2 ORDER BY i) FROM generate_series(1, 20000) i;
INSERT INTO hard SELECT 'few values, no order', jsonb_agg(i * i % 7919 % 3 ORDER BY i), jsonb_agg(i * i % 7907 % 3 ORDER BY i) FROM generate_series(1, 20000) i;
INSERT INTO hard SELECT 'shuffled', jsonb_agg(i ORDER BY i), jsonb_agg(i ORDER BY i::bigint * 7919 % 20011) FROM generate_series(1, 20000) i;
INSERT INTO hard SELECT 'every second removed', jsonb_agg('element ' || i ORDER BY i), jsonb_agg('element ' || i ORDER BY i) FILTER (WHERE i % 2 = 0) FROM generate_series(1, 20000) i;
INSERT INTO hard SELECT 'deep', (repeat('[1,', 1500) || '1' || repeat(']', 1500))::jsonb, (repeat('[1,', 1500) || '2' || repeat(']', 1500))::jsonb;
INSERT INTO hard SELECT 'deep, objects around', (repeat('{"a":[', 700) || '1' || repeat(',0]}', 700))::jsonb, (repeat('{"a":[', 700) || '2' || repeat(',1]}', 700))::jsonb;
SET statement_timeout = '60s';
SELECT name, esync_patch(a, p) = b AS right, jsonb_array_length(p) <= 20000 AS bounded FROM hard, esync_diff(a, b) p;
RESET statement_timeout;
SELECT name, p = esync_diff(a, b) AS deterministic FROM hard, esync_diff(a, b) p WHERE name IN ('few values, no order', 'shuffled');

-- NAME: law: esync_patch(a, esync_diff(a, b)) = b for random pairs
SELECT setseed(0.42);
CREATE FUNCTION scalar() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT ('{"null",true,false,0,1,1.0,1.00,-1,1e20,"\"\"","\"a\"","\"é😀\""}'::text[])[1 + floor(random() * 12)::int]::jsonb $$;
CREATE FUNCTION rkey() RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT (ARRAY['a', 'b', '', '/', '~', '0', '1', '01', '-', 'aa', 'a/b', 'm~n', '~1', 'é', '😀', repeat('k', 200), 'id'])[1 + floor(random() * 17)::int] $$;
CREATE FUNCTION make(depth int) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	r float := random();
	v jsonb := '[]';
	n int := floor(random() * 6);
BEGIN
	IF depth >= 4 OR r < 0.4 THEN RETURN scalar(); END IF;
	IF r < 0.7 THEN
		v := '{}';
		FOR i IN 1..n LOOP v := v || jsonb_build_object(rkey(), make(depth + 1)); END LOOP;
		RETURN v;
	END IF;
	IF random() < 0.15 THEN
		FOR i IN 1..31 + floor(random() * 40)::int LOOP v := v || jsonb_build_array(scalar()); END LOOP;
		RETURN v;
	END IF;
	FOR i IN 1..n LOOP v := v || jsonb_build_array(make(depth + 1)); END LOOP;
	RETURN v;
END $$;
CREATE FUNCTION edit(v jsonb, depth int) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	w jsonb := '[]';
	e jsonb;
	k text;
BEGIN
	IF random() < 0.05 THEN RETURN make(depth); END IF;
	IF jsonb_typeof(v) = 'object' THEN
		w := '{}';
		FOR k, e IN SELECT * FROM jsonb_each(v) LOOP
			CONTINUE WHEN random() < 0.1;
			w := w || jsonb_build_object(k, CASE WHEN random() < 0.4 THEN edit(e, depth + 1) ELSE e END);
		END LOOP;
		IF random() < 0.3 THEN w := w || jsonb_build_object(rkey(), make(depth + 1)); END IF;
		RETURN w;
	ELSIF jsonb_typeof(v) = 'array' THEN
		FOR e IN SELECT * FROM jsonb_array_elements(v) LOOP
			CONTINUE WHEN random() < 0.07;
			IF random() < 0.07 THEN w := w || jsonb_build_array(make(depth + 1)); END IF;
			w := w || jsonb_build_array(CASE WHEN random() < 0.1 THEN edit(e, depth + 1) ELSE e END);
			IF random() < 0.05 THEN w := jsonb_build_array(e) || w; END IF;
		END LOOP;
		RETURN w;
	END IF;
	RETURN CASE WHEN random() < 0.4 THEN scalar() ELSE v END;
END $$;
CREATE TABLE random_pairs AS SELECT n, a, CASE WHEN n % 10 = 0 THEN make(0) ELSE edit(edit(a, 0), 0) END AS b
	FROM (SELECT n, make(0) AS a FROM generate_series(1, 3000) n OFFSET 0) x;
SELECT count(*) AS pairs, count(*) FILTER (WHERE a <> b) > 1000 AS many_differ,
	count(*) FILTER (WHERE esync_patch(a, esync_diff(a, b)) IS DISTINCT FROM b) AS wrong,
	count(*) FILTER (WHERE esync_patch(b, esync_diff(b, a)) IS DISTINCT FROM a) AS wrong_back,
	count(*) FILTER (WHERE esync_patch(a, esync_diff(a, b, exact => true))::text IS DISTINCT FROM b::text) AS wrong_exact,
	count(*) FILTER (WHERE esync_patch(a, esync_diff(a, b, arrays => 'replace')) IS DISTINCT FROM b) AS wrong_replace,
	count(*) FILTER (WHERE (esync_diff(a, b) = '[]') <> (a = b)) AS wrong_empty,
	count(*) FILTER (WHERE esync_diff(a, a, exact => true) <> '[]') AS wrong_same,
	count(*) FILTER (WHERE length(esync_diff(a, b)::text) > length(esync_diff(a, b, arrays => 'replace')::text) * 1.2) AS larger
FROM random_pairs;
-- it is written as jsonb itself would
SELECT count(*) FROM random_pairs WHERE esync_diff(a, b) <> esync_diff(a, b)::text::jsonb
	OR pg_column_size(esync_diff(a, b)) <> pg_column_size(esync_diff(a, b)::text::jsonb);
-- excluded: the patch names and holds nothing of it, and what it makes is b apart from it
SELECT count(*) AS left_over FROM random_pairs, esync_diff(a, b, '{/a,/*/b,/*/*/id}') p
WHERE esync_diff(esync_patch(a, p), b, '{/a,/*/b,/*/*/id}') <> '[]' OR EXISTS (SELECT FROM jsonb_array_elements(p) o WHERE o->>'path' ~ '^/(a|[^/]*/b|[^/]*/[^/]*/id)(/|$)');

-- NAME: the same for values in TOAST, compressed or not, and with short headers
CREATE TABLE stored (a jsonb, b jsonb);
INSERT INTO stored SELECT a, b FROM pairs UNION ALL SELECT a, b FROM random_pairs WHERE n <= 300;
SELECT count(*) FROM stored WHERE esync_diff(a, b) <> esync_diff(a::text::jsonb, b::text::jsonb);
DROP SCHEMA jd CASCADE;
