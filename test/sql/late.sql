-- Late history: an event that was saved before another and committed after it
-- lies at its submit place on one axis, and at its commit place on the other.
SET TIME ZONE 'UTC';
SET DateStyle TO 'ISO';
SET client_min_messages TO warning;
CREATE SCHEMA late;
CREATE TABLE late.block (id int PRIMARY KEY, title text, note text, level int);
SELECT esync_enable('late.block');

-- The example of the design.  You and I branch on Monday and on Tuesday, you submit on Wednesday, I
-- on Thursday, I commit on Friday morning, and you an hour after me; a third one, on whom nobody
-- waited, sets the level on Saturday.  Made by hand, because commits cannot be dated otherwise.
INSERT INTO esync.event (event_id, xid, version, base_version, branch_timestamp, submit_timestamp,
	commit_timestamp, effective_timestamp, effective_high, epoch, table_id, flags, row_xmin, event_type,
	aggregate_id, user_id, device_id, device_seq, db_role, patch, payload)
SELECT nextval('esync.event_id_seq'), pg_current_xact_id(), v, base, branch, submit, commit, submit, max(submit) OVER (ORDER BY v),
	1, table_id, e.flags, '1', type, '1', who, device, seq, 'nobody', e.patch::jsonb, e.payload::jsonb
FROM esync.tracked_table, LATERAL (VALUES
	(1, 0, '2025-11-10 08:00+00'::timestamptz, '2025-11-10 08:00+00'::timestamptz, '2025-11-10 08:00+00'::timestamptz, 0,
		'Created', 'office', NULL, NULL, '[]', '{"id": 1, "note": "old", "level": 1, "title": "old"}'),
	(2, 1, '2025-11-18 06:00+00', '2025-11-20 06:00+00', '2025-11-21 06:00+00', 0,
		'Updated', 'me', 'tablet-me', 1, '[{"op": "replace", "path": "/title", "value": "mine"}]',
		'{"id": 1, "note": "old", "level": 1, "title": "mine"}'),
	(3, 1, '2025-11-17 06:00+00', '2025-11-19 06:00+00', '2025-11-21 07:00+00', 128,
		'Updated', 'you', 'tablet-you', 1, '[{"op": "replace", "path": "/title", "value": "yours"}, {"op": "replace", "path": "/note", "value": "new"}]',
		'{"id": 1, "note": "new", "level": 1, "title": "mine"}'),
	(4, 3, '2025-11-22 09:00+00', '2025-11-22 09:00+00', '2025-11-22 09:00+00', 128,
		'Updated', 'office', NULL, NULL, '[{"op": "replace", "path": "/level", "value": 2}]',
		'{"id": 1, "note": "new", "level": 2, "title": "mine"}')
) AS e (v, base, branch, submit, commit, flags, type, who, device, seq, patch, payload)
WHERE relation = 'late.block'::regclass;
INSERT INTO esync.conflict (conflict_id, table_id, aggregate_id, field, kind, base_value, contenders, shown_event, shown_value,
	status, opened_at, opened_event)
SELECT nextval('esync.conflict_id_seq'), table_id, '1', 'title', 'field', '"old"',
	jsonb_agg(jsonb_build_object('event_id', event_id, 'version', version, 'base_version', base_version, 'device_seq', device_seq,
		'type', event_type, 'user_id', user_id, 'device_id', device_id, 'value', patch->0->'value', 'submit_timestamp', submit_timestamp)
		ORDER BY version),
	min(event_id), '"mine"', 'open', max(commit_timestamp), max(event_id)
FROM esync.event JOIN esync.tracked_table USING (table_id)
WHERE relation = 'late.block'::regclass AND version IN (2, 3) GROUP BY table_id;
SET esync.enabled = off;
INSERT INTO late.block VALUES (1, 'mine', 'new', 2);
RESET esync.enabled;
SELECT * FROM esync_verify('late.block');

-- replay goes in submit order, whatever the order of commits
SELECT version, effective_timestamp, state - 'id' AS state FROM esync_replay('late.block', 1);
-- as known on Friday at half past six, my edit was all there was
SELECT version, effective_timestamp, state - 'id' AS state FROM esync_replay('late.block', 1, known_at => '2025-11-21 06:30+00');
-- what lies before a moment on both axes
SELECT as_of::date, known_at::timestamp(0), esync_state('late.block', 1, as_of, known_at) - 'id' AS state
FROM (VALUES ('2025-11-18'::timestamptz), ('2025-11-19 12:00+00'), ('2025-11-20 12:00+00'), ('2025-11-30')) AS a (as_of),
	(VALUES ('2025-11-20'::timestamptz), ('2025-11-21 06:30+00'), ('2025-11-21 07:30+00'), ('2025-11-30')) AS k (known_at)
ORDER BY 2, 1;
-- the whole table, typed
SELECT * FROM esync_as_of(NULL::late.block, '2025-11-19 12:00+00');
SELECT * FROM esync_as_of(NULL::late.block, '2025-11-19 12:00+00', '2025-11-21 06:30+00');
SELECT * FROM esync_as_of(NULL::late.block, '2025-11-30', '2025-11-21 06:30+00');
-- events stand in the order in which they were committed, with what each left
SELECT version, user_id, base_version, submit_timestamp, commit_timestamp, payload - 'id' AS payload FROM esync_history('late.block', 1);
-- a field's track in the order of submits: yours lies below mine, and nobody has decided
SELECT field, version, value, previous_value, user_id, submit_timestamp, commit_timestamp, status
FROM field_history('late.block', 1) WHERE field <> 'id';
-- each moment at its own time
SELECT at, moment, lane, user_id FROM esync_timeline('late.block', 1);
SELECT esync_graph('late.block', 1);
SELECT c->>'field' AS field, c->>'status' AS status, c->>'tbl' AS tbl
FROM jsonb_array_elements(esync_row('late.block', '1')->'conflicts') AS c;

-- somebody who had seen both decides: one of them lost
INSERT INTO esync.event (event_id, xid, version, base_version, branch_timestamp, submit_timestamp,
	commit_timestamp, effective_timestamp, effective_high, epoch, table_id, flags, row_xmin, event_type,
	aggregate_id, user_id, db_role, patch, payload)
SELECT nextval('esync.event_id_seq'), pg_current_xact_id(), 5, 4, t, t, t, t, t, 1, table_id, 0, '1', 'Updated', '1', 'boss', 'nobody',
	'[{"op": "replace", "path": "/title", "value": "ours"}]', '{"id": 1, "note": "new", "level": 2, "title": "ours"}'
FROM esync.tracked_table, (VALUES ('2025-11-24 09:00+00'::timestamptz)) AS v (t) WHERE relation = 'late.block'::regclass;
UPDATE esync.conflict SET status = 'closed', resolution = 'superseded', resolved_by = 'boss', resolved_event = currval('esync.event_id_seq'), resolved_at = '2025-11-24 09:00+00'
WHERE table_id = (SELECT table_id FROM esync.tracked_table WHERE relation = 'late.block'::regclass);
SET esync.enabled = off;
UPDATE late.block SET title = 'ours';
RESET esync.enabled;
SELECT * FROM esync_verify('late.block');
SELECT version, value, user_id, status FROM field_history('late.block', 1, 'title');
SELECT esync_graph('late.block', 1);
SELECT state->>'title' AS title FROM esync_replay('late.block', 1);

SELECT esync_disable('late.block', drop_history => true);
DROP SCHEMA late CASCADE;
