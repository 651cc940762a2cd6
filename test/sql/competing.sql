-- What others made of a row before a create came is no default of that create; an edit that a device sends again comes
-- after what it names as its base.
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA competing;
SET search_path = competing, public;

-- what a device saved at that minute
CREATE FUNCTION sent(device text, seq int, minute int, event jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', r->>'status', r->>'code', r->>'version', (SELECT string_agg(coalesce(c->>'field', 'the row'), ', ')
		FROM jsonb_array_elements(r->'conflicts') c))
	FROM esync_submit(jsonb_build_object('device_id', device, 'events', jsonb_build_array(event || jsonb_build_object(
		'id', md5('competing' || device || seq || event)::uuid, 'seq', seq,
		'submit_timestamp', '2025-11-17 08:00Z'::timestamptz + make_interval(mins => minute))))) s, LATERAL (SELECT s->'results'->0 AS r) x
$$;

CREATE FUNCTION undone(tbl regclass, version bigint) RETURNS jsonb LANGUAGE sql AS $$
	SELECT esync_undo(h.event_id) - '{event_id,conflicts,kept}'::text[] FROM esync_history(tbl, '1'::text) h WHERE h.version = undone.version
$$;

-- Three devices create a row. What the second says is in the payload of the third, who never said it.
CREATE TABLE late (id int PRIMARY KEY, a text, b text, c text DEFAULT 'none');
SELECT esync_enable('late');
SELECT sent('d1', 1, 1, '{"table": "late", "op": "create", "document": {"id": 1, "a": "d1"}}');
SELECT sent('d2', 1, 3, '{"table": "late", "op": "create", "document": {"id": 1, "b": "d2"}}');
SELECT sent('d3', 1, 2, '{"table": "late", "op": "create", "document": {"id": 1, "c": "d3"}}');
-- at 08:02 nobody had said b
SELECT esync_state('late', 1, as_of => '2025-11-17 08:02Z');
SELECT undone('late', 2);
SELECT undone('late', 3);
SELECT * FROM esync_verify('late');

-- A create that arrives when the row is marked as deleted does not say so itself.
CREATE TABLE marked (id int PRIMARY KEY, a text, b text, gone timestamptz);
SELECT esync_enable('marked', tombstone => 'gone');
SELECT sent('d1', 1, 1, '{"table": "marked", "op": "create", "document": {"id": 1, "a": "d1"}}');
SELECT sent('d1', 2, 5, '{"table": "marked", "op": "delete", "base_version": 1, "key": 1}');
SELECT sent('d2', 1, 3, '{"table": "marked", "op": "create", "document": {"id": 1, "b": "d2"}}');
SELECT esync_state('marked', 1, as_of => '2025-11-17 08:04Z');
SELECT undone('marked', 2);
SELECT undone('marked', 1);
SELECT * FROM esync_verify('marked');

-- An edit is rejected, the device goes on, and then sends it again on top of that.
CREATE TABLE again (id int PRIMARY KEY, a text, b text);
INSERT INTO again VALUES (1, 'a0', 'b0');
SELECT esync_enable('again');
SELECT sent('d1', 1, 1, '{"table": "again", "op": "update", "base_version": 1, "key": 1, "set": {"none": 1}}');
SELECT sent('d1', 2, 2, '{"table": "again", "op": "update", "base_version": 1, "key": 1, "set": {"a": "second"}}');
SELECT sent('d1', 1, 1, '{"table": "again", "op": "update", "base_version": 2, "key": 1, "set": {"a": "first, again"}}');
SELECT version, base_version, device_id, effective_timestamp, patch FROM esync_history('again', 1);
-- others who had seen none of it are in conflict with it
SELECT sent('d2', 1, 0, '{"table": "again", "op": "update", "base_version": 1, "key": 1, "set": {"a": "other"}}');
SELECT sent('d3', 1, 1, '{"table": "again", "op": "delete", "base_version": 1, "key": 1}');
SELECT field, kind, jsonb_path_query_array(contenders, '$[*].version') AS versions, shown_value FROM esync_conflicts('again');
SELECT version, value, device_id, status FROM field_history('again', 1, 'a');
SELECT * FROM esync_verify('again');

