-- esync_submit, esync_save, esync_delete, esync_checkout: what is answered, and what is kept
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE SCHEMA sub;
SET search_path = sub, public;
CREATE TABLE blocks (
	block_id uuid PRIMARY KEY DEFAULT gen_random_uuid(), description text, pressure numeric, secret text, changed timestamptz);
CREATE TABLE productions (
	production_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, block_id uuid REFERENCES blocks, volume numeric NOT NULL DEFAULT 0,
	gone timestamptz);
CREATE TABLE lines (order_no int, line text, qty int, PRIMARY KEY (order_no, line));
SELECT esync_enable('blocks', mask => '{secret}', last_modified => '{changed}'), esync_enable('productions', tombstone => 'gone'),
	esync_enable('lines', aggregate_type => 'order.line');

CREATE VIEW event AS SELECT e.* FROM esync.event e JOIN esync.tracked_table t USING (table_id) WHERE t.schema_name = 'sub';
-- an id for the number of an event, and what is told of each
CREATE FUNCTION u(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;
CREATE FUNCTION n(id text) RETURNS text LANGUAGE sql AS $$ SELECT ltrim(replace(id, '-', ''), '0') $$;
CREATE FUNCTION told(r jsonb) RETURNS TABLE (id text, status text, code text, dup bool, version int, more jsonb) LANGUAGE sql AS $$
	SELECT n(e->>'id'), e->>'status', e->>'code', (e->>'duplicate')::bool, (e->>'version')::int,
		nullif(regexp_replace(replace(e::text, to_json(current_user::text)::text, '"me"'), '"(event_id|conflict_id)": \d+', '"\1": 0', 'g')::jsonb - '{id,status,code,duplicate,version,message,retryable,effective_timestamp,rejected_id}'::text[], '{}')
	FROM (SELECT e #- '{row,changed}' AS e, i FROM jsonb_array_elements(CASE WHEN r ? 'results' THEN r->'results' ELSE jsonb_build_array(r) END) WITH ORDINALITY AS x (e, i)) AS x ORDER BY i
$$;
CREATE FUNCTION send(events jsonb, device text DEFAULT 's-tablet', context jsonb DEFAULT NULL) RETURNS TABLE (id text, status text, code text, dup bool, version int, more jsonb) LANGUAGE sql AS $$
	SELECT * FROM told(esync_submit(jsonb_build_object('device_id', device, 'events', replace(events::text, '@DB', current_database())::jsonb), context))
$$;

-- the answer as a whole
SELECT jsonb_pretty((r - 'server_now') #- '{results,1,rejected_id}') AS answer, r->>'server_now' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$' AS now FROM esync_submit('
	{"device_id": "s-tablet", "batch_id": "b-1", "events": [
	{"id": "00000000-0000-0000-0000-000000000001", "seq": 1, "table": "sub.blocks", "op": "create", "submit_timestamp": "2025-11-19T10:00:00Z",
	 "document": {"block_id": "b0000000-0000-0000-0000-000000000001", "description": "Main valve", "pressure": 137, "secret": "s"}},
	{"id": "00000000-0000-0000-0000-000000000002", "seq": 2, "table": "blocks", "key": "b0000000-0000-0000-0000-000000000009", "op": "update",
	 "base_version": 1, "set": {"pressure": 1}, "submit_timestamp": "2025-11-19T10:00:00Z"}]}') AS r;
SELECT event_type, version, base_version, patch, submit_timestamp, user_id = current_user AS own, device_id, device_seq, n(client_event_id::text) AS event
FROM event ORDER BY event_id;

-- an empty batch is one
SELECT r - 'server_now' FROM esync_submit('{"device_id": "s-tablet", "events": []}') AS r;

-- every op, with every way to name the row and the table; version and row come back
SELECT * FROM send('[
	{"id": "00000000-0000-0000-0000-000000000011", "seq": 11, "table": "BLOCKS", "key": {"block_id": "B0000000-0000-0000-0000-000000000001"}, "op": "update", "base_version": 1, "set": {"pressure": 140}},
	{"id": "00000000-0000-0000-0000-000000000012", "seq": 12, "table": "blocks", "op": "save", "base_version": 1, "document": {"block_id": "b0000000-0000-0000-0000-000000000001", "description": "Valve"}},
	{"id": "00000000-0000-0000-0000-000000000013", "seq": 13, "table": "\"lines\"", "op": "save", "base_version": 0, "document": {"order_no": 7, "line": "a", "qty": 1}},
	{"id": "00000000-0000-0000-0000-000000000014", "seq": 14, "table": "order.line", "key": [7, "a"], "op": "update", "base_version": 1, "set": {"qty": 2}},
	{"id": "00000000-0000-0000-0000-000000000015", "seq": 15, "table": "@DB.sub.lines", "key": "[7, \"a\"]", "op": "delete", "base_version": 1},
	{"id": "00000000-0000-0000-0000-000000000016", "seq": 16, "table": "lines", "key": {"line": "a", "order_no": 7}, "op": "restore", "base_version": 3},
	{"id": "00000000-0000-0000-0000-000000000017", "seq": 17, "table": "lines", "key": ["7", "a"], "op": "update", "base_version": 4, "set": {"qty": 2}}]');
SELECT block_id, description, pressure, secret FROM blocks;
TABLE lines;

-- the same again: the same answer, and no effect
SELECT count(*) FROM event;
SELECT * FROM send('[
	{"id": "00000000-0000-0000-0000-000000000014", "seq": 14, "table": "order.line", "key": [7, "a"], "op": "update", "base_version": 1, "set": {"qty": 2}},
	{"id": "00000000-0000-0000-0000-000000000002", "seq": 2, "table": "blocks", "key": "b0000000-0000-0000-0000-000000000009", "op": "update",
	 "base_version": 1, "set": {"pressure": 1}, "submit_timestamp": "2025-11-19T10:00:00Z"},
	{"id": "00000000-0000-0000-0000-000000000014", "seq": 14, "table": "order.line", "key": [7, "a"], "op": "update", "base_version": 1, "set": {"qty": 3}}]');
-- twice in one batch; of another user; of another device
SELECT * FROM send('[
	{"id": "00000000-0000-0000-0000-000000000021", "seq": 21, "table": "lines", "key": [7, "a"], "op": "update", "base_version": 5, "set": {"qty": 4}},
	{"id": "00000000-0000-0000-0000-000000000021", "seq": 21, "table": "lines", "key": [7, "a"], "op": "update", "base_version": 5, "set": {"qty": 4}},
	{"id": "00000000-0000-0000-0000-000000000021", "seq": 21, "table": "lines", "key": [7, "a"], "op": "update", "base_version": 5, "set": {"qty": 5}},
	{"id": "00000000-0000-0000-0000-000000000022", "seq": 22, "table": "lines", "key": [7, "z"], "op": "update", "base_version": 5, "set": {"qty": 4}},
	{"id": "00000000-0000-0000-0000-000000000022", "seq": 22, "table": "lines", "key": [7, "z"], "op": "update", "base_version": 5, "set": {"qty": 4}}]');
SELECT * FROM send('[{"id": "00000000-0000-0000-0000-000000000021", "seq": 21, "table": "lines", "key": [7, "a"], "op": "update", "base_version": 5, "set": {"qty": 4}}]', context => '{"user_id": "mallory"}');
SELECT * FROM send('[{"id": "00000000-0000-0000-0000-000000000021", "seq": 21, "table": "lines", "key": [7, "a"], "op": "update", "base_version": 5, "set": {"qty": 4}}]', 's-phone');

-- a conflict: both are kept, the later submit shows; the second hears of it and gets the row
SELECT esync_save('blocks', '{"block_id": "b0000000-0000-0000-0000-000000000002", "description": "one", "pressure": 1}')->>'status' AS status;
SELECT * FROM send('[{"id": "00000000-0000-0000-0000-000000000031", "seq": 31, "table": "blocks", "key": "b0000000-0000-0000-0000-000000000002", "op": "update", "base_version": 1,
	"set": {"description": "you", "pressure": 2}, "submit_timestamp": "2125-11-19T10:00:00Z"}]', context => '{"user_id": "ben"}');
SELECT * FROM send('[{"id": "00000000-0000-0000-0000-000000000032", "seq": 1, "table": "blocks", "key": "b0000000-0000-0000-0000-000000000002", "op": "update", "base_version": 1,
	"set": {"description": "me"}, "submit_timestamp": "2025-11-18T10:00:00Z"}]', 's-phone', '{"user_id": "anna"}');
SELECT * FROM send('[{"id": "00000000-0000-0000-0000-000000000032", "seq": 1, "table": "blocks", "key": "b0000000-0000-0000-0000-000000000002", "op": "update", "base_version": 1,
	"set": {"description": "me"}, "submit_timestamp": "2025-11-18T10:00:00Z"}]', 's-phone', '{"user_id": "anna"}');

