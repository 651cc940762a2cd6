-- json_report.sql: what single documents cost.
\pset footer off
\qecho JSON, us a call (loop subtracted): CPU time, documents in memory
SELECT what, round(value, CASE WHEN unit = 'operations' THEN 0 WHEN value < 10 THEN 2 ELSE 1 END) AS value, unit,
	   beside, bench_verdict(value, target, at_least) AS "to show"
FROM bench_check WHERE part = 'json' ORDER BY ord;
