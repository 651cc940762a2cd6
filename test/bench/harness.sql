-- harness.sql: how a statement is measured, and what must be true after it.
-- Variables: module (path of the bench's C module without suffix), dir (files for COPY).

CREATE FUNCTION bench_cpu() RETURNS bigint
	AS :'module', 'bench_cpu' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION bench_cpu() IS 'CPU time of this backend so far, in nanoseconds';
CREATE FUNCTION bench_noop() RETURNS trigger
	AS :'module', 'bench_noop' LANGUAGE C;
COMMENT ON FUNCTION bench_noop() IS 'row trigger that does nothing';
CREATE FUNCTION bench_pass() RETURNS trigger
	AS :'module', 'bench_pass' LANGUAGE C;
COMMENT ON FUNCTION bench_pass() IS 'BEFORE UPDATE row trigger that does nothing';
CREATE FUNCTION bench_floor() RETURNS trigger
	AS :'module', 'bench_floor' LANGUAGE C;
COMMENT ON FUNCTION bench_floor() IS 'row trigger that stores a ready-made event; arguments: log, template';

CREATE TABLE bench_source (
	width	int PRIMARY KEY,
	tbl		regclass NOT NULL,
	columns	text NOT NULL,
	sets	text NOT NULL,
	file	text NOT NULL
);
COMMENT ON TABLE bench_source IS 'the rows that every contestant of a width is fed, and the UPDATE of 2 columns';

CREATE TABLE bench_contestant (
	width	int,
	name	text,
	ord		int NOT NULL,
	stores	text NOT NULL,
	tbl		regclass NOT NULL,
	log		regclass,
	rows_i	int NOT NULL,			-- log rows per row inserted, updated, deleted
	rows_u	int NOT NULL,
	rows_d	int NOT NULL,
	PRIMARY KEY (width, name)
);
COMMENT ON TABLE bench_contestant IS 'one way to capture, on its own copy of the source table';

CREATE TABLE bench_result (
	width		int,
	name		text,
	statement	text,
	round		int,
	rows		bigint,
	cpu_ns		bigint,
	wal			numeric,
	log_bytes	bigint,
	events		bigint
);
COMMENT ON TABLE bench_result IS 'one measured statement; events: rows it added to the log';

CREATE TABLE bench_check (
	part		text,
	what		text,
	unit		text,
	beside		text,
	value		numeric,
	target		numeric,
	at_least	boolean DEFAULT false,
	ord			int GENERATED ALWAYS AS IDENTITY
);
COMMENT ON TABLE bench_check IS 'single figures with their target; target NULL: shown only';

CREATE FUNCTION bench_verdict(value numeric, target numeric, at_least boolean DEFAULT false) RETURNS text
	LANGUAGE sql AS $$
	SELECT CASE WHEN target IS NULL THEN ''
				WHEN at_least THEN '>= ' || target || CASE WHEN value >= target THEN '  ok' ELSE '  MISS' END
				ELSE '<= ' || target || CASE WHEN value <= target THEN '  ok' ELSE '  MISS' END END;
$$;
COMMENT ON FUNCTION bench_verdict(numeric, numeric, boolean) IS 'a target, and whether it was reached';

-- The median, and of an even number the lower one.
CREATE VIEW bench_median AS
SELECT width, name, statement,
	   percentile_disc(0.5) WITHIN GROUP (ORDER BY cpu_ns / 1000.0 / rows) AS us,
	   percentile_disc(0.5) WITHIN GROUP (ORDER BY wal / rows) AS wal,
	   percentile_disc(0.5) WITHIN GROUP (ORDER BY log_bytes::numeric / nullif(events, 0)) AS bytes
FROM bench_result
GROUP BY width, name, statement;

CREATE FUNCTION bench_count(log regclass) RETURNS bigint
	LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	IF log IS NULL THEN
		RETURN 0;
	END IF;
	EXECUTE format('SELECT count(*) FROM %s', log) INTO n;
	RETURN n;
END $$;
COMMENT ON FUNCTION bench_count(regclass) IS 'rows of a log; 0 where there is none';

-- A contestant that did not capture what it should have is no contestant.
CREATE FUNCTION bench_assert(what text, got bigint, expected bigint) RETURNS void
	LANGUAGE plpgsql AS $$
BEGIN
	IF got IS DISTINCT FROM expected THEN
		RAISE EXCEPTION '%: % where % was expected', what, got, expected;
	END IF;
END $$;
COMMENT ON FUNCTION bench_assert(text, bigint, bigint) IS 'stops the bench where a count is wrong';

-- Runs one statement in its own transaction and records what it cost.
CREATE PROCEDURE bench_statement(k bench_contestant, r int, kind text, stmt text, per_row int)
	LANGUAGE plpgsql AS $$
DECLARE
	events0	bigint := bench_count(k.log);
	bytes0	bigint := coalesce(pg_total_relation_size(k.log), 0);
	events	bigint;
	n		bigint;
	wal0	pg_lsn;
	wal1	pg_lsn;
	cpu0	bigint;
	cpu1	bigint;
BEGIN
	COMMIT;
	wal0 := pg_current_wal_insert_lsn();
	cpu0 := bench_cpu();
	EXECUTE stmt;
	GET DIAGNOSTICS n = ROW_COUNT;
	COMMIT;
	cpu1 := bench_cpu();
	wal1 := pg_current_wal_insert_lsn();
	events := bench_count(k.log) - events0;
	PERFORM bench_assert(format('%s of %s columns, %s: rows in the log', k.name, k.width, kind),
						 events, n * per_row);
	IF n = 0 THEN
		RAISE EXCEPTION '% of % changed nothing', kind, k.tbl;
	END IF;
	INSERT INTO bench_result
	VALUES (k.width, k.name, kind, r, n, cpu1 - cpu0, wal1 - wal0,
			coalesce(pg_total_relation_size(k.log), 0) - bytes0, events);
	COMMIT;
END $$;

-- Empties a table and its log without any trigger, then opens all caches on one row.
CREATE PROCEDURE bench_clear(w int, contestant text)
	LANGUAGE plpgsql AS $$
DECLARE
	k	bench_contestant;
	s	bench_source;
BEGIN
	SELECT * INTO STRICT k FROM bench_contestant WHERE width = w AND name = contestant;
	SELECT * INTO STRICT s FROM bench_source WHERE width = w;
	SET LOCAL session_replication_role = replica;
	EXECUTE format('TRUNCATE %s', k.tbl);
	IF k.log IS NOT NULL THEN
		EXECUTE format('TRUNCATE %s', k.log);
	END IF;
	COMMIT;
	EXECUTE format('INSERT INTO %s (%s) SELECT %s FROM %s LIMIT 1', k.tbl, s.columns, s.columns, s.tbl);
	EXECUTE format('UPDATE %s SET %s', k.tbl, s.sets);
	EXECUTE format('DELETE FROM %s', k.tbl);
	ROLLBACK;
END $$;

-- The four statements of one contestant in one round.
CREATE PROCEDURE bench_cell(w int, contestant text, r int)
	LANGUAGE plpgsql AS $$
DECLARE
	k	bench_contestant;
	s	bench_source;
BEGIN
	SELECT * INTO STRICT k FROM bench_contestant WHERE width = w AND name = contestant;
	SELECT * INTO STRICT s FROM bench_source WHERE width = w;
	CALL bench_clear(w, contestant);
	CALL bench_statement(k, r, 'COPY',
						 format('COPY %s (%s) FROM %L', k.tbl, s.columns, s.file), k.rows_i);
	CALL bench_clear(w, contestant);
	CALL bench_statement(k, r, 'INSERT', format('INSERT INTO %s (%s) SELECT %s FROM %s',
						 k.tbl, s.columns, s.columns, s.tbl), k.rows_i);
	CALL bench_statement(k, r, 'UPDATE', format('UPDATE %s SET %s', k.tbl, s.sets), k.rows_u);
	CALL bench_statement(k, r, 'DELETE', format('DELETE FROM %s', k.tbl), k.rows_d);
END $$;

-- Makes the loop of one row a transaction for one contestant: transaction control
-- needs the UPDATE to stand in the procedure itself.
CREATE PROCEDURE bench_make_loop(w int, contestant text)
	LANGUAGE plpgsql AS $make$
DECLARE
	k	bench_contestant;
	s	bench_source;
BEGIN
	SELECT * INTO STRICT k FROM bench_contestant WHERE width = w AND name = contestant;
	SELECT * INTO STRICT s FROM bench_source WHERE width = w;
	EXECUTE format($body$
CREATE PROCEDURE %I(m int, r int) LANGUAGE plpgsql AS $$
DECLARE
	ids		uuid[] := ARRAY(SELECT id FROM %s);
	n		int := cardinality(ids);
	warm	int := 100;
	key		uuid;
	before	bigint := bench_count(%L);
	wal0	pg_lsn;
	wal1	pg_lsn;
	cpu0	bigint;
	cpu1	bigint;
BEGIN
	FOR i IN 1 .. warm + m LOOP
		IF i = warm + 1 THEN
			wal0 := pg_current_wal_insert_lsn();
			cpu0 := bench_cpu();
		END IF;
		key := ids[1 + floor(random() * n)::int];
		UPDATE %s SET %s WHERE id = key;
		COMMIT;
	END LOOP;
	cpu1 := bench_cpu();
	wal1 := pg_current_wal_insert_lsn();
	PERFORM bench_assert('%s, one row a transaction: rows in the log',
						 bench_count(%L) - before, %s * (warm + m));
	INSERT INTO bench_result VALUES (%s, %L, 'tx', r, m, cpu1 - cpu0, wal1 - wal0, 0, m);
	COMMIT;
END $$ $body$,
		format('bench_loop_%s_%s', w, contestant), k.tbl, k.log, k.tbl, s.sets,
		contestant, k.log, k.rows_u, w, contestant);
END $make$;