-- temporary ids: in keys and foreign keys, within a batch and after it
SELECT * FROM send('[
	{"id": "00000000-0000-0000-0000-000000000041", "seq": 41, "table": "productions", "op": "create", "document": {"production_id": "temp_p", "block_id": "tmp:1", "volume": 12.5}},
	{"id": "00000000-0000-0000-0000-000000000042", "seq": 42, "table": "blocks", "op": "create", "document": {"block_id": "tmp:1", "description": "tmp:1 is only a text here"}},
	{"id": "00000000-0000-0000-0000-000000000043", "seq": 43, "table": "blocks", "key": "tmp:1", "op": "update", "base_version": 1, "document": {"block_id": "tmp:1", "pressure": 3}},
	{"id": "00000000-0000-0000-0000-000000000044", "seq": 44, "table": "productions", "op": "create", "document": {"production_id": "temp_q", "block_id": "tmp:2"}}]', 's-temps');
SELECT p.production_id, p.volume, b.description, b.pressure FROM productions p JOIN blocks b USING (block_id);
-- a repeat means the same rows; what had no meaning has one now; another device has its own
SELECT r->'results'->0->'status' AS status, (r->'ids'->>'tmp:1')::uuid = (SELECT block_id FROM productions) AS same, r->'ids'->'temp_p' AS p
FROM esync_submit('{"device_id": "s-temps", "events": [
	{"id": "00000000-0000-0000-0000-000000000041", "seq": 41, "table": "productions", "op": "create", "document": {"production_id": "temp_p", "block_id": "tmp:1", "volume": 12.5}}]}') r;
