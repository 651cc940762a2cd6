-- Friday in the office: carla decides what the tablets left open, and takes one decision back.  A decision is an event
-- like any other, so who decided, when, and instead of what is on record with the rest.
\echo
\echo '== Friday: the conflicts are decided ========================================================'
\echo
\echo 'The tablets went home with all that there was, and each keeps a cursor for the next time:'
\echo
\echo '=> SELECT esync_changes(''now'') ->> ''cursor'';'
\echo
SELECT esync_changes('now') ->> 'cursor' AS cursor \gset
SELECT substr(:'cursor', 1, 40) || '...' AS cursor;

\echo 'Three are open: the pressure and the remarks of PSV-201, and PSV-202, which anna deleted and ben edited.'
\echo 'What speaks for each pressure?  esync_suggest counts people and rows; it knows nothing of valves:'
\echo
\echo '=> SELECT value, confidence, reason FROM esync_suggest(''blocks'', :psv_201, ''vSetPressure'');'
\echo
SELECT value, confidence, reason FROM esync_suggest('blocks', :'psv_201', 'vSetPressure');

\echo 'Between anna and ben it is a draw.  On the drawing carla finds 139: anna''s.  Each line of a field''s'
\echo 'history is an event, and the value of any of them can be taken, by its event_id:'
\echo
\echo '=> SELECT esync_resolve_row(''blocks'', :psv_201, ''{"vSetPressure": {"event_id": ...}}'', :version);'
\echo
SELECT event_id AS bar FROM field_history('blocks', :'psv_201', 'vSetPressure') WHERE user_id = 'anna' \gset
SELECT esync_version('blocks', :'psv_201') AS version \gset
BEGIN;
SELECT esync_context(user_id => 'carla', device_id => 'office', submit_timestamp => '2025-11-21 08:00Z') \g /dev/null
SELECT esync_resolve_row('blocks', :'psv_201', jsonb_build_object('vSetPressure', jsonb_build_object('event_id', :bar)),
	:version) AS answer \gset
COMMIT;
SELECT a -> 'version' AS version, a -> 'row' -> 'vSetPressure' AS "vSetPressure",
	jsonb_array_length(a -> 'resolved') AS "conflicts closed", a #>> '{conflicts,0,field}' AS "still open in this row"
FROM (SELECT :'answer'::jsonb) AS given (a);

\echo 'The version says what carla was looking at.  Had somebody decided before her, or set the pressure since,'
\echo 'she would get an error (YS004) with the row as it is now, and nothing would be written.'
\echo
\echo 'Where nobody needs to think, a strategy decides all conflicts about a field, or of a table, at once.  Of'
\echo 'two remarks that was saved last shows already; the conflict is closed over it:'
\echo
\echo '=> SELECT esync_resolve_all(''blocks'', ''last_write_wins'', ''remarks'');'
\echo
BEGIN;
SELECT esync_context(user_id => 'carla', device_id => 'office', submit_timestamp => '2025-11-21 08:10Z') \g /dev/null
SELECT esync_resolve_all('blocks', 'last_write_wins', 'remarks') AS "conflicts closed";
COMMIT;

\echo 'PSV-202 is needed after all.  It comes back with all that it held, and with ben''s edit:'
\echo
\echo '=> SELECT esync_resolve(:conflict_id, ''manual'', ''{"deleted": false}'');'
\echo
SELECT conflict_id FROM esync_conflicts('blocks', :'psv_202', kind => 'delete_edit') \gset
BEGIN;
SELECT esync_context(user_id => 'carla', device_id => 'office', submit_timestamp => '2025-11-21 08:20Z') \g /dev/null
SELECT esync_resolve(:conflict_id, 'manual', '{"deleted": false}') \g /dev/null
COMMIT;
SELECT "vTagNo", description, "vSetPressure", "vTrimMaterial", remarks FROM blocks WHERE "vTagNo" IN ('PSV-201', 'PSV-202') ORDER BY 1;

\echo '== A decision is taken back ================================================================='
\echo
\echo 'Ben calls: the drawing is an old one.  Carla takes back her first decision, and only that:'
\echo
\echo '=> SELECT esync_undo(:event_id);'
\echo
BEGIN;
SELECT esync_context(user_id => 'carla', device_id => 'office') \g /dev/null
SELECT u -> 'undone' AS undone, u -> 'kept' AS kept, u -> 'row' -> 'vSetPressure' AS "vSetPressure",
	u #>> '{conflicts,0,field}' AS conflict, u #>> '{conflicts,0,status}' AS "is now"
FROM esync_undo((:'answer'::jsonb ->> 'event_id')::bigint) AS u;
COMMIT;

\echo 'The row shows what it showed without her decision, and the conflict is open again.  Nothing was erased:'
\echo
\echo '=> SELECT ... FROM field_history(''blocks'', :psv_201, ''vSetPressure'');'
\echo
SELECT h.version AS v, h.event_type, h.value, h.previous_value AS before, h.user_id,
	CASE WHEN e.meta ? 'undoes' THEN 'just now' ELSE to_char(h.submit_timestamp, 'Dy HH24:MI') END AS saved, h.status,
	CASE WHEN e.meta ? 'undoes' THEN 'takes back v' || undone.version WHEN e.event_type = 'Resolved' THEN 'decides' END AS note
FROM field_history('blocks', :'psv_201', 'vSetPressure') AS h
JOIN esync_history('blocks', :'psv_201') AS e USING (event_id)
LEFT JOIN esync_history('blocks', :'psv_201') AS undone ON undone.event_id = (e.meta ->> 'undoes')::bigint
ORDER BY h.version DESC;

\echo '=> SELECT ... FROM esync_conflicts(status => ''all'');'
\echo
SELECT CASE aggregate_id WHEN :'psv_201' THEN 'PSV-201' ELSE 'PSV-202' END AS valve, coalesce(field, '(the row)') AS field,
	kind, status, resolved_by, resolution
FROM esync_conflicts(status => 'all') ORDER BY valve, field;

\echo '=> SELECT * FROM esync_verify(''blocks'');'
\echo
SELECT * FROM esync_verify('blocks');
\echo 'No line: decisions, what was brought back and what was taken back included.'
