-- growth.sql: what an event costs in a stream that holds few or many already.
-- Variables: small, large (events that the stream holds before).

CREATE TABLE grow6 (LIKE source6 INCLUDING ALL);
SELECT esync_enable('grow6', payload => 'full');
SELECT 'esync.event_' || table_id AS log FROM esync.tracked_table WHERE relation = 'grow6'::regclass \gset
INSERT INTO grow6 SELECT * FROM source6 ORDER BY id LIMIT 1;
DELETE FROM grow6;

-- Copies the first event under other ids; these sort before all real ones.
CREATE PROCEDURE bench_fill(log regclass, first bigint, last bigint) LANGUAGE plpgsql AS $$
DECLARE
	cols	text;
	vals	text;
BEGIN
	SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum),
		   string_agg(CASE attname WHEN 'event_id' THEN '(g - 1000000000)::bigint'
								   WHEN 'aggregate_id' THEN 'gen_random_uuid()::text'
								   ELSE 'e.' || quote_ident(attname) END, ', ' ORDER BY attnum)
	INTO cols, vals
	FROM pg_attribute WHERE attrelid = log AND attnum > 0 AND NOT attisdropped;
	EXECUTE format('INSERT INTO %s (%s) SELECT %s FROM generate_series($1, $2) g, '
				   '(SELECT * FROM %s WHERE version = 1 LIMIT 1) e', log, cols, vals, log) USING first, last;
END $$;

-- Cost per event of 10,000 rows inserted, updated and deleted, the least of 5 times.
CREATE PROCEDURE bench_grown(log regclass, before bigint) LANGUAGE plpgsql AS $$
DECLARE
	n	bigint;
	cpu	bigint;
	got	bigint := bench_count(log);
	us	numeric[] := '{}';
BEGIN
	FOR i IN 1 .. 5 LOOP
		COMMIT;
		cpu := bench_cpu();
		INSERT INTO grow6 SELECT * FROM source6 LIMIT 10000;
		GET DIAGNOSTICS n = ROW_COUNT;
		UPDATE grow6 SET qty = qty + 1, price = price + 0.5;
		DELETE FROM grow6;
		COMMIT;
		us := us || (bench_cpu() - cpu) / 1000.0 / (3 * n);
	END LOOP;
	PERFORM bench_assert('events of grow6', bench_count(log) - got, 15 * n);
	INSERT INTO bench_check (part, what, unit, beside, value)
	SELECT 'growth', 'an event and its row change, ' || before || ' events in the stream', 'us', '', round(min(u), 2)
	FROM unnest(us) u;
	TRUNCATE grow6;
	COMMIT;
END $$;

CALL bench_fill(:'log', 1, :small);
VACUUM ANALYZE :log;
SELECT count(*) FROM :log;
CALL bench_grown(:'log', :small);
CALL bench_fill(:'log', :small + 1, :large);
VACUUM ANALYZE :log;
SELECT count(*) FROM :log;
CALL bench_grown(:'log', :large);
INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'growth', :large || ' / ' || :small || ' events in the stream', 'ratio', '',
	   round(l.value / s.value, 2), 1.25
FROM bench_check l, bench_check s
WHERE l.what = 'an event and its row change, ' || :large || ' events in the stream'
  AND s.what = 'an event and its row change, ' || :small || ' events in the stream';
SELECT bench_assert('ratios of growth', count(*), 1)
FROM bench_check WHERE what = :large || ' / ' || :small || ' events in the stream' AND value > 0;
