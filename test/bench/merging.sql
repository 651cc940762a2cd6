-- merging.sql: what it costs to merge edits: batches, single calls, plain SQL with a base.
-- Variables: rounds, batch (events a batch), calls (of one row each), bulk (rows a statement).
-- Tables and contestants: merging_tables.sql.  All times have jsonb made of text and the COMMIT in.

-- One query with one argument, in a transaction of its own; rows: what its cost is divided by.
CREATE PROCEDURE bench_measure(w int, contestant text, what text, r int, n int, query text, argument text,
							   INOUT answer jsonb) LANGUAGE plpgsql AS $$
DECLARE
	wal0	pg_lsn;
	cpu0	bigint;
	cpu1	bigint;
BEGIN
	COMMIT;
	wal0 := pg_current_wal_insert_lsn();
	cpu0 := bench_cpu();
	EXECUTE query INTO answer USING argument;
	COMMIT;
	cpu1 := bench_cpu();
	INSERT INTO bench_result
	VALUES (w, contestant, what, r, n, cpu1 - cpu0, pg_current_wal_insert_lsn() - wal0, NULL, n);
	COMMIT;
END $$;

-- Results of a status, where they are told by event; else all.
CREATE FUNCTION bench_results(answer jsonb, status text) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM jsonb_array_elements(answer->'results') r WHERE r->>'status' = bench_results.status;
$$;

-- ---------------------------------------------------------------- batches
CREATE TABLE hand_submission (id uuid PRIMARY KEY, event jsonb);
\set rows 1000
\set w 50
\ir merging_tables.sql
\set w 6
\ir merging_tables.sql

-- Updates of two columns, each of another row, by an author who has seen all but the last versions.
CREATE FUNCTION bench_batch(w int, keys uuid[], behind int) RETURNS text LANGUAGE sql AS $$
	SELECT jsonb_build_object('device_id', 'device-' || gen_random_uuid(), 'batch_id', gen_random_uuid(),
		'sent_at', clock_timestamp(), 'events', jsonb_agg(jsonb_build_object(
			'id', gen_random_uuid(), 'seq', i, 'table', 'm' || w, 'key', key, 'op', 'update',
			'base_version', esync_version(('m' || w)::regclass, key::text) - behind,
			'set', CASE w WHEN 50 THEN jsonb_build_object('cycles', 1e6 + floor(random() * 1e6)::int, 'set_pressure', floor(random() * 1e5) / 100)
						  ELSE jsonb_build_object('qty', 1e6 + floor(random() * 1e6)::int, 'price', floor(random() * 1e5) / 100) END,
			'submit_timestamp', clock_timestamp()) ORDER BY i))::text
	FROM unnest(keys) WITH ORDINALITY k (key, i);
$$;

-- A batch to all contestants in turn.
CREATE PROCEDURE bench_contest(w int, what text, r int, keys uuid[], behind int, status text)
	LANGUAGE plpgsql AS $$
DECLARE
	batch	text := bench_batch(w, keys, behind);
	n		int := cardinality(keys);
	answer	jsonb;
BEGIN
	CALL bench_measure(w, 'loop', what, r, n, format('SELECT %I($1::jsonb)', 'loop' || w), batch, answer);
	PERFORM bench_assert('rows of the loop, ' || what, bench_results(answer, 'accepted'), n);
	CALL bench_measure(w, 'hand', what, r, n, format('SELECT %I($1::jsonb)', 'hand' || w || '_submit'), batch, answer);
	PERFORM bench_assert('results by hand, ' || what, bench_results(answer, status), n);
	CALL bench_measure(w, 'esync', what, r, n, 'SELECT esync_submit($1::jsonb)', batch, answer);
	PERFORM bench_assert('results of esync, ' || what, bench_results(answer, status), n);
END $$;

CREATE PROCEDURE bench_batches(w int, r int, batch int) LANGUAGE plpgsql AS $$
DECLARE
	keys	uuid[];
BEGIN
	EXECUTE format('SELECT array_agg(id ORDER BY id) FROM %I', 'm' || w) INTO keys;
	CALL bench_contest(w, 'no conflict', r, keys[1 : batch], 0, 'accepted');
	CALL bench_contest(w, 'no conflict', r + 1000, keys[batch + 1 : 2 * batch], 0, 'accepted');
	IF w = 50 THEN
		CALL age50(keys[1 : batch], 10);
	ELSE
		CALL age6(keys[1 : batch], 10);
	END IF;
	CALL bench_contest(w, 'conflict', r, keys[1 : batch], 10, 'conflict');
	IF w = 50 THEN				-- an edit that has seen the conflict ends it
		CALL age50(keys[1 : batch], 1);
	ELSE
		CALL age6(keys[1 : batch], 1);
	END IF;
