-- What is wrong with a batch or an event is that event's code and nobody else's; what came is kept
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE SCHEMA wrong;
SET search_path = wrong, public;
CREATE TABLE blocks (
	block_id uuid PRIMARY KEY, name text UNIQUE, n int CHECK (n < 100), at timestamptz, doc jsonb, kind varchar(5), owner text DEFAULT 'all');
CREATE TABLE productions (production_id int PRIMARY KEY, block_id uuid NOT NULL REFERENCES blocks, late uuid REFERENCES blocks DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE untracked (id int PRIMARY KEY);
CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY LIST (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE stopped (id int PRIMARY KEY);
CREATE DOMAIN small AS int CHECK (VALUE < 10);
CREATE TABLE doms (id small PRIMARY KEY, v int);
SELECT esync_enable('blocks'), esync_enable('productions'), esync_enable('parts'), esync_enable('stopped'), esync_enable('doms');
SELECT esync_disable('stopped');
CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.name = 'raise' THEN RAISE EXCEPTION 'this name is not wanted' USING DETAIL = 'Take another one.'; END IF;
	IF NEW.name = 'own' THEN RAISE EXCEPTION 'with a state of its own' USING ERRCODE = 'UX001'; END IF;
	IF NEW.name = 'serial' THEN RAISE EXCEPTION 'try again' USING ERRCODE = '40001'; END IF;
	IF NEW.name = 'null' THEN RETURN NULL; END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER picky BEFORE INSERT OR UPDATE ON blocks FOR EACH ROW EXECUTE FUNCTION picky();
CREATE FUNCTION u(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('e' || lpad(n::text, 31, '0'))::uuid $$;
CREATE FUNCTION b(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('b' || lpad(n::text, 31, '0'))::uuid $$;
CREATE FUNCTION told(r jsonb) RETURNS TABLE (n bigint, status text, code text, again bool, message text) LANGUAGE sql AS $$
	SELECT i, e->>'status', e->>'code', (e->>'retryable')::bool, left(e->>'message', 160)
	FROM jsonb_array_elements(CASE WHEN r ? 'results' THEN r->'results' ELSE jsonb_build_array(r) END) WITH ORDINALITY AS x (e, i) ORDER BY i
$$;
-- events without an id get one
CREATE SEQUENCE ids;
CREATE FUNCTION send(events jsonb, device text DEFAULT 'e-tablet') RETURNS TABLE (n bigint, status text, code text, again bool, message text) LANGUAGE sql AS $$
	SELECT * FROM told(esync_submit(jsonb_build_object('device_id', device, 'events',
		(SELECT jsonb_agg(CASE WHEN jsonb_typeof(e) = 'object' AND NOT e ? 'id' THEN e || jsonb_build_object('id', u(nextval('ids')::int)) ELSE e END ORDER BY i)
		FROM jsonb_array_elements(events) WITH ORDINALITY AS x (e, i)))))
$$;

-- no batch at all
SELECT esync_submit(NULL);
SELECT esync_submit('[]');
SELECT esync_submit('5');
SELECT esync_submit('null');
SELECT esync_submit('{}');
SELECT esync_submit('{"events": {}}');
SELECT esync_submit('{"events": "x"}');
SELECT esync_submit('{"device_id": "t", "events": []}', '[]');
SELECT esync_submit('{"device_id": "t", "events": []}', '{"user": "x"}');
SELECT esync_submit('{"device_id": "t", "events": []}', '{"user_id": 5}');
SELECT esync_submit('{"device_id": "t", "events": []}', '{"sent_at": "soon"}');
SELECT esync_submit('{"device_id": "t", "events": []}', '{"base_version": "x"}');
SELECT esync_submit('{"device_id": "t", "events": []}', '{"meta": "x"}');
SELECT esync_save(NULL, '{}');
SELECT esync_save(0, '{}');
SET esync.enabled = off;
SELECT esync_submit('{"device_id": "t", "events": []}');
RESET esync.enabled;
\set VERBOSITY sqlstate
SELECT esync_submit('[]');
SELECT esync_submit('{"device_id": "t", "events": []}', '{"user": "x"}');
SELECT esync_save(NULL, '{}');
\set VERBOSITY default

-- what is wrong with the batch is told to each event
\set event '[{"id": "00000000-0000-0000-0000-00000000e001", "table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000001"}}]'
SELECT * FROM told(esync_submit(jsonb_build_object('events', :'event'::jsonb)));
SELECT * FROM told(esync_submit(jsonb_build_object('device_id', 5, 'events', :'event'::jsonb)));
SELECT * FROM told(esync_submit(jsonb_build_object('device_id', '', 'events', :'event'::jsonb)));
SELECT * FROM told(esync_submit(jsonb_build_object('device_id', repeat('x', 1001), 'events', :'event'::jsonb)));
SELECT * FROM told(esync_submit(jsonb_build_object('device_id', 'e-tablet', 'user_id', 'boss', 'events', :'event'::jsonb)));
SELECT * FROM told(esync_submit(jsonb_build_object('device_id', 'e-tablet', 'sent_at', 'now', 'events', :'event'::jsonb)));
SELECT * FROM told(esync_submit(jsonb_build_object('device_id', 'e-tablet', 'batch_id', 7, 'events', :'event'::jsonb)));
SELECT * FROM told(esync_submit(jsonb_build_object('device_id', 'e-tablet', 'events', :'event'::jsonb), '{"device_id": "phone"}'));
SELECT count(*) FROM blocks;

-- shapes
SELECT * FROM send('[null, 5, "x", [], {},
	{"id": null, "table": "blocks", "op": "update"}, {"id": "x", "table": "blocks", "op": "update"}, {"id": 5, "table": "blocks", "op": "update"},
	{"op": "update", "set": {}, "key": "x"}, {"table": 5, "op": "update", "set": {}}, {"table": "blocks", "set": {}},
	{"table": "blocks", "op": "upsert", "set": {}}, {"table": "blocks", "op": 5, "set": {}}, {"table": "blocks", "op": "UPDATE", "set": {}},
	{"table": "blocks", "op": "update", "user_id": "boss", "set": {}}, {"table": "blocks", "op": "update", "SET": {}},
	{"table": "blocks", "op": "update", "seq": "5", "set": {}}, {"table": "blocks", "op": "update", "seq": 0, "set": {}}, {"table": "blocks", "op": "update", "seq": 1.5, "set": {}},
	{"table": "blocks", "op": "update", "seq": 99999999999999999999, "set": {}}, {"table": "blocks", "op": "update", "tx": 5, "set": {}},
	{"table": "blocks", "op": "update", "set": []}, {"table": "blocks", "op": "update", "document": "x"}, {"table": "blocks", "op": "update", "base": 5, "set": {}},
	{"table": "blocks", "op": "update", "base_version": "17", "set": {}}, {"table": "blocks", "op": "update", "base_version": -1, "set": {}},
	{"table": "blocks", "op": "update", "meta": 5, "set": {}}, {"table": "blocks", "op": "update", "schema_version": [], "set": {}},
	{"table": "blocks", "op": "update"}, {"table": "blocks", "op": "update", "set": {}, "document": {}}, {"table": "blocks", "op": "delete", "document": {}},
	{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000001", "name": "good"}}]');
SELECT name FROM blocks;

-- times
SELECT * FROM send('[
	{"table": "blocks", "key": "b0000000-0000-0000-0000-000000000001", "op": "update", "base_version": 1, "set": {"n": 1}, "submit_timestamp": 5},
	{"table": "blocks", "key": "b0000000-0000-0000-0000-000000000001", "op": "update", "base_version": 1, "set": {"n": 1}, "submit_timestamp": "yesterday"},
	{"table": "blocks", "key": "b0000000-0000-0000-0000-000000000001", "op": "update", "base_version": 1, "set": {"n": 1}, "submit_timestamp": "infinity"},
	{"table": "blocks", "key": "b0000000-0000-0000-0000-000000000001", "op": "update", "base_version": 1, "set": {"n": 1}, "submit_timestamp": "2025-13-45T00:00:00Z"},
	{"table": "blocks", "key": "b0000000-0000-0000-0000-000000000001", "op": "update", "base_version": 1, "set": {"n": 1}, "branch_timestamp": "294277-01-01T00:00:00Z"},
	{"table": "blocks", "key": "b0000000-0000-0000-0000-000000000001", "op": "update", "base_version": 1, "set": {"n": 2}, "submit_timestamp": "294276-12-31T23:59:59Z"},
	{"table": "blocks", "key": "b0000000-0000-0000-0000-000000000001", "op": "update", "base_version": 1, "set": {"n": 3, "at": "294276-12-31T23:59:59.999999Z"}, "submit_timestamp": "4713-01-01T00:00:00Z BC", "branch_timestamp": "0001-01-01T00:00:00Z"},
	{"table": "blocks", "key": "b0000000-0000-0000-0000-000000000001", "op": "update", "base_version": 1, "set": {"at": "294277-01-01T00:00:00Z"}}]');
SELECT n, at FROM blocks;
SELECT count(*) FROM esync.event JOIN esync.tracked_table USING (table_id) WHERE schema_name = 'wrong' AND submit_timestamp > commit_timestamp;

-- tables, columns, keys
SELECT * FROM send('[
	{"table": "nowhere", "op": "update", "key": 1, "base_version": 1, "set": {}}, {"table": "no.where", "op": "update", "key": 1, "base_version": 1, "set": {}},
	{"table": "\"", "op": "update", "key": 1, "base_version": 1, "set": {}}, {"table": "a.b.c.d", "op": "update", "key": 1, "base_version": 1, "set": {}}, {"table": "", "op": "update", "key": 1, "base_version": 1, "set": {}},
	{"table": "untracked", "op": "update", "key": 1, "base_version": 1, "set": {}}, {"table": "stopped", "op": "update", "key": 1, "base_version": 1, "set": {}},
	{"table": "parts_1", "op": "update", "key": 1, "base_version": 1, "set": {}}, {"table": "pg_class", "op": "update", "key": 1, "base_version": 1, "set": {}}, {"table": "esync.event", "op": "delete", "key": 1, "base_version": 1},
	{"table": "parts", "op": "create", "document": {"id": 1, "v": "x"}}, {"table": "parts", "op": "create", "document": {"id": 2, "v": "x"}},
	{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000001", "base_version": 1, "set": {"nname": 1}},
	{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000001", "base_version": 1, "set": {"n": "many"}},
	{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000001", "base_version": 1, "set": {"n": {"a": 1}}},
	{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000001", "base_version": 1, "set": {"n": 99999999999}},
	{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000001", "base_version": 1, "set": {"kind": "too long"}},
	{"table": "blocks", "op": "update", "key": "not a uuid", "base_version": 1, "set": {"n": 1}},
	{"table": "blocks", "op": "update", "key": {"id": "b0000000-0000-0000-0000-000000000001"}, "base_version": 1, "set": {"n": 1}},
	{"table": "blocks", "op": "update", "key": ["b0000000-0000-0000-0000-000000000001", 1], "base_version": 1, "set": {"n": 1}},
	{"table": "blocks", "op": "update", "key": {"block_id": null}, "base_version": 1, "set": {"n": 1}},
	{"table": "blocks", "op": "update", "base_version": 1, "set": {"n": 1}}, {"table": "blocks", "op": "create", "document": {"n": 1}},
	{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000001", "base_version": 1, "document": {"block_id": "b0000000-0000-0000-0000-000000000002"}},
	{"table": "blocks", "op": "update", "key": "B0000000-0000-0000-0000-000000000001", "base_version": 99, "set": {"block_id": "b0000000-0000-0000-0000-000000000001", "kind": "ok"}},
	{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000001", "set": {"n": 1}},
	{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000001", "base_version": 99, "document": {"n": 1}},
	{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000077", "base_version": 1, "set": {"n": 1}},
	{"table": "blocks", "op": "delete", "key": "b0000000-0000-0000-0000-000000000077", "base_version": 1},
	{"table": "blocks", "op": "restore", "key": "b0000000-0000-0000-0000-000000000077", "base_version": 1},
	{"table": "doms", "op": "create", "document": {"id": 11}}, {"table": "doms", "op": "create", "document": {"id": 1}}]');
SELECT kind FROM blocks;

-- constraints and triggers: as data, and the others go through
SELECT * FROM send(jsonb_build_array(
	'{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000011", "name": "eleven"}}'::jsonb,
	'{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000012", "name": "good"}}'::jsonb,
	'{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000013", "n": 100}}'::jsonb,
	'{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000014", "name": "raise"}}'::jsonb,
	'{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000015", "name": "own"}}'::jsonb,
	'{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000016", "name": "null"}}'::jsonb,
	'{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000017", "name": "seventeen"}}'::jsonb,
	'{"table": "productions", "op": "create", "document": {"production_id": 1, "block_id": "b0000000-0000-0000-0000-000000000099"}}'::jsonb,
	'{"table": "productions", "op": "create", "document": {"production_id": 2}}'::jsonb,
	'{"table": "productions", "op": "create", "document": {"production_id": 3, "block_id": "b0000000-0000-0000-0000-000000000017"}}'::jsonb,
	'{"table": "productions", "op": "create", "document": {"production_id": 4, "block_id": "b0000000-0000-0000-0000-000000000017", "late": "b0000000-0000-0000-0000-000000000099"}}'::jsonb,
	'{"table": "blocks", "op": "delete", "key": "b0000000-0000-0000-0000-000000000017", "base_version": 1}'::jsonb));
SELECT name FROM blocks ORDER BY block_id;
SELECT * FROM productions;
-- what is not an event's fault is raised, and nothing is left
SELECT * FROM send('[{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000021", "name": "fine"}},
	{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000022", "name": "serial"}}]');
SELECT count(*) FROM blocks WHERE name = 'fine';
BEGIN READ ONLY;
SELECT esync_submit('{"device_id": "t", "events": []}');
ROLLBACK;
-- what the caller left is not their fault either
BEGIN;
INSERT INTO productions VALUES (50, b(11), b(98));
SELECT * FROM send('[{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000023"}}]');
ROLLBACK;

-- tx: all or nothing; who depends on what failed is told so
SELECT * FROM send('[
	{"tx": "a", "table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000031"}},
	{"tx": "b", "table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000032"}},
	{"tx": "a", "table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000031", "base_version": 1, "set": {"n": 500}},
	{"tx": "b", "table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000032", "base_version": 1, "set": {"n": 5}},
	{"tx": "c", "table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000033"}},
	{"tx": "c", "table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000088", "base_version": 1, "set": {"n": 5}},
	{"tx": "d", "table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000034"}},
	{"tx": "d", "table": "nowhere", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000034"}},
	{"tx": "e", "table": "productions", "op": "create", "document": {"production_id": 30, "block_id": "b0000000-0000-0000-0000-000000000011", "late": "b0000000-0000-0000-0000-000000000099"}},
	{"tx": "e", "table": "productions", "op": "create", "document": {"production_id": 31, "block_id": "b0000000-0000-0000-0000-000000000011"}},
	{"table": "productions", "op": "create", "document": {"production_id": 32, "block_id": "b0000000-0000-0000-0000-000000000031"}},
	{"table": "productions", "key": 32, "op": "update", "base_version": 1, "set": {"block_id": "b0000000-0000-0000-0000-000000000011"}},
	{"table": "productions", "op": "create", "document": {"production_id": 33, "block_id": "b0000000-0000-0000-0000-000000000032"}}]');
SELECT block_id, n FROM blocks WHERE block_id BETWEEN b(31) AND b(39) ORDER BY 1;
SELECT production_id FROM productions ORDER BY 1;

-- rights and policies of the caller
CREATE ROLE regress_submit_writer;
CREATE ROLE regress_submit_other;
GRANT USAGE ON SCHEMA wrong TO regress_submit_writer, regress_submit_other;
GRANT SELECT, INSERT, UPDATE (name, n) ON blocks TO regress_submit_writer;
GRANT USAGE ON SEQUENCE ids TO regress_submit_writer;
ALTER TABLE blocks ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON blocks TO regress_submit_writer USING (owner IN ('all', 'writer')) WITH CHECK (owner IN ('all', 'writer'));
SET SESSION AUTHORIZATION regress_submit_writer;
SELECT * FROM send('[
	{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000011", "base_version": 1, "set": {"n": 11}},
	{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000011", "base_version": 1, "set": {"kind": "x"}},
	{"table": "blocks", "op": "delete", "key": "b0000000-0000-0000-0000-000000000011", "base_version": 1},
	{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000041", "owner": "boss"}},
	{"table": "blocks", "op": "create", "document": {"block_id": "b0000000-0000-0000-0000-000000000042", "owner": "writer"}},
	{"table": "productions", "op": "create", "document": {"production_id": 40, "block_id": "b0000000-0000-0000-0000-000000000011"}},
	{"table": "productions", "op": "create", "document": {"production_id": "tmp:x", "block_id": "b0000000-0000-0000-0000-000000000011"}},
	{"table": "nowhere", "op": "delete", "key": 1, "base_version": 1}]', 'writer');
SELECT tbl, aggregate_id, code FROM esync_rejected() ORDER BY rejected_id;
SELECT tbl, code FROM esync_rejected('blocks') ORDER BY rejected_id;
TABLE esync.rejected;
TABLE esync.submission;
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION regress_submit_other;
SELECT count(*) FROM esync_rejected();
SELECT esync_discard((SELECT min(1)));
SELECT esync_retry(1);
RESET SESSION AUTHORIZATION;
SELECT owner FROM blocks WHERE block_id IN (b(41), b(42));
ALTER TABLE blocks DISABLE ROW LEVEL SECURITY;

-- what was rejected: as often as it came, whole; tried again as it was, as amended, given up
SELECT * FROM told(esync_submit('{"device_id": "r", "events": [
	{"id": "00000000-0000-0000-0000-0000000f0001", "seq": 1, "table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000051", "base_version": 1, "set": {"n": 51}},
	{"id": "00000000-0000-0000-0000-0000000f0002", "seq": 2, "table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000051", "base_version": 1, "set": {"n": 510}},
	{"id": "00000000-0000-0000-0000-0000000f0003", "seq": 3, "table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000011", "base_version": 1, "set": {"n": 510}}]}', '{"user_id": "anna"}'));
SELECT * FROM told(esync_submit('{"device_id": "r", "events": [
	{"id": "00000000-0000-0000-0000-0000000f0001", "seq": 1, "table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000051", "base_version": 1, "set": {"n": 51}}]}', '{"user_id": "anna"}'));
SELECT right(client_event_id::text, 5) AS id, tbl, aggregate_id, device_id, user_id, code, event - 'id' AS event, tries, last_seen > first_seen AS later FROM esync_rejected() WHERE device_id = 'r' ORDER BY rejected_id;
CREATE FUNCTION rejection(id text) RETURNS bigint LANGUAGE sql AS $$ SELECT rejected_id FROM esync_rejected(status => 'all') WHERE client_event_id::text LIKE '%' || $1 ORDER BY 1 LIMIT 1 $$;
SELECT * FROM told(esync_retry(rejection('f0001')));
SELECT * FROM told(esync_save('blocks', '{"block_id": "b0000000-0000-0000-0000-000000000051"}'));
SELECT * FROM told(esync_retry(rejection('f0001')));
SELECT * FROM told(esync_retry(rejection('f0003'), '{"table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000011", "base_version": 1, "set": {"n": 51}}'));
SELECT * FROM told(esync_retry(rejection('f0002'), '{"id": "00000000-0000-0000-0000-0000000f0009", "table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000051", "base_version": 1, "set": {"n": 51}}'));
SELECT * FROM told(esync_retry(rejection('f0002'), '{"table": "blocks", "op": "update"}'));
SELECT esync_discard(rejection('f0002')), esync_discard(rejection('f0002'));
SELECT right(client_event_id::text, 5) AS id, code, tries FROM esync_rejected() WHERE device_id = 'r';
SELECT right(client_event_id::text, 5) AS id, tries FROM esync_rejected(status => 'closed') WHERE device_id = 'r' ORDER BY 1;
SELECT right(client_event_id::text, 5) AS id, event->'op' AS op, tries FROM esync_rejected(status => 'discarded');
\set VERBOSITY sqlstate
SELECT esync_discard(rejection('f0001'));
\set VERBOSITY default
SELECT esync_discard(-1);
SELECT * FROM esync_rejected(status => 'lost');
-- the author is still who it was, and the device that comes again hears that it was accepted
SELECT n, (SELECT jsonb_agg(jsonb_build_array(user_id, device_id, device_seq, meta ? 'retried_by')) FROM esync.event e WHERE e.aggregate_id = b.block_id::text AND client_event_id IS NOT NULL AND device_id = 'r') FROM blocks b WHERE block_id IN (b(11), b(51)) ORDER BY block_id;
SELECT * FROM told(esync_submit('{"device_id": "r", "events": [
	{"id": "00000000-0000-0000-0000-0000000f0003", "seq": 3, "table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000011", "base_version": 1, "set": {"n": 510}},
	{"id": "00000000-0000-0000-0000-0000000f0001", "seq": 1, "table": "blocks", "op": "update", "key": "b0000000-0000-0000-0000-000000000051", "base_version": 1, "set": {"n": 51}}]}', '{"user_id": "anna"}'));

-- limits: the tail waits; one event beyond the limit of bytes is kept, those behind it go on
SELECT e->>'status' AS status, e->>'code' AS code, e ? 'rejected_id' AS kept, count(*), min(i), max(i), max(r->>'next')
FROM (SELECT esync_submit(jsonb_build_object('device_id', 'many', 'events', jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 'seq', g, 'table', 'doms', 'op', 'save', 'base_version', 1, 'document', jsonb_build_object('id', 1, 'v', g))))) AS r
	FROM generate_series(1, 10000) g) AS x, jsonb_array_elements(r->'results') WITH ORDINALITY AS y (e, i) GROUP BY 1, 2, 3 ORDER BY 5;
SET esync.batch_max_events = 3;
SELECT * FROM send('[{"tx": "1", "table": "doms", "op": "save", "document": {"id": 1, "v": 0}, "base_version": 1}, {"tx": "2", "table": "doms", "op": "save", "document": {"id": 1, "v": 1}, "base_version": 1},
	{"table": "doms", "op": "save", "document": {"id": 2, "v": 1}, "base_version": 1}, {"tx": "2", "table": "doms", "op": "save", "document": {"id": 3, "v": 1}, "base_version": 1}]', 'tail');
SET esync.batch_max_events = 500;
SELECT e->>'status' AS status, e->>'code' AS code, e ? 'rejected_id' AS kept
FROM esync_submit(jsonb_build_object('device_id', 'big', 'events', jsonb_build_array(
	jsonb_build_object('id', u(9001), 'table', 'blocks', 'op', 'create', 'document', jsonb_build_object('block_id', b(91), 'name', repeat('x', 50000000))),
	jsonb_build_object('id', u(9002), 'table', 'blocks', 'op', 'create', 'document', jsonb_build_object('block_id', b(92), 'doc', repeat('x', 900000))),
	jsonb_build_object('id', u(9003), 'table', 'blocks', 'op', 'create', 'document', jsonb_build_object('block_id', b(93), 'doc', repeat('x', 900000)))))) AS r, jsonb_array_elements(r->'results') AS e;
SELECT octet_length(event->'document'->>'name') FROM esync_rejected() WHERE device_id = 'big';
-- deep
SELECT * FROM send(jsonb_build_array(
	jsonb_build_object('table', 'blocks', 'op', 'create', 'document', jsonb_build_object('block_id', b(95), 'doc', (repeat('[', 1000) || repeat(']', 1000))::jsonb)),
	jsonb_build_object('table', 'blocks', 'op', 'create', 'document', (repeat('{"a":', 1000) || '1' || repeat('}', 1000))::jsonb),
	jsonb_build_object('table', 'blocks', 'op', 'create', 'key', (repeat('[', 1000) || repeat(']', 1000))::jsonb, 'document', '{"n": 1}'::jsonb)), 'deep');
-- more groups that fail than there may be subtransactions
SELECT e->>'status' AS status, e->>'code' AS code, e ? 'rejected_id' AS kept, count(*)
FROM (SELECT esync_submit(jsonb_build_object('device_id', 'bad', 'events', jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 'seq', g, 'table', 'blocks', 'op', 'create',
		'document', jsonb_build_object('block_id', b(1000 + g), 'n', CASE g % 2 WHEN 0 THEN 1000 ELSE 1 END)) ORDER BY g))) AS r
	FROM generate_series(1, 200) g) AS x, jsonb_array_elements(r->'results') AS e GROUP BY 1, 2, 3 ORDER BY 1, 2;
SELECT count(*) FROM blocks WHERE block_id > b(1000);

SELECT * FROM esync_verify('blocks');
SELECT * FROM esync_verify('productions');
SET client_min_messages = warning;
DROP SCHEMA wrong CASCADE;
SELECT tbl, code, count(*) FROM esync_rejected() WHERE code IN ('fk', 'denied') AND device_id IN ('e-tablet', 'writer') GROUP BY 1, 2 ORDER BY 2;
DROP ROLE regress_submit_writer, regress_submit_other;
