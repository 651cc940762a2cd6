-- reading.sql: what it costs to read a stream back, beside plain SQL on the same rows.
-- Variables: events (of the long row), asof_rows.

-- CPU time of one evaluation of an expression or one run of "expression FROM ...", in
-- microseconds: the median of 5 loops; the loop and the call from PL/pgSQL are counted in.
CREATE FUNCTION bench_time(what text, calls int) RETURNS numeric
	LANGUAGE plpgsql AS $time$
DECLARE
	cpu	bigint;
	us	numeric[] := '{}';
BEGIN
	EXECUTE format('CREATE OR REPLACE FUNCTION pg_temp.timed(m int) RETURNS void LANGUAGE plpgsql AS '
				   '$$ BEGIN FOR i IN 1 .. m LOOP PERFORM %s; END LOOP; END $$', what);
	PERFORM pg_temp.timed(1 + calls / 5);
	FOR i IN 1 .. 5 LOOP
		cpu := bench_cpu();
		PERFORM pg_temp.timed(calls);
		us := us || (bench_cpu() - cpu) / 1000.0 / calls;
	END LOOP;
	RETURN (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY u) FROM unnest(us) u);
END $time$;
COMMENT ON FUNCTION bench_time(text, int) IS 'CPU time of evaluating an expression, in microseconds';

CREATE TABLE read_full (LIKE source50 INCLUDING ALL);
CREATE TABLE read_changes (LIKE source50 INCLUDING ALL);
SELECT esync_enable('read_full', payload => 'full');
SELECT esync_enable('read_changes', payload => 'changes');

CREATE TABLE bench_read (mode text PRIMARY KEY, tbl regclass, log regclass);
COMMENT ON TABLE bench_read IS 'the two tables that are read back, by payload mode';
INSERT INTO bench_read
SELECT m, ('read_' || m)::regclass, ('esync.event_' || table_id)::regclass
FROM unnest(ARRAY['full', 'changes']) m
JOIN esync.tracked_table ON relation = ('read_' || m)::regclass;

-- Per table: edits of one row, one a transaction, 8 columns in turn, the cost of the early
-- and of the late ones kept; and the fold as one would write it in PL/pgSQL.
SELECT format($f$
CREATE PROCEDURE bench_edit_%1$s(key uuid, m int) LANGUAGE plpgsql AS $$
DECLARE
	cpu		bigint;
	early	bigint;
	late	bigint;
BEGIN
	INSERT INTO %2$s SELECT * FROM source50 WHERE id = key;
	COMMIT;
	FOR i IN 2 .. m LOOP
		IF i IN (10, m - 499) THEN
			cpu := bench_cpu();
		END IF;
		CASE i %% 4
			WHEN 0 THEN UPDATE %2$s SET set_pressure = set_pressure + 0.25, cycles = i WHERE id = key;
			WHEN 1 THEN UPDATE %2$s SET remark = 'edit ' || i, status = md5(i::text) WHERE id = key;
			WHEN 2 THEN UPDATE %2$s SET temp_max = i / 7.0, capacity = i WHERE id = key;
			ELSE UPDATE %2$s SET next_test = next_test + 1, updated = clock_timestamp() WHERE id = key;
		END CASE;
		COMMIT;
		IF i = 509 THEN
			early := bench_cpu() - cpu;
		END IF;
	END LOOP;
	IF m > 1500 THEN
		late := bench_cpu() - cpu;
		INSERT INTO bench_check (part, what, unit, beside, value, target)
		VALUES ('growth', 'payload %1$s: a row''s event ' || m || ' / its 10th (500 each)', 'ratio',
				'an early one: ' || round(early / 5e5, 1) || ' us', round(late::numeric / early, 2), 1.25);
	END IF;
	COMMIT;
END $$ $f$, mode, tbl) FROM bench_read \gexec

SELECT format($f$
CREATE FUNCTION bench_fold_%1$s(key text) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
	state	jsonb;
	e		record;
	op		jsonb;
BEGIN
	FOR e IN SELECT payload, patch FROM %2$s WHERE aggregate_id = key ORDER BY version LOOP
		IF state IS NULL THEN
			state := e.payload;
			CONTINUE;
		END IF;
		FOR op IN SELECT jsonb_array_elements(e.patch) LOOP
			state := jsonb_set(state, ARRAY[substr(op->>'path', 2)], op->'value');
		END LOOP;
	END LOOP;
	RETURN state;
END $$ $f$, mode, log) FROM bench_read \gexec

SELECT id AS short FROM source50 ORDER BY id LIMIT 1 \gset
SELECT id AS long FROM source50 ORDER BY id OFFSET 1 LIMIT 1 \gset
SELECT format('CALL bench_edit_%s(%L, %s)', mode, key, m)
FROM bench_read, (VALUES (:'short', 100), (:'long', :events)) v (key, m) \gexec
SELECT format('VACUUM ANALYZE %s', rel) FROM bench_read, unnest(ARRAY[tbl, log]) rel \gexec