-- Columns of json_merge: a create of which every column shows is in conflict as any other, in both orders.
CREATE TABLE doc (id int PRIMARY KEY, spec jsonb);
SELECT esync_enable('doc', json_merge => '{spec}');
SELECT sent('d1', 1, 1, '{"table": "doc", "op": "create", "document": {"id": 1, "spec": {"p": 1}}}');
SELECT sent('d2', 1, 2, '{"table": "doc", "op": "create", "document": {"id": 1, "spec": {"p": 2}}}');
SELECT sent('d2', 2, 2, '{"table": "doc", "op": "create", "document": {"id": 2, "spec": {"p": 2}}}');
SELECT sent('d1', 2, 1, '{"table": "doc", "op": "create", "document": {"id": 2, "spec": {"p": 1}}}');
SELECT aggregate_id, field, kind, shown_value, jsonb_path_query_array(contenders, '$[*].value') AS values FROM esync_conflicts('doc');

-- Somebody replaces the whole, another one goes on from there at p: what the first did away with at q is in conflict still.
INSERT INTO doc VALUES (3, '{"p": 1, "q": 1}');
SELECT sent('d1', 3, 5, '{"table": "doc", "op": "update", "key": 3, "base_version": 1, "set": {"spec": null}}');
SELECT sent('d1', 4, 5, '{"table": "doc", "op": "update", "key": 3, "base_version": 2, "set": {"spec": {}}}');
SELECT sent('d2', 3, 6, '{"table": "doc", "op": "update", "key": 3, "base_version": 3, "set": {"spec": {"p": 2}}}');
SELECT sent('d3', 2, 4, '{"table": "doc", "op": "update", "key": 3, "base_version": 1, "set": {"spec": {"p": 1, "q": 7}}}');
SELECT field, kind, shown_value, jsonb_path_query_array(contenders, '$[*].version') AS versions FROM esync_conflicts('doc', '3');
-- until somebody who had seen both sets it
SELECT sent('d2', 4, 7, '{"table": "doc", "op": "update", "key": 3, "base_version": 5, "set": {"spec": {"p": 2, "q": 7}}}');
SELECT field, status, resolution FROM esync_conflicts('doc', '3', 'all');
SELECT spec FROM doc WHERE id = 3;
SELECT * FROM esync_verify('doc');

-- A device deletes a row and creates it again, another one deletes it: the conflict says what was created, also where all of it shows and its patch is empty.
CREATE TABLE back (id int PRIMARY KEY, a text, b text, seen timestamptz);
SELECT esync_enable('back', last_modified => '{seen}');
INSERT INTO back SELECT i, 'a0', 'b0' FROM generate_series(1, 2) i;
SELECT sent('d1', 20, 1, '{"table": "back", "op": "delete", "key": 1, "base_version": 1}');
SELECT sent('d1', 21, 3, '{"table": "back", "op": "create", "document": {"id": 1, "a": "d1", "b": "b1"}, "base_version": 2}');
SELECT sent('d2', 20, 2, '{"table": "back", "op": "delete", "key": 1, "base_version": 1}');
SELECT sent('d1', 22, 1, '{"table": "back", "op": "delete", "key": 2, "base_version": 1}');
SELECT sent('d2', 21, 2, '{"table": "back", "op": "delete", "key": 2, "base_version": 1}');
SELECT sent('d1', 23, 3, '{"table": "back", "op": "create", "document": {"id": 2, "a": "d1", "b": "b1"}, "base_version": 2}');
SELECT aggregate_id, field, kind, shown_value, jsonb_path_query_array(contenders, '$[*].value') AS values FROM esync_conflicts('back');
SELECT aggregate_id, version, event_type, patch FROM unnest(ARRAY['1', '2']) k, LATERAL esync_history('back', k) h, LATERAL (SELECT k AS aggregate_id) x WHERE event_type = 'Created' AND version > 1;
SELECT * FROM esync_verify('back');

DROP SCHEMA competing CASCADE;
