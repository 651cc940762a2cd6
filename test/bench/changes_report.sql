-- changes_report.sql: what it costs to ask what is new.
\pset footer off
\qecho Changes: CPU time of a call with its COMMIT, 20 tracked tables
SELECT what, round(value, CASE WHEN value < 10 THEN 3 ELSE 1 END) AS value, unit, beside, bench_verdict(value, target) AS "to show"
FROM bench_check WHERE part = 'changes' ORDER BY ord;
\qecho Writes by 2 sessions, a transaction an UPDATE of one row; consumers poll ten times a second (tps is noise where the machine has other work)
SELECT what, round(avg(us), 1) AS "CPU us", round(avg(us) / first_value(avg(us)) OVER (ORDER BY min(ord)), 2) AS ratio, round(sum(tps)) AS tps
FROM bench_written JOIN bench_check USING (what) WHERE part = 'followed' GROUP BY what ORDER BY min(ord);