-- what is read must be right before it may be fast
SELECT format($f$
SELECT bench_assert('esync_state of %1$s', count(*), 2) FROM %2$s t
WHERE esync_state('%2$s', id::text) = to_jsonb(t) AND bench_fold_%1$s(id::text) = to_jsonb(t)
$f$, mode, tbl) FROM bench_read \gexec
SELECT format($f$
SELECT bench_assert('events of %1$s', count(*) FILTER (WHERE aggregate_id = %3$L) * 1000000
					+ count(*) FILTER (WHERE aggregate_id = %4$L), 100 * 1000000 + %5$s) FROM %2$s
$f$, mode, log, :'short', :'long', :events) FROM bench_read \gexec

CREATE FUNCTION bench_read_rows(r bench_read, short text, long text, events int) RETURNS void
	LANGUAGE plpgsql AS $$
DECLARE
	plain	text;
BEGIN
	IF r.mode = 'full' THEN
		plain := 'count(*) FROM (SELECT version, event_id, user_id, device_id, submit_timestamp, '
			'commit_timestamp, payload->''set_pressure'' AS v, '
			'lag(payload->''set_pressure'') OVER (ORDER BY version) AS was '
			'FROM %s WHERE aggregate_id = %L) h WHERE v IS DISTINCT FROM was';
	ELSE
		plain := 'count(*) FROM (SELECT version, event_id, user_id, device_id, submit_timestamp, '
			'commit_timestamp, op->''value'' FROM %s, jsonb_array_elements(patch) op '
			'WHERE aggregate_id = %L AND op->>''path'' = ''/set_pressure'' ORDER BY version) h';
	END IF;
	INSERT INTO bench_check (part, what, unit, beside, value, target) VALUES
	('reading', format('payload %s: state from 100 events, 50 columns', r.mode), 'us',
	 'PL/pgSQL, jsonb_set: ' || round(bench_time(format('bench_fold_%s(%L)', r.mode, short), 40)),
	 bench_time(format('esync_state(%L, %L::text)', r.tbl, short), 200), 60),
	('reading', format('payload %s: state from %s events', r.mode, events), 'us',
	 'PL/pgSQL, jsonb_set: ' || round(bench_time(format('bench_fold_%s(%L)', r.mode, long), 1)),
	 bench_time(format('esync_state(%L, %L::text)', r.tbl, long), 5), round(events / 2.0)),
	('reading', format('payload %s: field_history of one field, 100 events', r.mode), 'us',
	 CASE r.mode WHEN 'full' THEN 'SQL on payload->x: ' ELSE 'SQL on patch: ' END
	 || round(bench_time(format(plain, r.log, short), 100)),
	 bench_time(format('count(*) FROM field_history(%L, %L::text, ''set_pressure'')', r.tbl, short), 100), 150),
	('reading', format('payload %s: field_history of 50 fields, 100 events', r.mode), 'us', '',
	 bench_time(format('count(*) FROM field_history(%L, %L::text)', r.tbl, short), 40), 2000);
END $$;
COMMENT ON FUNCTION bench_read_rows(bench_read, text, text, int) IS 'times state and field history of one table';
SELECT bench_read_rows(r, :'short', :'long', :events) FROM bench_read r ORDER BY mode DESC;

-- the whole table as of now: 10 events a row
CREATE TABLE asof6 (LIKE source6 INCLUDING ALL);
SELECT esync_enable('asof6', payload => 'full');
SELECT 'esync.event_' || table_id AS log FROM esync.tracked_table WHERE relation = 'asof6'::regclass \gset
INSERT INTO asof6
SELECT md5('asof' || i)::uuid, 'Part ' || i, i % 1000, (i % 9999) / 100.0, i % 9 <> 0,
	timestamptz '2024-01-01 09:30:00.654321+00' + i * interval '37 s'
FROM generate_series(1, :asof_rows) i;
SELECT 'UPDATE asof6 SET qty = qty + 1, price = price + 0.01' FROM generate_series(1, 9) \gexec
VACUUM ANALYZE asof6, :log;
SELECT bench_assert('events of asof6', bench_count(:'log'::regclass), 10 * :asof_rows);
SELECT bench_assert('rows that esync_as_of gives wrongly', count(*), 0) FROM (
	(TABLE asof6 EXCEPT ALL SELECT * FROM esync_as_of(NULL::asof6, clock_timestamp()))
	UNION ALL
	(SELECT * FROM esync_as_of(NULL::asof6, clock_timestamp()) EXCEPT ALL TABLE asof6)) d;
INSERT INTO bench_check (part, what, unit, beside, value, target, at_least)
SELECT 'reading', 'esync_as_of, ' || :asof_rows || ' rows of 6 columns, 10 events each', 'rows/s',
	   'SQL on last payload: ' || round(:asof_rows * 1e6 / bench_time(format(
			'count((r).id) FROM (SELECT DISTINCT ON (aggregate_id) jsonb_populate_record(NULL::asof6, payload) AS r '
			'FROM %s ORDER BY aggregate_id, version DESC) s', :'log'), 1), 0),
	   round(:asof_rows * 1e6 / bench_time('count(*) FROM esync_as_of(NULL::asof6, clock_timestamp())', 1), 0),
	   100000, true;
