-- contestants.sql: one copy of the source table per contestant, with its capture.
-- Variables: w (width: 50 or 6), periods and table_log (whether the package is there).
SET client_min_messages = warning;

CREATE FUNCTION pg_temp.contestant(w int, name text, ord int, stores text,
								   rows_i int, rows_u int, rows_d int) RETURNS text
	LANGUAGE plpgsql AS $$
DECLARE
	tbl text := format('b%s_%s', w, name);
BEGIN
	EXECUTE format('CREATE TABLE %I (LIKE source%s INCLUDING ALL)', tbl, w);
	INSERT INTO bench_contestant VALUES (w, name, ord, stores, tbl::regclass, NULL, rows_i, rows_u, rows_d);
	RETURN tbl;
END $$;

CREATE FUNCTION pg_temp.log_of(w int, contestant text, log regclass) RETURNS regclass
	LANGUAGE sql AS $$
	UPDATE bench_contestant SET log = log_of.log
	WHERE width = w AND name = contestant RETURNING log_of.log;
$$;

CREATE FUNCTION pg_temp.leaf_of(tbl regclass) RETURNS regclass
	LANGUAGE sql AS $$
	SELECT ('esync.event_' || table_id)::regclass FROM esync.tracked_table WHERE relation = tbl;
$$;

-- no trigger at all
SELECT pg_temp.contestant(:w, 'none', 1, 'nothing', 0, 0, 0);

-- once enabled, now disabled: must cost what no trigger costs
SELECT pg_temp.contestant(:w, 'disabled', 2, 'nothing', 0, 0, 0) AS t \gset
SELECT esync_enable(:'t'::regclass);
SELECT esync_disable(:'t'::regclass);

-- a C trigger that does nothing: zero of the scale
SELECT pg_temp.contestant(:w, 'noop', 3, 'nothing', 0, 0, 0) AS t \gset
CREATE TRIGGER noop AFTER INSERT OR UPDATE OR DELETE ON :t
	FOR EACH ROW EXECUTE FUNCTION bench_noop();

-- esync
SELECT pg_temp.contestant(:w, 'full', 5, 'row and patch', 1, 1, 1) AS t \gset
SELECT esync_enable(:'t'::regclass, payload => 'full');
SELECT pg_temp.log_of(:w, 'full', pg_temp.leaf_of(:'t'::regclass)) AS leaf \gset
\set full :t
SELECT pg_temp.contestant(:w, 'changes', 6, 'patch', 1, 1, 1) AS t \gset
SELECT esync_enable(:'t'::regclass, payload => 'changes');
SELECT pg_temp.log_of(:w, 'changes', pg_temp.leaf_of(:'t'::regclass));

-- storage floor: LIKE the leaf of payload full, its templates are real events of one
-- row in the middle of the source
SELECT pg_temp.contestant(:w, 'floor', 4, 'ready-made event', 1, 1, 1) AS t \gset
SELECT 'floor_log' || :w AS log, 'floor_template' || :w AS template, sets
FROM bench_source WHERE width = :w \gset
CREATE TABLE :log (LIKE :leaf INCLUDING INDEXES INCLUDING STORAGE INCLUDING COMPRESSION);
CREATE TABLE :template (LIKE :leaf INCLUDING STORAGE INCLUDING COMPRESSION);
INSERT INTO :full SELECT * FROM source:w OFFSET (SELECT count(*) / 2 FROM source:w) LIMIT 1;
UPDATE :full SET :sets;
DELETE FROM :full;
INSERT INTO :template SELECT * FROM :leaf ORDER BY version;
SELECT bench_assert('templates of the storage floor', count(*) FILTER (WHERE version BETWEEN 1 AND 3), 3)
FROM :template;
CREATE TRIGGER floor AFTER INSERT OR UPDATE OR DELETE ON :t
	FOR EACH ROW EXECUTE FUNCTION bench_floor(:log, :template);
SELECT pg_temp.log_of(:w, 'floor', :'log'::regclass);

-- ten lines of PL/pgSQL, with the two btrees that an event leaf has
SELECT pg_temp.contestant(:w, 'plpgsql', 7, 'both rows', 1, 1, 1) AS t \gset
SELECT 'plpgsql_log' || :w AS log \gset
CREATE TABLE :log (
	event_id		bigint GENERATED ALWAYS AS IDENTITY,
	xid				xid8 DEFAULT pg_current_xact_id(),
	at				timestamptz DEFAULT clock_timestamp(),
	op				text,
	aggregate_id	text COLLATE "C",
	old				jsonb,
	new				jsonb
);
CREATE UNIQUE INDEX ON :log (aggregate_id, event_id);
CREATE INDEX ON :log (xid, event_id);
SELECT format($f$
CREATE FUNCTION %1$I() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		INSERT INTO %2$I (op, aggregate_id, new) VALUES (TG_OP, NEW.id, to_jsonb(NEW));
	ELSIF TG_OP = 'UPDATE' THEN
		INSERT INTO %2$I (op, aggregate_id, old, new) VALUES (TG_OP, NEW.id, to_jsonb(OLD), to_jsonb(NEW));
	ELSE
		INSERT INTO %2$I (op, aggregate_id, old) VALUES (TG_OP, OLD.id, to_jsonb(OLD));
	END IF;
	RETURN NULL;
END $$ $f$, 'plpgsql_log_row' || :w, :'log') \gexec
SELECT format('CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION %I()',
			  :'t', 'plpgsql_log_row' || :w) \gexec
SELECT pg_temp.log_of(:w, 'plpgsql', :'log'::regclass);

-- periods: system versioning; what a row was before it was changed
\if :periods
SELECT pg_temp.contestant(:w, 'periods', 8, 'old row', 0, 1, 1) AS t \gset
SELECT periods.add_system_time_period(:'t'::regclass);
SELECT periods.add_system_versioning(:'t'::regclass);
SELECT pg_temp.log_of(:w, 'periods', (:'t' || '_history')::regclass);
\endif

-- table_log: old and new row as two rows of a typed copy
\if :table_log
SELECT pg_temp.contestant(:w, 'table_log', 9, 'both rows, typed', 1, 2, 1) AS t \gset
SELECT table_log_init(5, 'public', :'t', 'public', :'t' || '_log');
SELECT pg_temp.log_of(:w, 'table_log', (:'t' || '_log')::regclass);
\endif

DROP FUNCTION pg_temp.contestant, pg_temp.log_of, pg_temp.leaf_of;
