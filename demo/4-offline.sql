-- The offline week: what two technicians do without a network meets what the office did meanwhile.  The week is a
-- fixed one, so that each run prints the same times; only the moments at which the server accepted edits are those
-- of the run.  Both orders of reconnecting are played, on the database and on a copy of it.
\set psv_201 'a2010000-0000-4000-8000-000000000201'
\set psv_202 'a2020000-0000-4000-8000-000000000202'

\echo
\echo '== A week offline ==========================================================================='
\echo
\echo 'The week is a fixed one, of November 2025; the server takes what is handed in today.'
\echo 'Friday: carla enters two valves.  Monday: anna and ben take both along, each on a tablet:'
\echo

\o /dev/null
BEGIN;
SELECT esync_context(user_id => 'carla', device_id => 'office', submit_timestamp => '2025-11-14 15:00Z');
INSERT INTO blocks (block_id, "vTagNo", description, "vSetPressure", "vTrimMaterial", "vTestInterval") VALUES
	(:'psv_201', 'PSV-201', 'Safety valve, separator V-200', 137, '1.4404', '2 years'),
	(:'psv_202', 'PSV-202', 'Safety valve, knock-out drum', 12.5, '1.4404', '1 year');
COMMIT;
\o
\echo '=> SELECT esync_checkout(''blocks'', :psv_201);'
\echo
SELECT c -> 'row' ->> 'vTagNo' AS tag, c -> 'row' ->> 'vSetPressure' AS "vSetPressure", '... 50 columns' AS " ",
	c -> 'version' AS version, c -> 'deleted' AS deleted
FROM unnest(ARRAY[:'psv_201', :'psv_202']) AS k (key), esync_checkout('blocks', k.key) AS c;
\echo 'A device keeps the version with the row: it says what its user was looking at.'
\echo

-- what each device has in its queue when it finds a network again
SELECT $$
{"device_id": "tablet-7", "batch_id": "00000000-0000-4000-8000-00000000a007", "events": [
 {"id": "a0000000-0000-4000-8000-000000000001", "seq": 1, "table": "blocks", "op": "update", "base_version": 1,
  "key": "a2010000-0000-4000-8000-000000000201", "set": {"vSetPressure": 139, "vLastTestDate": "2025-11-18"},
  "branch_timestamp": "2025-11-17T06:30:00Z", "submit_timestamp": "2025-11-18T09:10:00Z"},
 {"id": "a0000000-0000-4000-8000-000000000002", "seq": 2, "table": "blocks", "op": "update", "base_version": 1,
  "key": "a2010000-0000-4000-8000-000000000201", "set": {"remarks": "calibrated and sealed"},
  "branch_timestamp": "2025-11-17T06:30:00Z", "submit_timestamp": "2025-11-19T15:20:00Z"},
 {"id": "a0000000-0000-4000-8000-000000000003", "seq": 3, "table": "blocks", "op": "delete", "base_version": 1,
  "key": "a2020000-0000-4000-8000-000000000202",
  "branch_timestamp": "2025-11-17T06:30:00Z", "submit_timestamp": "2025-11-19T16:00:00Z"},
 {"id": "a0000000-0000-4000-8000-000000000004", "seq": 4, "tx": "new valve", "table": "blocks", "op": "create",
  "document": {"block_id": "tmp:1", "vTagNo": "PSV-203", "description": "Bypass of V-200", "vSetPressure": 98.5},
  "submit_timestamp": "2025-11-20T08:30:00Z"},
 {"id": "a0000000-0000-4000-8000-000000000005", "seq": 5, "tx": "new valve", "table": "productions", "op": "create",
  "document": {"production_id": "b2030000-0000-4000-8000-000000000203", "block_id": "tmp:1", "product_id": 1,
   "produced_on": "2025-11-20", "volume": 42.5},
  "submit_timestamp": "2025-11-20T08:35:00Z"}]}