END $$;
SELECT format('CALL bench_batches(%s, %s, %s)', w, r, :batch)
FROM generate_series(0, :rounds) r, unnest(ARRAY[50, 6]) w ORDER BY r, w DESC \gexec

-- ------------------------------------------------ one event, many later ones
-- Of 30 rows a third each have 10, 100 and 1,000 versions more; half are merged with the base before
-- these, half with a fresh one.  payload 'changes' has nothing to begin a fold with but the first event.
CREATE TABLE mchanges (LIKE source50 INCLUDING ALL);
SELECT esync_enable('mchanges', payload => 'changes');
CREATE PROCEDURE bench_late(later int, first int) LANGUAGE plpgsql AS $$
DECLARE
	keys	uuid[];
	batch	text;
	answer	jsonb;
BEGIN
	SELECT array_agg(id ORDER BY id) INTO keys FROM (SELECT id FROM m50 ORDER BY id OFFSET first LIMIT 10) s;
	CALL age50(keys, later);
	INSERT INTO mchanges SELECT * FROM m50 WHERE id = ANY (keys);
	FOR i IN 1 .. later LOOP
		IF i % 2 = 0 THEN
			UPDATE mchanges SET cycles = cycles + 1 WHERE id = ANY (keys);
		ELSE
			UPDATE mchanges SET remark = md5(remark) WHERE id = ANY (keys);
		END IF;
		COMMIT;
	END LOOP;
	FOR i IN 1 .. 10 LOOP
		IF i <= 5 THEN
			CALL bench_contest(50, 'late ' || later, i, keys[i : i], later, 'conflict');
		ELSE
			CALL bench_contest(50, 'fresh ' || later, i, keys[i : i], 0, 'accepted');
		END IF;
		batch := replace(jsonb_set(bench_batch(50, keys[i : i], 0)::jsonb, '{events,0,base_version}',
						 to_jsonb(CASE WHEN i <= 5 THEN 1 ELSE 1 + later END))::text, '"m50"', '"mchanges"');
		CALL bench_measure(50, 'changes', CASE WHEN i <= 5 THEN 'late ' ELSE 'fresh ' END || later, i, 1,
						   'SELECT esync_submit($1::jsonb)', batch, answer);
		PERFORM bench_assert('results of changes', bench_results(answer, CASE WHEN i <= 5 THEN 'conflict' ELSE 'accepted' END), 1);
	END LOOP;
END $$;
CALL bench_late(10, 960);
CALL bench_late(100, 970);
CALL bench_late(1000, 980);

-- -------------------------------------------------------- order of a batch
-- Half parents, half children, all of them new, parents first or last.  Tried again: what one would
-- do without an order of one's own, a savepoint each and again until nothing more comes in.
CREATE TABLE parent (id uuid PRIMARY KEY, name text);
CREATE TABLE child (id uuid PRIMARY KEY, parent uuid NOT NULL REFERENCES parent, name text);
CREATE TABLE hand_parent (LIKE parent INCLUDING ALL);
CREATE TABLE hand_child (id uuid PRIMARY KEY, parent uuid NOT NULL REFERENCES hand_parent, name text);
SELECT esync_enable('parent'), esync_enable('child');

CREATE FUNCTION bench_family(n int, reversed boolean) RETURNS text LANGUAGE sql AS $$
	SELECT jsonb_build_object('device_id', 'device-' || gen_random_uuid(), 'events', jsonb_agg(jsonb_build_object(
			'id', gen_random_uuid(), 'table', tbl, 'op', 'create', 'submit_timestamp', clock_timestamp(), 'document', document)
		ORDER BY (tbl = 'child') <> reversed, i))::text
	FROM (SELECT i, gen_random_uuid() AS parent, gen_random_uuid() AS child FROM generate_series(1, n / 2) i) k,
		LATERAL (VALUES ('parent', jsonb_build_object('id', parent, 'name', 'Parent ' || i)),
						('child', jsonb_build_object('id', child, 'parent', parent, 'name', 'Child ' || i))) v (tbl, document);
$$;

