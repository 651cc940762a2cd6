-- report.sql: the tables that a reader sees.
\pset footer off
\pset null ''

-- CPU above the no-op trigger, WAL above no trigger
CREATE TEMP VIEW above AS
SELECT m.width, m.name, m.statement, m.us - z.us AS us, m.wal - o.wal AS wal, m.bytes
FROM bench_median m
JOIN bench_median z ON (z.width, z.name, z.statement) = (m.width, 'noop', m.statement)
JOIN bench_median o ON (o.width, o.name, o.statement) = (m.width, 'none', m.statement);

CREATE TEMP VIEW contestants AS
SELECT c.width, c.ord, c.name, coalesce(t.title, c.name) AS contestant, c.stores
FROM bench_contestant c
LEFT JOIN (VALUES ('none', 'no trigger'), ('disabled', 'esync, disabled'), ('noop', 'no-op C trigger'),
				  ('floor', 'storage floor (C)'), ('full', 'esync, payload full'),
				  ('changes', 'esync, payload changes'), ('plpgsql', 'PL/pgSQL trigger')) t (name, title)
	USING (name);

-- the ratios that must be reached
CREATE TEMP VIEW ratios AS
SELECT a.width, v.ord, v.what, a.statement, a.us / nullif(b.us, 0) AS ratio,
	   CASE a.statement WHEN 'INSERT' THEN v.i WHEN 'UPDATE' THEN v.u WHEN 'DELETE' THEN v.d END AS target
FROM (VALUES (1, 'payload full / PL/pgSQL', 'full', 'plpgsql', 0.45, 0.25, 0.45),
			 (2, 'payload changes / PL/pgSQL', 'changes', 'plpgsql', 0.45, 0.14, 0.25),
			 (3, 'payload full / storage floor', 'full', 'floor', 1.35, 1.5, 1.35)) v (ord, what, x, y, i, u, d)
JOIN above a ON a.name = v.x
JOIN above b ON (b.width, b.statement, b.name) = (a.width, a.statement, v.y)
WHERE a.statement IN ('INSERT', 'UPDATE', 'DELETE')
UNION ALL
SELECT a.width, 4, 'WAL, payload full / storage floor', a.statement, a.wal / nullif(b.wal, 0), 1.15
FROM above a
JOIN above b ON (b.width, b.statement, b.name) = (a.width, a.statement, 'floor')
WHERE a.name = 'full' AND a.statement IN ('INSERT', 'UPDATE', 'DELETE')
UNION ALL
SELECT d.width, 5, 'disabled / no trigger', d.statement, d.us / n.us, 1.05
FROM bench_median d
JOIN bench_median n ON (n.width, n.statement, n.name) = (d.width, d.statement, 'none')
WHERE d.name = 'disabled' AND d.statement IN ('INSERT', 'UPDATE', 'DELETE');

\set w 50
\ir table.sql
\set w 6
\ir table.sql

\qecho One row a transaction, table of 50 columns: CPU time and WAL of an UPDATE with its COMMIT
SELECT c.contestant, round(m.us, 1) AS "us", round(m.us - b.us, 1) AS "- bare",
	   round(m.us / b.us, 2) AS "/ bare", round(m.wal) AS "WAL bytes",
	   CASE c.name WHEN 'full' THEN bench_verdict(m.us / b.us, 1.8)
				   WHEN 'changes' THEN bench_verdict(m.us / b.us, 1.4) END AS "to show"
FROM bench_median m
JOIN contestants c USING (width, name)
JOIN bench_median b ON (b.width, b.name, b.statement) = (m.width, 'none', 'tx')
WHERE m.statement = 'tx' ORDER BY c.ord;

\qecho Reading and growth: CPU time, as called from PL/pgSQL
SELECT what, round(value, CASE WHEN unit = 'ratio' THEN 2 WHEN value < 100 THEN 1 ELSE 0 END) AS value, unit,
	   beside, bench_verdict(value, target, at_least) AS "to show"
FROM bench_check WHERE part IN ('reading', 'growth') ORDER BY part DESC, ord;
