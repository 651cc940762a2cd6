-- merging_report.sql: what it costs to merge edits.
\pset footer off
\qecho Merging: CPU time, each call with its COMMIT (UPDATE: the statement alone)
SELECT what, round(value, CASE WHEN unit = 'events/s' THEN 0 WHEN value < 10 THEN 2 ELSE 1 END) AS value, unit,
	   beside, bench_verdict(value, target, at_least) AS "to show"
FROM bench_check WHERE part = 'merging' ORDER BY ord;
\qecho Deciding: CPU time, three columns, one of them in conflict
SELECT what, round(value, CASE WHEN unit = 'ratio' THEN 2 ELSE 1 END) AS value, unit, beside,
	   bench_verdict(value, target, at_least) AS "to show"
FROM bench_check WHERE part = 'deciding' ORDER BY ord;