SELECT * FROM send('[
	{"id": "00000000-0000-0000-0000-000000000044", "seq": 44, "table": "productions", "op": "create", "document": {"production_id": "temp_q", "block_id": "tmp:2"}},
	{"id": "00000000-0000-0000-0000-000000000045", "seq": 45, "table": "blocks", "op": "save", "base_version": 0, "document": {"block_id": "tmp:2"}},
	{"id": "00000000-0000-0000-0000-000000000046", "seq": 46, "table": "productions", "key": "temp_p", "op": "update", "base_version": 1, "set": {"block_id": "tmp:2"}}]', 's-temps');
SELECT * FROM send('[
	{"id": "00000000-0000-0000-0000-000000000047", "seq": 1, "table": "productions", "key": "temp_p", "op": "update", "base_version": 1, "set": {"volume": 1}},
	{"id": "00000000-0000-0000-0000-000000000048", "seq": 2, "table": "productions", "key": 1, "op": "update", "base_version": 1, "set": {"block_id": "tmp:1"}}]', 's-other');
SELECT device_id, temporary, table_name, CASE table_name WHEN 'productions' THEN value END AS value FROM esync.temporary_id JOIN esync.tracked_table USING (table_id) WHERE device_id LIKE 's-%' ORDER BY 1, 2;
-- one that stands for a row of another table
SELECT * FROM send('[{"id": "00000000-0000-0000-0000-000000000049", "seq": 49, "table": "productions", "key": "tmp:1", "op": "update", "base_version": 1, "set": {"volume": 1}},
	{"id": "00000000-0000-0000-0000-00000000004a", "seq": 50, "table": "lines", "op": "create", "document": {"order_no": "tmp:n", "line": "x"}},
	{"id": "00000000-0000-0000-0000-00000000004b", "seq": 51, "table": "lines", "op": "create", "document": {"order_no": 1, "line": "temp_line"}}]', 's-temps');
SELECT order_no, length(line) FROM lines WHERE order_no = 1;

-- clocks: a device that is an hour behind; its times are shifted, and what was sent is kept
BEGIN;
SELECT r->'clock_offset_ms' AS offset_ms, r->'results'->0->'status' AS status FROM esync_submit(jsonb_build_object('device_id', 's-slow', 'sent_at', now() - interval '1 hour', 'events',
	jsonb_build_array(jsonb_build_object('id', u(51), 'seq', 1, 'table', 'lines', 'op', 'create', 'document', '{"order_no": 5, "line": "a"}'::jsonb,
	'submit_timestamp', now() - interval '2 hours', 'branch_timestamp', '2025-11-01T00:00:00+01:00', 'schema_version', '7', 'meta', '{"reason": "x", "who": "event"}'::jsonb))),
	'{"meta": {"who": "context", "app": "a"}}') AS r;
SELECT submit_timestamp = now() - interval '1 hour' AS shifted, branch_timestamp, meta - 'submit_raw' AS meta, (meta->>'submit_raw')::timestamptz = now() - interval '2 hours' AS raw
FROM event WHERE client_event_id = u(51);
COMMIT;
BEGIN;
SELECT r->'clock_offset_ms' AS offset_ms, r->'results'->0->'status' AS status FROM esync_submit(jsonb_build_object('device_id', 's-slow', 'events',
	jsonb_build_array(jsonb_build_object('id', u(52), 'seq', 2, 'table', 'lines', 'op', 'create', 'document', '{"order_no": 5, "line": "b"}'::jsonb,
	'submit_timestamp', now() - interval '20 s'))), jsonb_build_object('sent_at', now() - interval '10 s')) AS r;
