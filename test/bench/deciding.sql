-- deciding.sql: what it costs to list and to decide many conflicts, and whether that stays linear.

-- A table with as many rows in conflict; what listing and deciding them costs, and an UPDATE of them beside.
CREATE PROCEDURE bench_decide(n int) LANGUAGE plpgsql AS $$
DECLARE
	t	text := 'decide' || n;
	cpu	bigint[];
	got	bigint[];
BEGIN
	EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, qty int, note text)', t);
	EXECUTE format('INSERT INTO %I SELECT g, 0, ''note '' || g FROM generate_series(1, $1) g', t) USING n;
	PERFORM esync_enable(t::regclass);
	EXECUTE format('UPDATE %I SET qty = 1', t);
	COMMIT;
	PERFORM esync_context('ben', branch_timestamp => now() - interval '1 hour');
	EXECUTE format('UPDATE %I SET qty = 2', t);
	COMMIT;
	EXECUTE format('ANALYZE %I', t);
	ANALYZE esync.conflict;
	cpu[0] := bench_cpu();
	got[1] := (SELECT count(*) FROM esync_conflicts(t::regclass));
	cpu[1] := bench_cpu();
	got[2] := (SELECT count(*) FROM esync_conflicts(t::regclass, field => 'note'));
	cpu[2] := bench_cpu();
	got[3] := esync_resolve_all(t::regclass, 'last_write_wins', 'qty');
	COMMIT;
	cpu[3] := bench_cpu();
	EXECUTE format('UPDATE %I SET qty = 3', t);
	COMMIT;
	cpu[4] := bench_cpu();
	PERFORM bench_assert('conflicts listed', got[1], n);
	PERFORM bench_assert('conflicts of another field', got[2], 0);
	PERFORM bench_assert('conflicts decided', got[3], n);
	PERFORM bench_assert('conflicts left', (SELECT count(*) FROM esync_conflicts(t::regclass)), 0);
	INSERT INTO bench_result
	SELECT 3, 'esync', what, 1, n, cpu[i] - cpu[i - 1], 0, NULL, n
	FROM (VALUES (1, 'list'), (2, 'filter'), (3, 'resolve'), (4, 'update')) v (i, what);
	COMMIT;
END $$;

CALL bench_decide(2000);			-- warms caches; not shown
CALL bench_decide(5000);
CALL bench_decide(10000);
CALL bench_decide(20000);

CREATE FUNCTION bench_decided(what text, n int) RETURNS numeric LANGUAGE sql AS $$
	SELECT min(cpu_ns) / 1e6 FROM bench_result WHERE width = 3 AND statement = what AND rows = n;
$$;

INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'deciding', format('%s conflicts: %s', n, title), 'ms',
	   'UPDATE of as many rows: ' || round(bench_decided('update', n), 1), bench_decided(what, n), NULL
FROM (VALUES (1, 'list', 'esync_conflicts, all'), (2, 'filter', 'esync_conflicts, a field without any'),
			 (3, 'resolve', 'esync_resolve_all')) v (ord, what, title),
	unnest(ARRAY[5000, 10000, 20000]) n
ORDER BY ord, n;

-- four times as many conflicts: four times the time, and half of that again for the machine
INSERT INTO bench_check (part, what, unit, beside, value, target)
SELECT 'deciding', '20000 / 5000 conflicts: ' || title, 'ratio',
	   'UPDATE: ' || round(bench_decided('update', 20000) / bench_decided('update', 5000), 2),
	   bench_decided(what, 20000) / bench_decided(what, 5000), 6
FROM (VALUES (1, 'list', 'esync_conflicts, all'), (2, 'resolve', 'esync_resolve_all')) v (ord, what, title)
ORDER BY ord;
