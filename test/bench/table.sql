-- table.sql: the table of one width and its ratios.  Variable: w.
SELECT format('Table of %s columns, %s rows a statement (%s bytes as JSON, %s as jsonb). Medians of %s rounds.',
			  :w, (SELECT max(rows) FROM bench_result WHERE width = :w AND statement = 'INSERT'),
			  avg(length(to_json(s)::text))::int, avg(pg_column_size(to_jsonb(s)))::int,
			  (SELECT max(round) FROM bench_result WHERE width = :w AND statement = 'INSERT')) AS title
FROM (SELECT * FROM source:w LIMIT 1000) s \gset
\qecho :title
SELECT format('CPU: us per row above the no-op trigger (itself, with the statement: %s); WAL: bytes per row above no trigger;',
			  string_agg(statement || ' ' || round(us, 2), ', ' ORDER BY array_position(
				ARRAY['INSERT', 'UPDATE', 'DELETE', 'COPY'], statement))) AS title
FROM bench_median WHERE width = :w AND name = 'noop' AND statement <> 'tx' \gset
\qecho :title
\qecho bytes: growth of the log with its indexes per log row. UPDATE changes 2 columns.
SELECT c.contestant, c.stores,
	   round(max(us) FILTER (WHERE statement = 'INSERT'), 2) AS "INSERT",
	   round(max(us) FILTER (WHERE statement = 'UPDATE'), 2) AS "UPDATE",
	   round(max(us) FILTER (WHERE statement = 'DELETE'), 2) AS "DELETE",
	   round(max(us) FILTER (WHERE statement = 'COPY'), 2) AS "COPY",
	   round(max(wal) FILTER (WHERE statement = 'INSERT')) AS "WAL I",
	   round(max(wal) FILTER (WHERE statement = 'UPDATE')) AS "WAL U",
	   round(max(wal) FILTER (WHERE statement = 'DELETE')) AS "WAL D",
	   round(max(bytes) FILTER (WHERE statement = 'INSERT')) AS "bytes I",
	   round(max(bytes) FILTER (WHERE statement = 'UPDATE')) AS "bytes U",
	   round(max(bytes) FILTER (WHERE statement = 'DELETE')) AS "bytes D"
FROM above a
JOIN contestants c USING (width, name)
WHERE width = :w AND statement <> 'tx'
GROUP BY c.ord, c.contestant, c.stores ORDER BY c.ord;

SELECT what AS "to show",
	   max(cell) FILTER (WHERE statement = 'INSERT') AS "INSERT",
	   max(cell) FILTER (WHERE statement = 'UPDATE') AS "UPDATE",
	   max(cell) FILTER (WHERE statement = 'DELETE') AS "DELETE"
FROM (SELECT ord, what, statement,
			 CASE WHEN :w = 50 OR ord > 3 THEN round(ratio, 2) || '  ' || bench_verdict(ratio, target)
				  ELSE round(ratio, 2)::text END AS cell
	  FROM ratios WHERE width = :w) r
GROUP BY ord, what ORDER BY ord;