SELECT submit_timestamp = now() - interval '20 s' AS kept FROM event WHERE client_event_id = u(52);
COMMIT;

-- checkout
SELECT (r - 'branch_timestamp') #- '{row,changed}' AS checkout, (r->>'branch_timestamp')::timestamptz <= clock_timestamp() AS clock FROM esync_checkout('blocks', 'b0000000-0000-0000-0000-000000000001') AS r;
SELECT esync_checkout('lines', '[7, "a"]') - 'branch_timestamp' AS living, esync_checkout('lines', '[7, "q"]') AS never;
SELECT * FROM told(esync_delete('lines', '[7, "a"]'));
SELECT esync_checkout('lines', '[7, "a"]') - 'branch_timestamp' AS gone;
SELECT more ? 'deleted' AS deleted, status FROM told(esync_delete('productions', '1'));
SELECT (esync_checkout('productions', '1') - 'branch_timestamp') #- '{row,block_id}' #- '{row,gone}' AS tombstone;
CREATE TABLE old (id int PRIMARY KEY, v text);
INSERT INTO old VALUES (1, 'before');
SELECT esync_enable('old');
SELECT esync_checkout('old', '1') - 'branch_timestamp' AS without_events;

-- one edit: without a base the head is taken; base_version 0 creates; times and base from the context
SELECT * FROM told(esync_save('lines', '{"order_no": 8, "line": "a", "qty": 1}', 0));
SELECT * FROM told(esync_save('lines', '{"order_no": 8, "line": "a", "qty": 2}', client_event_id => u(61)));
SELECT * FROM told(esync_save('lines', '{"order_no": 8, "line": "a", "qty": 2}', client_event_id => u(61)));
SELECT * FROM told(esync_save('lines', '{"order_no": 8, "line": "a", "qty": 2}'));
SELECT * FROM told(esync_save('lines', '{"order_no": 8, "line": "a", "qty": 3}', context => '{"user_id": "carl", "device_id": "s-desk", "base_version": 1, "submit_timestamp": "2025-11-20T10:00:00Z"}'));
SELECT version, event_type, base_version, patch, nullif(user_id, current_user) AS user_id, device_id, device_seq FROM event WHERE aggregate_id = '[8, "a"]' ORDER BY version;
SELECT * FROM told(esync_save('lines', '{"order_no": 8, "line": "a", "qty": "many"}', context => '{"base_version": null}'));
SELECT * FROM told(esync_save('lines', '{"order_no": 8}'));
SELECT * FROM told(esync_save('lines', NULL));
SELECT * FROM told(esync_delete('lines', '[8, "a"]', base => '{"qty": 2}'));
SELECT * FROM told(esync_save('lines', '{"order_no": 8, "line": "a", "qty": 9}'));
SELECT r - 'ids' - 'effective_timestamp' AS result, jsonb_object_keys(r->'ids') AS id FROM esync_save('blocks', '{"block_id": "tmp:s", "description": "saved"}', context => '{"device_id": "s-desk"}') AS r;
-- the context of a call is that of its transaction
BEGIN;
SELECT * FROM told(esync_save('lines', '{"order_no": 9, "line": "a"}', context => '{"user_id": "carl"}'));
SELECT current_setting('esync.user_id') AS user_id;
COMMIT;
SELECT current_setting('esync.user_id') AS user_id;

-- who was here
SELECT device_id, user_id = current_user AS own, accepted, conflict, rejected, duplicates, clock_offset > '59 min' AS off FROM esync_devices() WHERE device_id LIKE 's-%' ORDER BY device_id COLLATE "C", own, rejected;

-- dropping the history drops what was submitted, rejected and mapped
SELECT array_agg(table_id) AS ids FROM esync.tracked_table WHERE schema_name = 'sub' \gset
SELECT esync_disable('lines', drop_history => true), esync_disable('blocks', drop_history => true), esync_disable('productions', drop_history => true);
SELECT (SELECT count(*) FROM esync.submission WHERE table_id = ANY (:'ids')), (SELECT count(*) FROM esync.temporary_id WHERE table_id = ANY (:'ids')),
	(SELECT count(*) FROM esync.rejected WHERE table_id = ANY (:'ids'));
SET client_min_messages = warning;
DROP SCHEMA sub CASCADE;