CREATE FUNCTION again_submit(batch jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	left_over	jsonb[] := ARRAY(SELECT jsonb_array_elements(batch->'events'));
	failed		jsonb[];
	results		jsonb[];
	e			jsonb;
BEGIN
	LOOP
		failed := '{}';
		FOREACH e IN ARRAY left_over LOOP
			BEGIN
				IF e->>'table' = 'parent' THEN
					INSERT INTO hand_parent SELECT (jsonb_populate_record(NULL::hand_parent, e->'document')).*;
				ELSE
					INSERT INTO hand_child SELECT (jsonb_populate_record(NULL::hand_child, e->'document')).*;
				END IF;
				results := results || jsonb_build_object('id', e->'id', 'status', 'accepted');
			EXCEPTION WHEN foreign_key_violation THEN
				failed := failed || e;
			END;
		END LOOP;
		EXIT WHEN cardinality(failed) IN (0, cardinality(left_over));
		left_over := failed;
	END LOOP;
	RETURN jsonb_build_object('results', to_jsonb(results));
END $$;

CREATE PROCEDURE bench_order(r int, n int) LANGUAGE plpgsql AS $$
DECLARE
	batch	text;
	answer	jsonb;
BEGIN
	FOR reversed IN 0 .. 1 LOOP
		batch := bench_family(n, reversed = 1);
		CALL bench_measure(2, 'again', CASE reversed WHEN 0 THEN 'in order' ELSE 'reversed' END, r, 1,
						   'SELECT again_submit($1::jsonb)', batch, answer);
		PERFORM bench_assert('tried again, results', bench_results(answer, 'accepted'), n);
		CALL bench_measure(2, 'esync', CASE reversed WHEN 0 THEN 'in order' ELSE 'reversed' END, r, 1,
						   'SELECT esync_submit($1::jsonb)', batch, answer);
		PERFORM bench_assert('ordered, results', bench_results(answer, 'accepted'), n);
	END LOOP;
END $$;
SELECT format('CALL bench_order(%s, %s)', r, :batch) FROM generate_series(0, 2 * :rounds) r \gexec

-- ------------------------------------------------- one row, one transaction
-- A row at a time, in turn, and each time one of these by lot, so that none finds warmer caches: a plain
-- UPDATE of two columns under several contexts, and esync_save of the document that this UPDATE would leave.
-- Of UPDATEs the statement alone is timed.  A stale base is that before the last version, which set
-- another column ('stale') or the same ones ('conflict').
SELECT format($f$
CREATE PROCEDURE bench_single_%1$s(m int, r int) LANGUAGE plpgsql AS $$
DECLARE
	kinds	text[] := ARRAY['plain', 'fresh', 'stale', 'conflict', 'save', 'request'];
	kind	int;
	what	text;
	keys	uuid[] := ARRAY(SELECT id FROM m%1$s ORDER BY id LIMIT 950);
	k		uuid;
	version	bigint;
	was		m%1$s;
	doc		jsonb;
	context	jsonb;
	answer	jsonb;
	cpu		bigint;
	empty	bigint;
	total	bigint[] := ARRAY[0, 0, 0, 0, 0, 0];
	calls	int[] := ARRAY[0, 0, 0, 0, 0, 0];
BEGIN
	FOR i IN 1 .. m + 50 LOOP
		kind := 1 + floor(random() * 6);
		what := kinds[kind];
		k := keys[1 + i %% 950];
		IF what = 'stale' THEN
			UPDATE m%1$s SET %3$s WHERE id = k;
		ELSIF what = 'conflict' THEN
			UPDATE m%1$s SET %2$s WHERE id = k;
		END IF;
		COMMIT;
		version := esync_version('m%1$s', k::text);
		SELECT * INTO was FROM m%1$s WHERE id = k;
		doc := to_jsonb(was) || %4$s;
		context := jsonb_build_object('user_id', 'anna', 'device_id', 'tablet-' || r, 'sent_at', clock_timestamp(),
									  'submit_timestamp', clock_timestamp());
		answer := NULL;
		PERFORM set_config('esync.base_version', CASE WHEN what = 'fresh' THEN version::text
			WHEN what IN ('stale', 'conflict') THEN (version - 1)::text ELSE '' END, true);
		cpu := bench_cpu();
		empty := bench_cpu() - cpu;
		cpu := bench_cpu();
		IF what = 'save' THEN
			answer := esync_save('m%1$s', doc, version);
		ELSIF what = 'request' THEN
			answer := esync_save('m%1$s', doc, version, client_event_id => gen_random_uuid(), context => context);
		ELSE
			UPDATE m%1$s SET %2$s WHERE id = k;
		END IF;
		IF i > 50 THEN
			total[kind] := total[kind] + bench_cpu() - cpu - empty;
			calls[kind] := calls[kind] + 1;
		END IF;
		COMMIT;
		IF esync_version('m%1$s', k::text) <> version + 1 OR answer->>'status' <> 'accepted' THEN
			RAISE EXCEPTION '%% of m%1$s: version %% after version %%, answer %%', what,
				esync_version('m%1$s', k::text), version, answer;
		END IF;
		IF what = 'conflict' THEN
			UPDATE m%1$s SET %2$s WHERE id = k;		-- has seen it, and ends it
			COMMIT;
		END IF;
	END LOOP;
	INSERT INTO bench_result (width, name, statement, round, rows, cpu_ns)
	SELECT %1$s, u.kind, 'single', r, u.n, u.cpu FROM unnest(kinds, calls, total) u (kind, n, cpu);
	COMMIT;
END $$ $f$, w, s.sets, CASE w WHEN 50 THEN 'remark = md5(remark)' ELSE 'name = md5(name)' END,
		CASE w WHEN 50 THEN $$jsonb_build_object('set_pressure', was.set_pressure + 0.5, 'cycles', was.cycles + 1)$$
		ELSE $$jsonb_build_object('qty', was.qty + 1, 'price', was.price + 0.5)$$ END)
FROM (VALUES (50), (6)) v (w) JOIN bench_source s ON s.width = w \gexec
SELECT format('CALL bench_single_%s(%s, %s)', w, 6 * :calls, r)
FROM generate_series(0, :rounds) r, unnest(ARRAY[50, 6]) w ORDER BY r, w DESC \gexec

-- ------------------------------------------- the BEFORE trigger, without a base
CREATE PROCEDURE bench_before_make(w int) LANGUAGE plpgsql AS $$
DECLARE
	name	text;
BEGIN
	FOREACH name IN ARRAY ARRAY['after', 'both', 'off', 'on'] LOOP
		EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', 'before' || w || '_' || name, 'source' || w);
		IF name IN ('off', 'on') THEN
			PERFORM esync_enable(format('%I', 'before' || w || '_' || name)::regclass, sql_merge => name = 'on');
			CONTINUE;
		END IF;
		EXECUTE format('CREATE TRIGGER noop AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION bench_noop()',
					   'before' || w || '_' || name);
		IF name = 'both' THEN
			EXECUTE format('CREATE TRIGGER pass BEFORE UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION bench_pass()',
						   'before' || w || '_' || name);
		END IF;
	END LOOP;
END $$;
CALL bench_before_make(50);
CALL bench_before_make(6);
CREATE PROCEDURE bench_before(w int, contestant text, r int, n int) LANGUAGE plpgsql AS $$
DECLARE
	tbl		text := format('%I', 'before' || w || '_' || contestant);
	sets	text := (SELECT s.sets FROM bench_source s WHERE s.width = w);
	answer	jsonb;
BEGIN
	SET LOCAL session_replication_role = replica;
	EXECUTE format('TRUNCATE %s', tbl);
	COMMIT;
	EXECUTE format('INSERT INTO %s SELECT * FROM %I ORDER BY id LIMIT %s', tbl, 'source' || w, n);
	EXECUTE format('UPDATE %s SET %s', tbl, sets);
	CALL bench_measure(w, contestant, 'before', r, n,
					   format('WITH u AS (UPDATE %s SET %s RETURNING 1) SELECT to_jsonb(count(*)) FROM u WHERE $1 IS NOT NULL', tbl, sets), '', answer);
	PERFORM bench_assert('rows updated', answer::bigint, n);
END $$;
SELECT format('CALL bench_before(%s, %L, %s, %s)', w, name, r, :bulk)
FROM generate_series(0, :rounds) r, unnest(ARRAY[50, 6]) w, unnest(ARRAY['after', 'both', 'off', 'on']) name
ORDER BY r, w DESC, name \gexec

-- ------------------------------------------------------------------ figures
-- The first round warms the caches.
DELETE FROM bench_result WHERE round IN (0, 1000) AND width IN (50, 6, 2)
	AND statement IN ('no conflict', 'conflict', 'in order', 'reversed', 'single', 'before');

CREATE FUNCTION bench_us(w int, contestant text, what text) RETURNS numeric LANGUAGE sql AS $$
	SELECT us FROM bench_median WHERE (width, name, statement) = (w, contestant, what);
$$;
COMMENT ON FUNCTION bench_us(int, text, text) IS 'CPU time of one of what a statement did, in microseconds, the median';

INSERT INTO bench_check (part, what, unit, beside, value, target, at_least)
SELECT 'merging', format('esync_submit, %s columns, %s a batch: %s', w, :batch, title), 'events/s',
	   format('PL/pgSQL that merges: %s; that just writes: %s',
			  round(1e6 / bench_us(w, 'hand', what)), round(1e6 / bench_us(w, 'loop', what))),
	   1e6 / bench_us(w, 'esync', what), target, true
FROM (VALUES ('no conflict', 'no conflict', 8000), ('conflict', 'heads 10 versions ahead, conflict in a field', 3000)) v (what, title, target),
	unnest(ARRAY[50, 6]) w
ORDER BY target DESC, w DESC;

INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'merging', format('esync_submit, %s columns: %s events in two batches', w, 2 * :batch), 'ms',
	   format('PL/pgSQL that merges: %s; that just writes: %s',
			  round(2 * :batch * bench_us(w, 'hand', 'no conflict') / 1000), round(2 * :batch * bench_us(w, 'loop', 'no conflict') / 1000)),
	   2 * :batch * bench_us(w, 'esync', 'no conflict') / 1000, NULL::numeric
FROM unnest(ARRAY[50, 6]) w;

INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'merging', format('one event against %s later ones, 50 columns, payload %s', later, title), 'ms',
	   'PL/pgSQL that merges: ' || round(bench_us(50, 'hand', 'late ' || later) / 1000, 2),
	   bench_us(50, name, 'late ' || later) / 1000, CASE later WHEN 1000 THEN 2 END
FROM unnest(ARRAY[10, 100, 1000]) later, (VALUES (1, 'esync', 'full'), (2, 'changes', 'changes')) v (ord, name, title)
ORDER BY ord, later;

INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'merging', format('one event, row of %s versions, fresh base, 50 columns, payload %s', later, title), 'ms',
	   'PL/pgSQL that merges: ' || round(bench_us(50, 'hand', 'fresh ' || later) / 1000, 2),
	   bench_us(50, name, 'fresh ' || later) / 1000, NULL::numeric
FROM unnest(ARRAY[10, 100, 1000]) later, (VALUES (1, 'esync', 'full'), (2, 'changes', 'changes')) v (ord, name, title)
ORDER BY ord, later;

-- least against least: a difference of two large figures
INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'merging', format('%s creates along a foreign key: children first - parents first', :batch), 'ms',
	   format('of %s; PL/pgSQL, again until it fits: %s of %s', round(e.ordered, 1), round(h.reversed - h.ordered, 1), round(h.ordered, 1)),
	   e.reversed - e.ordered, 5
FROM (SELECT min(cpu_ns) FILTER (WHERE statement = 'reversed') / 1e6 AS reversed,
			 min(cpu_ns) FILTER (WHERE statement = 'in order') / 1e6 AS ordered
	  FROM bench_result WHERE width = 2 AND name = 'esync') e,
	 (SELECT min(cpu_ns) FILTER (WHERE statement = 'reversed') / 1e6 AS reversed,
			 min(cpu_ns) FILTER (WHERE statement = 'in order') / 1e6 AS ordered
	  FROM bench_result WHERE width = 2 AND name = 'again') h;

INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'merging', format('esync_save, %s columns%s, above the UPDATE', w, title), 'ms',
	   'UPDATE: ' || round(bench_us(w, 'plain', 'single') / 1000, 3),
	   (bench_us(w, name, 'single') - bench_us(w, 'plain', 'single')) / 1000, 0.3
FROM unnest(ARRAY[50, 6]) w, (VALUES (1, 'save', ''), (2, 'request', ', with id, user and device')) v (ord, name, title)
ORDER BY ord, w DESC;

INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'merging', format('UPDATE, %s columns: %s', w, title), 'ratio',
	   format('%s / %s us', round(bench_us(w, x, 'single'), 1), round(bench_us(w, y, 'single'), 1)),
	   bench_us(w, x, 'single') / bench_us(w, y, 'single'), target
FROM (VALUES (1, 'fresh', 'plain', 'fresh base / no base', 1.15),
			 (2, 'stale', 'fresh', 'stale base, another column / fresh base', NULL),
			 (3, 'conflict', 'fresh', 'stale base, same columns / fresh base', NULL)) v (ord, x, y, title, target),
	unnest(ARRAY[50, 6]) w
ORDER BY ord, w DESC;

INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'merging', format('UPDATE, %s columns, no base: sql_merge on - off, a row', w), 'us',
	   format('of %s; BEFORE trigger in C that does nothing: %s', round(bench_us(w, 'off', 'before'), 2),
			  round(bench_us(w, 'both', 'before') - bench_us(w, 'after', 'before'), 2)),
	   bench_us(w, 'on', 'before') - bench_us(w, 'off', 'before'), NULL::numeric
FROM unnest(ARRAY[50, 6]) w;
SELECT bench_assert('figures of merging', count(*) FILTER (WHERE value IS NOT NULL), 31)
FROM bench_check WHERE part = 'merging';
SELECT bench_assert('conflicts that are left open', count(*), 15)	-- those of bench_late
FROM esync_conflicts('m50');
