-- changes.sql: what it costs to ask what is new, with 20 tracked tables.
-- Variables: rounds, backlog (events behind which a page is read).
CREATE TABLE bench_given (what text, r int, cpu_ns bigint, events int);

-- One call in a transaction of its own; the cursor that it answers, and how many changes.
CREATE PROCEDURE bench_ask(what text, r int, INOUT cursor text, page int, events int) LANGUAGE plpgsql AS $$
DECLARE
	answer	jsonb;
	cpu		bigint;
BEGIN
	COMMIT;
	cpu := bench_cpu();
	answer := esync_changes(cursor, page);
	COMMIT;
	cpu := bench_cpu() - cpu;
	IF events IS NOT NULL THEN
		PERFORM bench_assert('changes, ' || what, jsonb_array_length(answer->'changes'), events);
	END IF;
	cursor := answer->>'cursor';
	INSERT INTO bench_given VALUES (what, r, cpu, jsonb_array_length(answer->'changes'));
	COMMIT;
END $$;

SELECT format('CREATE TABLE c%s (LIKE source6 INCLUDING ALL)', i) FROM generate_series(1, 20) i \gexec
SELECT format('SELECT esync_enable(%L)', 'c' || i) FROM generate_series(1, 20) i \gexec
-- what is tracked for other parts is not read here
SELECT format('SELECT esync_disable(%L, drop_history => true)', t.relation) FROM esync.tracked_table t WHERE t.relation::text !~ '^c\d+$' \gexec

-- Nothing new at all; nothing but transactions that wrote elsewhere; a page of 500 rows of 20 tables.
CREATE TABLE bench_aside (i int);
CREATE PROCEDURE bench_small(suffix text, rounds int) LANGUAGE plpgsql AS $$
DECLARE
	c	text := esync_changes('now')->>'cursor';
	d	text;
BEGIN
	FOR r IN 1 .. 20 * rounds LOOP
		CALL bench_ask('idle' || suffix, r, c, 500, 0);
	END LOOP;
	FOR r IN 1 .. 20 * rounds LOOP
		INSERT INTO bench_aside VALUES (r);
		CALL bench_ask('aside' || suffix, r, c, 500, 0);
	END LOOP;
	FOR r IN 1 .. 4 * rounds LOOP
		FOR i IN 1 .. 20 LOOP
			EXECUTE format('INSERT INTO c%s SELECT gen_random_uuid(), ref, name, qty, price, created FROM source6 LIMIT 15', i);
			EXECUTE format('UPDATE c%1$s SET qty = qty + 1 WHERE id IN (SELECT id FROM c%1$s ORDER BY id DESC LIMIT 10)', i);
		END LOOP;
		COMMIT;
		CALL bench_ask('page' || suffix, r, c, 500, 500);
		CALL bench_ask('rest' || suffix, r, c, 500, 0);
	END LOOP;
END $$;
SELECT string_agg(attname, ', ' ORDER BY attnum) AS columns FROM pg_attribute WHERE attrelid = 'source6'::regclass AND attnum > 1 \gset
SELECT replace(prosrc, 'ref, name, qty, price, created', :'columns') AS body FROM pg_proc WHERE proname = 'bench_small' \gset
CREATE OR REPLACE PROCEDURE bench_small(suffix text, rounds int) LANGUAGE plpgsql AS :'body';
CALL bench_small('', 1);
TRUNCATE bench_given;
CALL bench_small('', :rounds);

-- So many events more: read and done with; and on their way, by pages of 500, from the beginning.
SELECT format('INSERT INTO c%s SELECT gen_random_uuid(), %s FROM source6, generate_series(1, %s) g LIMIT %s', i, :'columns',
	(:backlog / 20000) + 1, :backlog / 20) FROM generate_series(1, 20) i \gexec
CALL bench_small(' behind', :rounds);
CREATE PROCEDURE bench_backlog(rounds int) LANGUAGE plpgsql AS $$
DECLARE
	c	text;
BEGIN
	CALL bench_ask('first', 1, c, 500, 500);
	FOR r IN 1 .. 20 * rounds LOOP
		CALL bench_ask('next', r, c, 500, 500);
	END LOOP;
END $$;
CALL bench_backlog(:rounds);

-- By hand: the same page as a query on an index on (xid, event_id), of one table with as many events.
CREATE TABLE hand_changes (event_id bigserial, xid xid8, id uuid, patch jsonb, payload jsonb);
INSERT INTO hand_changes (xid, id, patch, payload)
	SELECT e.xid, e.aggregate_id::uuid, e.patch, e.payload FROM esync.event e ORDER BY e.event_id;
CREATE INDEX ON hand_changes (xid, event_id);
VACUUM ANALYZE hand_changes;
CREATE PROCEDURE bench_hand(rounds int) LANGUAGE plpgsql AS $$
DECLARE
	cpu	bigint;
	n	int;
BEGIN
	FOR r IN 1 .. rounds LOOP
		cpu := bench_cpu();
		SELECT jsonb_array_length(jsonb_agg(to_jsonb(x))) INTO n FROM (
			SELECT event_id, id, patch, payload FROM hand_changes
			WHERE xid < pg_snapshot_xmax(pg_current_snapshot()) AND pg_visible_in_snapshot(xid, pg_current_snapshot())
			ORDER BY event_id LIMIT 500) x;
		INSERT INTO bench_given VALUES ('hand', r, bench_cpu() - cpu, n);
		COMMIT;
	END LOOP;
END $$;
CALL bench_hand(:rounds);

CREATE FUNCTION bench_asked(what text) RETURNS numeric LANGUAGE sql AS $$
	SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY cpu_ns) / 1e6 FROM bench_given g WHERE g.what = bench_asked.what;
$$;
SELECT count(*) AS events FROM esync.event \gset
INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'changes', title, 'ms', beside, bench_asked(what), target
FROM (VALUES
	('idle', 'nothing new', NULL, 0.3),
	('aside', 'nothing new, others wrote elsewhere', NULL, 0.3),
	('page', 'a page of 500, 6 columns', NULL, 6),
	('idle behind', format('behind %s events: nothing new', :events), NULL, 0.3),
	('page behind', 'behind them: a page of 500', NULL, 8),
	('next', 'all of them to come: a page of 500', 'a query by (xid, event_id): ' || round(bench_asked('hand')), 8),
	('first', 'the very first of these pages, which has the BRIN summarized', NULL, NULL)) v (what, title, beside, target);
