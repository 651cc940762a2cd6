-- What an administrator reads afterwards.
\echo '== Who set the pressure of PSV-101? ========================================================='
\echo
\echo '=> SELECT ... FROM field_history(''blocks'', :psv_101, ''vSetPressure'');'
\echo
SELECT version AS v, value, previous_value AS before, user_id, device_id,
	to_char(branch_timestamp, 'Dy HH24:MI') AS branched, to_char(submit_timestamp, 'Dy HH24:MI') AS saved, status
FROM field_history('blocks', :'psv_101', 'vSetPressure');

\echo 'One line an edit, newest first.  branched: when the device took its copy of the row; saved: when its'
\echo 'user pressed the button.  Both come from the device; when the server took it is kept as well.'
\echo
\echo '== The same row as a graph =================================================================='
\echo
\echo 'Newest first.  The server''s line is on the left; a lane leaves it where a copy was taken and joins it'
\echo 'where the edit was accepted.'
\echo
\pset tuples_only on
\pset format unaligned
SELECT * FROM esync_graph('blocks', :'psv_101');
\pset format aligned
\pset tuples_only off

\echo
\echo '== Every event of the row ==================================================================='
\echo
SELECT version AS v, event_type, user_id, to_char(submit_timestamp, 'Dy HH24:MI') AS saved,
	(SELECT string_agg(CASE WHEN length(op ->> 'value') > 30 THEN op ->> 'path' || ' ...'
		ELSE (op ->> 'path') || ' ' || coalesce(op ->> 'value', 'null') END, E'\n' ORDER BY n)
	FROM jsonb_array_elements(patch) WITH ORDINALITY AS p (op, n)) AS patch
FROM esync_history('blocks', :'psv_101');

\echo 'Of 50 columns an event records those that changed.  Ben''s four columns are one event; the UPDATE of'
\echo 'the fourth day that changed nothing is none.'
\echo
\echo '== What was PSV-101 on the third day at 08:00? =============================================='
\echo
\echo '=> SELECT esync_state(''blocks'', :psv_101, as_of => ''... 08:00'');'
\echo
SELECT s ->> 'vTagNo' AS tag, s ->> 'vSetPressure' AS "vSetPressure", s ->> 'vTrimMaterial' AS "vTrimMaterial",
	s ->> 'vLastTestDate' AS "vLastTestDate", s -> 'vDocuments' -> 'report' AS report, s ->> 'remarks' AS remarks
FROM esync_state('blocks', :'psv_101', as_of => timestamptz :'day3' + '08:00') AS s;

\echo 'Anna''s pressure and ben''s test are there; what carla entered at 09:20 is not.'
\echo
\echo '== The whole table then, and now ============================================================'
\echo
\echo '=> SELECT ... FROM esync_as_of(NULL::blocks, ''... 08:00'');'
\echo
SELECT "vTagNo", "vManufacturer", "vSetPressure", "vDesignPressure" - "vSetPressure" AS margin,
	"vInstallDate", "vDrawings"
FROM esync_as_of(NULL::blocks, timestamptz :'day3' + '08:00') ORDER BY 1;
\echo '=> SELECT ... FROM blocks;'
\echo
SELECT "vTagNo", "vManufacturer", "vSetPressure", "vDesignPressure" - "vSetPressure" AS margin,
	"vInstallDate", "vDrawings"
FROM blocks ORDER BY 1;

\echo 'The rows of the past are typed like the table, so any query works on them.  PSV-102 was deleted since;'
\echo 'its stream stays, and so does that of its productions, which went by ON DELETE CASCADE:'
\echo
SELECT 'blocks' AS "table", version AS v, event_type, user_id, device_id,
	to_char(submit_timestamp, 'Dy HH24:MI') AS saved
FROM esync_history('blocks', :'psv_102')
UNION ALL
SELECT 'productions', h.version, h.event_type, h.user_id, h.device_id, to_char(h.submit_timestamp, 'Dy HH24:MI')
FROM esync_as_of(NULL::productions, timestamptz :'day5' + '06:00') AS p,
	esync_history('productions', p.production_id) AS h
WHERE p.block_id = :'psv_102';

\echo '== What is tracked, and is the stream right? ================================================'
\echo
\echo '=> SELECT ... FROM esync_status();'
\echo
SELECT tbl, mode, enabled, events, aggregates, pg_size_pretty(bytes) AS size,
	to_char(oldest, 'Dy HH24:MI') AS oldest, to_char(newest, 'Dy HH24:MI') AS newest
FROM esync_status() ORDER BY tbl::text;
\echo '=> SELECT * FROM esync_verify(''blocks'') UNION ALL ... ;'
\echo
SELECT * FROM esync_verify('blocks')
UNION ALL SELECT * FROM esync_verify('productions')
UNION ALL SELECT * FROM esync_verify('products');
\echo 'No line: each table equals what its stream says.'