$$ AS anna, $$
{"device_id": "tablet-9", "batch_id": "00000000-0000-4000-8000-00000000b009", "events": [
 {"id": "b0000000-0000-4000-8000-000000000001", "seq": 1, "table": "blocks", "op": "update", "base_version": 1,
  "key": "a2010000-0000-4000-8000-000000000201", "set": {"vTrimMaterial": "1.4462", "remarks": "trim replaced"},
  "branch_timestamp": "2025-11-17T07:15:00Z", "submit_timestamp": "2025-11-18T14:00:00Z"},
 {"id": "b0000000-0000-4000-8000-000000000002", "seq": 2, "table": "blocks", "op": "update", "base_version": 1,
  "key": "a2010000-0000-4000-8000-000000000201", "set": {"vSetPressure": 141},
  "branch_timestamp": "2025-11-17T07:15:00Z", "submit_timestamp": "2025-11-19T10:00:00Z"},
 {"id": "b0000000-0000-4000-8000-000000000003", "seq": 3, "table": "blocks", "op": "update", "base_version": 1,
  "key": "a2020000-0000-4000-8000-000000000202", "set": {"remarks": "new bellows ordered"},
  "branch_timestamp": "2025-11-17T07:15:00Z", "submit_timestamp": "2025-11-20T11:45:00Z"}]}
$$ AS ben \gset

\echo 'Out at the valves there is no network.  Until Thursday they save on their tablets:'
\echo
SELECT to_char((e ->> 'submit_timestamp')::timestamptz, 'Dy HH24:MI') AS saved, w.who, e ->> 'op' AS op,
	CASE e ->> 'key' WHEN :'psv_201' THEN 'PSV-201' WHEN :'psv_202' THEN 'PSV-202' ELSE e ->> 'table' END AS "row",
	coalesce(e -> 'set', (e -> 'document') - 'production_id' - 'product_id' - 'produced_on' - 'description', '{}') AS "what was set"
FROM (VALUES ('anna', :'anna'::jsonb), ('ben', :'ben'::jsonb)) AS w (who, batch), jsonb_array_elements(batch -> 'events') AS e
ORDER BY (e ->> 'submit_timestamp')::timestamptz;

\echo 'On PSV-201 they set different columns, and two columns both.  Anna deletes PSV-202, which ben edits.'
\echo 'Anna creates a valve and a production of it; until the server knows it, it is called tmp:1.'
\echo
\echo 'In the office carla changes PSV-201 on Thursday, by an UPDATE as ever.  Then the tablets come back.'
\echo 'What happens is played twice: here anna reconnects before ben; in a copy of the database, made now,'
\echo 'ben before anna.'

\o /dev/null
BEGIN;
SELECT esync_context(user_id => 'carla', device_id => 'office', base_version => esync_version('blocks', :'psv_201'),
	branch_timestamp => '2025-11-20 09:00Z', submit_timestamp => '2025-11-20 09:05Z');
UPDATE blocks SET description = 'Main safety valve, separator V-200' WHERE "vTagNo" = 'PSV-201';
COMMIT;
\o

\c postgres
CREATE DATABASE demo_ben_first TEMPLATE demo;
\c demo
SET TIME ZONE 'UTC';
SET client_min_messages = warning;

\echo
\echo '== Anna reconnects, then ben ================================================================'
\echo
\echo '=> SELECT esync_submit(''{"device_id": "tablet-7", "events": [ ... ]}'', ''{"user_id": "anna"}'');'
\echo
SELECT esync_submit(:'anna', '{"user_id": "anna"}') AS answer \gset
SELECT e ->> 'seq' AS seq, e ->> 'op' AS op, e ->> 'table' AS "table", r ->> 'status' AS status, r -> 'version' AS version,
	to_char((r ->> 'effective_timestamp')::timestamptz, 'Dy HH24:MI') AS "takes its place at"
