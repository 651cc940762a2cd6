-- loops.sql: one row a transaction, on a table of 50 columns.
-- Variables: first, last, leaky (see bulk.sql), loops, loop_rows (rows of the table: more
-- than the CPU's caches hold).
-- Only transaction control at top level may commit, hence a procedure per contestant.
SELECT NOT EXISTS (SELECT FROM pg_proc WHERE proname LIKE 'bench\_loop\_50\_%') AS unprepared \gset
\if :unprepared
SELECT format('CALL bench_make_loop(%s, %L)', width, name) FROM bench_contestant WHERE width = 50 \gexec
SELECT format('CALL bench_clear(%s, %L)', width, name) FROM bench_contestant WHERE width = 50 ORDER BY ord \gexec
SELECT format('INSERT INTO %s (%s) SELECT md5(g || s.id::text)::uuid, %s '
			  'FROM source50 s, generate_series(1, %s) g LIMIT %s',
			  k.tbl, s.columns, substr(s.columns, length('id, ') + 1),
			  1 + :loop_rows / (SELECT count(*) FROM source50), :loop_rows)
FROM bench_contestant k JOIN bench_source s USING (width) WHERE width = 50 ORDER BY k.ord \gexec
SELECT format('VACUUM ANALYZE %s', rel)
FROM bench_contestant, unnest(ARRAY[tbl, log]) rel
WHERE width = 50 AND rel IS NOT NULL \gexec
\endif
SELECT format('CALL %I(%s, %s)', 'bench_loop_50_' || name, :loops, r)
FROM bench_contestant, generate_series(:first, :last) r
WHERE width = 50 AND (name = 'periods') = :leaky ORDER BY r, ord \gexec
