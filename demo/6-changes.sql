-- Friday afternoon: the tablets ask what is new.  They write what they are told, and need no merge of their own.
\echo
\echo '== Friday afternoon: what is new ============================================================'
\echo
\echo 'Anna''s tablet gives its cursor back.  set is what it has to write; version, whether it has that already:'
\echo
\echo '=> SELECT ... FROM esync_changes(:cursor);'
\echo
SELECT esync_changes(:'cursor') AS page \gset
SELECT valve."vTagNo" AS valve, c -> 'version' AS version, c ->> 'event_type' AS event_type, c ->> 'user_id' AS by,
	CASE WHEN c ->> 'event_type' = 'Resolved' AND (SELECT count(*) FROM jsonb_object_keys(c -> 'set')) > 10
		THEN 'the whole row' ELSE c ->> 'set' END AS set, c -> 'conflict' AS conflict
FROM jsonb_array_elements(:'page'::jsonb -> 'changes') AS c
JOIN blocks AS valve ON valve.block_id = (c #>> '{key,block_id}')::uuid;

\echo 'Nothing is skipped that commits late, and nothing waits for a transaction that stays open: a cursor is a'
\echo 'snapshot, not a number.  With the cursor that came with the page there is nothing more:'
\echo
SELECT jsonb_array_length(p -> 'changes') AS changes, p -> 'has_more' AS has_more, p -> 'reset' AS reset
FROM esync_changes(:'page'::jsonb ->> 'cursor') AS p;

\echo 'A service that sends mail has its cursor kept here, under a name.  What it was given and has not'
\echo 'acknowledged comes again, so that it may die at any moment:'
\echo
\echo '=> SELECT esync_poll(''mailer'', 2);  ...  SELECT esync_ack(''mailer'', :cursor);'
\echo
SELECT esync_poll('mailer', 2) AS page \gset
SELECT c ->> 'table' AS "table", c -> 'version' AS version, c ->> 'event_type' AS event_type, c ->> 'user_id' AS by
FROM jsonb_array_elements(:'page'::jsonb -> 'changes') AS c;
SELECT esync_ack('mailer', :'page'::jsonb ->> 'cursor') \g /dev/null
SELECT consumer, behind AS "still to come", acked_at IS NOT NULL AS acknowledged FROM esync_consumers();