FROM jsonb_array_elements(:'anna'::jsonb -> 'events') WITH ORDINALITY AS sent (e, n)
JOIN jsonb_array_elements(:'answer'::jsonb -> 'results') WITH ORDINALITY AS got (r, n) USING (n) ORDER BY n;

\echo 'The answer is lost on the way: the tablet never hears it, and sends the same batch again.'
\echo
SELECT esync_submit(:'anna', '{"user_id": "anna"}') AS again \gset
SELECT count(*) AS events, count(*) FILTER (WHERE r ->> 'duplicate' = 'true') AS duplicates,
	:'again'::jsonb -> 'ids' = :'answer'::jsonb -> 'ids' AS "same ids for tmp:1",
	(SELECT count(*) FROM blocks WHERE "vTagNo" = 'PSV-203') AS "valves PSV-203"
FROM jsonb_array_elements(:'again'::jsonb -> 'results') AS r;

\echo 'Nothing happened twice.  Now ben, who had seen nothing of all that:'
\echo
SELECT esync_submit(:'ben', '{"user_id": "ben"}') AS answer \gset
SELECT e ->> 'seq' AS seq, e ->> 'op' AS op, r ->> 'status' AS status, r -> 'version' AS version, c ->> 'field' AS field,
	c ->> 'kind' AS kind, coalesce(c ->> 'value', 'deleted') AS "the row shows", c -> 'won' AS "ben's"
FROM jsonb_array_elements(:'ben'::jsonb -> 'events') WITH ORDINALITY AS sent (e, n)
JOIN jsonb_array_elements(:'answer'::jsonb -> 'results') WITH ORDINALITY AS got (r, n) USING (n)
CROSS JOIN LATERAL jsonb_array_elements(r -> 'conflicts') AS c ORDER BY n, c ->> 'field';

