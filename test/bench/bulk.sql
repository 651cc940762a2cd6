-- bulk.sql: contestants in turn, round by round.
-- Variables: first, last (rounds), leaky (false: all but the leaky one, true: that alone).
-- One session does it all: a page of shared buffers costs a backend more at its first touch.
-- But periods keeps a new plan per row, which each later invalidation has to visit: it gets
-- sessions of its own, or it would be paid for by all.
SELECT CASE ord WHEN 0 THEN 'CHECKPOINT' ELSE format('CALL bench_cell(%s, %L, %s)', width, name, r) END
FROM (SELECT width, name, ord FROM bench_contestant
	  UNION ALL SELECT width, NULL, 0 FROM bench_source) c,
	 generate_series(:first, :last) r
WHERE (name IS NOT DISTINCT FROM 'periods') = :leaky
ORDER BY width DESC, r, ord \gexec
