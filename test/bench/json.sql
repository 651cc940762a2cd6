-- json.sql: diff and patch of single documents, in memory, beside core, PL/pgSQL and
-- node.  The documents: json_documents.sql.  Figures of node, where there are any: table bench_node.

-- CPU time of one evaluation of an expression over the documents a, b and the patch p, in
-- microseconds: the median of 5 loops, each less a loop that only looks at a.  The documents
-- are made anew from text, so that they lie in memory uncompressed; the result goes nowhere.
CREATE FUNCTION bench_json(expression text, a jsonb, b jsonb, p jsonb, calls int) RETURNS numeric
	LANGUAGE plpgsql AS $json$
DECLARE
	cpu		bigint;
	empty	bigint;
	us		numeric[] := '{}';
BEGIN
	EXECUTE format($$
		CREATE OR REPLACE FUNCTION pg_temp.timed(m int, a jsonb, b jsonb, p jsonb) RETURNS void LANGUAGE plpgsql AS
			'DECLARE x boolean; BEGIN FOR i IN 1 .. m LOOP x := (%s) IS NULL; END LOOP; END';
		CREATE OR REPLACE FUNCTION pg_temp.untimed(m int, a jsonb, b jsonb, p jsonb) RETURNS void LANGUAGE plpgsql AS
			'DECLARE x boolean; BEGIN FOR i IN 1 .. m LOOP x := a IS NULL; END LOOP; END' $$,
		replace(expression, '''', ''''''));
	a := a::text::jsonb;
	b := b::text::jsonb;
	PERFORM pg_temp.timed(1 + calls / 5, a, b, p), pg_temp.untimed(1 + calls / 5, a, b, p);
	FOR i IN 1 .. 5 LOOP
		cpu := bench_cpu();
		PERFORM pg_temp.untimed(calls, a, b, p);
		empty := bench_cpu() - cpu;
		cpu := bench_cpu();
		PERFORM pg_temp.timed(calls, a, b, p);
		us := us || (bench_cpu() - cpu - empty) / 1000.0 / calls;
	END LOOP;
	RETURN (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY u) FROM unnest(us) u);
END $json$;
COMMENT ON FUNCTION bench_json(text, jsonb, jsonb, jsonb, int) IS 'CPU time of a call on documents in memory, in microseconds';

-- A diff as one would write it: member by member, element by element, by index.
CREATE FUNCTION bench_diff(a jsonb, b jsonb, path text DEFAULT '') RETURNS jsonb
	LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	patch	jsonb := '[]';
	m		record;
	n		int;
BEGIN
	IF a = b THEN
		RETURN patch;
	ELSIF jsonb_typeof(a) = 'object' AND jsonb_typeof(b) = 'object' THEN
		FOR m IN SELECT replace(replace(key, '~', '~0'), '/', '~1') AS key, x.value AS was, y.value AS is
				 FROM jsonb_each(a) x FULL JOIN jsonb_each(b) y USING (key)
				 WHERE x.value IS DISTINCT FROM y.value LOOP
			IF m.is IS NULL THEN
				patch := patch || jsonb_build_object('op', 'remove', 'path', path || '/' || m.key);
			ELSIF m.was IS NULL THEN
				patch := patch || jsonb_build_object('op', 'add', 'path', path || '/' || m.key, 'value', m.is);
			ELSE
				patch := patch || bench_diff(m.was, m.is, path || '/' || m.key);
			END IF;
		END LOOP;
	ELSIF jsonb_typeof(a) = 'array' AND jsonb_typeof(b) = 'array' THEN
		n := jsonb_array_length(a);
		FOR m IN SELECT ordinality - 1 AS i, x.value AS was, y.value AS is
				 FROM jsonb_array_elements(a) WITH ORDINALITY x
				 FULL JOIN jsonb_array_elements(b) WITH ORDINALITY y USING (ordinality)
				 WHERE x.value IS DISTINCT FROM y.value
				 ORDER BY CASE WHEN ordinality > n THEN ordinality ELSE -ordinality END LOOP
			IF m.is IS NULL THEN
				patch := patch || jsonb_build_object('op', 'remove', 'path', path || '/' || m.i);
			ELSIF m.was IS NULL THEN
				patch := patch || jsonb_build_object('op', 'add', 'path', path || '/-', 'value', m.is);
			ELSE
				patch := patch || bench_diff(m.was, m.is, path || '/' || m.i);
			END IF;
		END LOOP;
	ELSE
		patch := jsonb_build_array(jsonb_build_object('op', 'replace', 'path', path, 'value', b));
	END IF;
	RETURN patch;
END $$;
COMMENT ON FUNCTION bench_diff(jsonb, jsonb, text) IS 'JSON Patch written in PL/pgSQL, arrays by index';

-- The fold as one would write it.
CREATE FUNCTION bench_json_fold(state jsonb) RETURNS jsonb
	LANGUAGE plpgsql AS $$
DECLARE
	op	jsonb;
BEGIN
	FOR op IN SELECT jsonb_array_elements(patch) FROM bench_patch ORDER BY i LOOP
		state := jsonb_set(state, string_to_array(substr(op->>'path', 2), '/'), op->'value');
	END LOOP;
	RETURN state;
END $$;
COMMENT ON FUNCTION bench_json_fold(jsonb) IS 'bench_patch applied with jsonb_set, one by one';

-- Ten thousand changes of single fields, one a patch.
CREATE TABLE bench_patch (i int PRIMARY KEY, patch jsonb NOT NULL);
COMMENT ON TABLE bench_patch IS 'patches that are folded on the large document';
INSERT INTO bench_patch
SELECT i, jsonb_build_array(jsonb_build_object('op', 'replace', 'value', i,
	'path', format('/section%s/field%s', lpad((i * 7 % 40)::text, 2, '0'), lpad((i * 11 % 25)::text, 2, '0'))))
FROM generate_series(1, 10000) i;
VACUUM ANALYZE bench_patch;

-- what is measured must be right before it may be fast
SELECT bench_assert('documents on which esync_patch(a, esync_diff(a, b)) = b',
					count(*) FILTER (WHERE esync_patch(a, esync_diff(a, b)) = b AND esync_patch(a, bench_diff(a, b)) = b), 4),
	   bench_assert('operations', sum(jsonb_array_length(esync_diff(a, b)))::bigint, 2 + 5 + 1 + 1)
FROM bench_document;
SELECT bench_assert('the fold', count(*), 1) FROM bench_document d
WHERE name = 'large' AND bench_json_fold(a) = (SELECT esync_patch_agg(d.a, patch ORDER BY i) FROM bench_patch);

CREATE FUNCTION bench_beside(what text, us numeric) RETURNS text
	LANGUAGE sql IMMUTABLE AS $$ SELECT what || ' ' || round(us, CASE WHEN us < 10 THEN 2 WHEN us < 100 THEN 1 ELSE 0 END) $$;
COMMENT ON FUNCTION bench_beside(text, numeric) IS 'a figure to stand beside';

CREATE FUNCTION bench_json_diffs() RETURNS void
	LANGUAGE plpgsql AS $$
DECLARE
	d		record;
	calls	int;
	us		numeric;
BEGIN
	FOR d IN SELECT v.*, k.a, k.b, n.us AS node, n.parse, n.operations
			 FROM (VALUES (1, 'flat', 'esync_diff, flat 50 members, 2 changed', 20000, 2.0),
						  (2, 'nested', 'esync_diff, nested 200 leaves, 5 changed', 10000, 4.0),
						  (3, 'large', 'esync_diff, 40 kB, 1 change', 10000, 5.0),
						  (4, 'array', 'esync_diff, array of 1,000 objects, one in front', 2000, 40.0)) v (ord, name, what, calls, target)
			 JOIN bench_document k USING (name) LEFT JOIN bench_node n USING (name) ORDER BY ord LOOP
		calls := d.calls;
		us := bench_json('esync_diff(a, b)', d.a, d.b, NULL, calls);
		INSERT INTO bench_check (part, what, unit, beside, value, target)
		VALUES ('json', d.what, 'us',
				concat_ws(', ', bench_beside('a = b', bench_json('a = b', d.a, d.b, NULL, calls)),
						  bench_beside('PL/pgSQL', bench_json('bench_diff(a, b)', d.a, d.b, NULL, greatest(calls / 200, 10))),
						  bench_beside('fast-json-patch', d.node) || format(' (%s operations)', d.operations),
						  bench_beside('parsing', d.parse)),
				round(us, 2), d.target);
	END LOOP;
END $$;
COMMENT ON FUNCTION bench_json_diffs() IS 'times esync_diff on each pair of documents';
SELECT bench_json_diffs();

INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'json', 'esync_diff of that array: operations', 'operations',
	   'PL/pgSQL by index ' || jsonb_array_length(bench_diff(a, b)), jsonb_array_length(esync_diff(a, b)), 1
FROM bench_document WHERE name = 'array';

INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'json', 'esync_patch, 40 kB, 1 operation', 'us',
	   concat_ws(', ', bench_beside('jsonb_set', bench_json('jsonb_set(a, ''{section20,field12}'', ''4711'')', a, NULL, NULL, 2000)),
				 (SELECT bench_beside('fast-json-patch', apply) || bench_beside(', with parse and stringify', apply_text)
				  FROM bench_node WHERE name = 'large')),
	   round(bench_json('esync_patch(a, p)', a, NULL, '[{"op": "replace", "path": "/section20/field12", "value": 4711}]', 10000), 2), 12
FROM bench_document WHERE name = 'large';

-- the scan and the sort of the patches are counted in
INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'json', '10,000 patches folded on 40 kB, esync_patch_agg', 'ms',
	   bench_beside('PL/pgSQL, jsonb_set', bench_json('bench_json_fold(a)', a, NULL, NULL, 1) / 1000),
	   round(bench_json('(SELECT esync_patch_agg(d.a, k.patch ORDER BY k.i) FROM bench_patch k, bench_document d WHERE d.name = ''large'')',
						a, NULL, NULL, 10) / 1000, 2), 5
FROM bench_document WHERE name = 'large';