\echo 'A conflict is no error.  Both edits are kept, and all is on record.  Of two values that was saved later'
\echo 'shows; a row that one deleted and one edited stays deleted until somebody gives it back.'
\echo
\echo '=> SELECT ... FROM esync_conflicts();'
\echo
SELECT CASE aggregate_id WHEN :'psv_201' THEN 'PSV-201' ELSE 'PSV-202' END AS valve, coalesce(field, '(the row)') AS field, kind, base_value #>> '{}' AS before,
	string_agg(format('%s %s: %s', c ->> 'user_id', to_char((c ->> 'submit_timestamp')::timestamptz, 'Dy HH24:MI'),
		coalesce(c ->> 'value', 'deleted')), E'\n' ORDER BY c ->> 'submit_timestamp') AS contenders,
	coalesce(nullif(shown_value, 'null') #>> '{}', 'deleted') AS shown
FROM esync_conflicts(), jsonb_array_elements(contenders) AS c
GROUP BY conflict_id, aggregate_id, field, kind, base_value, shown_value ORDER BY valve, field;

\echo 'PSV-201 took from each what each had saved last, and carla''s description besides:'
\echo
SELECT "vTagNo", description, "vSetPressure", "vTrimMaterial", "vLastTestDate", remarks FROM blocks WHERE "vTagNo" ~ 'PSV-2' ORDER BY 1;
SELECT p.volume, b."vTagNo" AS "produced by" FROM productions p JOIN blocks b USING (block_id) WHERE b."vTagNo" = 'PSV-203';

\echo '== The lanes ================================================================================'
\echo
\echo 'Ben''s lane came last, although his last save was before anna''s.'
\echo
\pset tuples_only on
\pset format unaligned
SELECT * FROM esync_graph('blocks', :'psv_201');
\pset format aligned
\pset tuples_only off

-- all that must be the same in both orders: rows without the ids that each database drew for itself, conflicts
-- without ids and versions, and what field history says of values, authors, times and statuses
SELECT $$
WITH rows AS (
	SELECT b."vTagNo" AS tag, to_jsonb(b) - 'block_id' AS doc FROM blocks b
	UNION ALL
	SELECT b."vTagNo", to_jsonb(p) - '{block_id,production_id}'::text[] FROM productions p JOIN blocks b USING (block_id)),
conflicts AS (
	SELECT aggregate_id, field, kind, base_value, shown_value, status,
		(SELECT jsonb_agg(c - '{event_id,version}'::text[] ORDER BY c ->> 'submit_timestamp') FROM jsonb_array_elements(contenders) AS c) AS contenders
	FROM esync_conflicts(status => 'all')),
history AS (
	SELECT v.key, h.place, h.field, h.event_type, h.value, h.previous_value, h.user_id, h.device_id, h.branch_timestamp,
		h.submit_timestamp, h.effective_timestamp, h.status
	FROM unnest(ARRAY['a2010000-0000-4000-8000-000000000201', 'a2020000-0000-4000-8000-000000000202']) AS v (key),
		field_history('blocks', v.key) WITH ORDINALITY AS h (field, version, event_id, event_type, value, previous_value, user_id, device_id,
			branch_timestamp, submit_timestamp, commit_timestamp, effective_timestamp, status, place))
SELECT (SELECT jsonb_agg(r ORDER BY r.tag, r.doc) FROM rows r) AS rows,
	(SELECT jsonb_agg(c ORDER BY c.aggregate_id, c.field) FROM conflicts c) AS conflicts,
	(SELECT jsonb_agg(h ORDER BY h.key, h.place) FROM history h) AS history
$$ AS everything \gset
:everything \gset anna_first_

\echo
\echo '== The other database: ben reconnects, then anna ============================================'
\echo
\c demo_ben_first
SET TIME ZONE 'UTC';
SET client_min_messages = warning;
SELECT esync_submit(:'ben', '{"user_id": "ben"}') AS ben_answer \gset
SELECT esync_submit(:'anna', '{"user_id": "anna"}') AS anna_answer \gset
:everything \gset ben_first_
SELECT 'accepted ' || (:'ben_answer'::jsonb ->> 'accepted') || ', conflict ' || (:'ben_answer'::jsonb ->> 'conflict') AS "ben is answered",
	'accepted ' || (:'anna_answer'::jsonb ->> 'accepted') || ', conflict ' || (:'anna_answer'::jsonb ->> 'conflict') AS "anna is answered";
SELECT "vTagNo", description, "vSetPressure", "vTrimMaterial", "vLastTestDate", remarks FROM blocks WHERE "vTagNo" ~ 'PSV-2' ORDER BY 1;
\echo 'This time anna is told of the conflicts.  What the two databases hold:'
\echo
SELECT w.what, jsonb_array_length(w.a) AS "anna first", jsonb_array_length(w.b) AS "ben first",
	CASE WHEN w.a = w.b THEN 'equal' ELSE 'DIFFERENT' END AS compared
FROM (VALUES ('rows', :'anna_first_rows'::jsonb, :'ben_first_rows'::jsonb),
	('conflicts', :'anna_first_conflicts', :'ben_first_conflicts'),
	('entries of field history', :'anna_first_history', :'ben_first_history')) AS w (what, a, b);
\echo 'The order in which devices reconnect does not matter, and no edit is lost.'
SELECT :'anna_first_rows'::jsonb = :'ben_first_rows'::jsonb AND :'anna_first_conflicts'::jsonb = :'ben_first_conflicts'::jsonb
	AND :'anna_first_history'::jsonb = :'ben_first_history'::jsonb AS same \gset
\if :same
\else
	DO $$ BEGIN RAISE EXCEPTION 'the two databases differ'; END $$;
\endif
\c demo
SET TIME ZONE 'UTC';
SET client_min_messages = warning;
\echo
\echo '=> SELECT * FROM esync_verify(''blocks'') UNION ALL ... ;'
\echo
SELECT * FROM esync_verify('blocks')
UNION ALL SELECT * FROM esync_verify('productions')
UNION ALL SELECT * FROM esync_verify('products');
\echo 'No line: late edits and conflicts included, each table equals what its stream says.'
