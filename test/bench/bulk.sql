-- bulk.sql: all contestants in turn, round by round.  Variable: rounds.
-- One session does it all: a page of shared buffers costs a backend more at its first touch.
SELECT CASE ord WHEN 0 THEN 'CHECKPOINT' ELSE format('CALL bench_cell(%s, %L, %s)', width, name, r) END
FROM (SELECT width, name, ord FROM bench_contestant
	  UNION ALL SELECT width, NULL, 0 FROM bench_source) c,
	 generate_series(1, :rounds) r
ORDER BY width DESC, r, ord \gexec
