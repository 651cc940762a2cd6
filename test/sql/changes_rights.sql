-- What is new, as far as the caller may know it: grants, column grants, row policies, tenants.
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE ROLE regress_esync_reader;
CREATE ROLE regress_esync_column;
CREATE ROLE regress_esync_keyless;
CREATE ROLE regress_esync_rls;
CREATE SCHEMA chr;
GRANT USAGE ON SCHEMA chr TO PUBLIC;
SET search_path = chr, public;
CREATE TABLE open_to_all (id int PRIMARY KEY, a text);
CREATE TABLE doc (id int PRIMARY KEY, owner name, title text, wage int);
CREATE TABLE note (id int PRIMARY KEY, team text, body text);
SELECT esync_enable('open_to_all'), esync_enable('doc'), esync_enable('note', tenant => 'team');
GRANT SELECT ON open_to_all TO PUBLIC;
CREATE FUNCTION told(answer jsonb) RETURNS TABLE (tbl text, id text, version int, type text, set jsonb, patch jsonb, user_id text, deleted boolean, conflict jsonb, members int)
LANGUAGE sql AS $$
SELECT c->>'table', c->>'aggregate_id', (c->>'version')::int, c->>'event_type', c->'set', c->'patch', c->>'user_id', (c->>'deleted')::boolean, c->'conflict',
	(SELECT count(*) FROM jsonb_object_keys(c))
FROM jsonb_array_elements(answer->'changes') WITH ORDINALITY AS x (c, place) ORDER BY place
$$;
CREATE FUNCTION fails(statement text) RETURNS TABLE (code text, message text, hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN QUERY SELECT NULL, 'no error', NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN NEXT;
END
$$;
SELECT esync_changes('now')->>'cursor' AS c0 \gset
INSERT INTO open_to_all VALUES (1, 'x');
SELECT set_config('esync.user_id', 'ann', false), set_config('esync.device_id', 'd1', false);
INSERT INTO doc VALUES (1, 'regress_esync_rls', 'one', 100), (2, 'postgres', 'two', 200);
UPDATE doc SET wage = wage + 1, title = upper(title);
UPDATE doc SET wage = 7;
INSERT INTO note VALUES (1, 'red', 'r'), (2, 'blue', 'b'), (3, NULL, 'n');

-- NAME: without a name a caller is told of the tables that it may read; named ones it must be allowed to read
SET ROLE regress_esync_reader;
SELECT * FROM told(esync_changes(:'c0'));
SELECT * FROM fails($$SELECT esync_changes(NULL, tables => '{doc}')$$);
SELECT * FROM fails($$SELECT esync_changes(NULL, tables => '{open_to_all,doc}')$$);
-- where it may read none, nothing is new
RESET ROLE;
REVOKE SELECT ON open_to_all FROM PUBLIC;
SET ROLE regress_esync_reader;
SELECT * FROM told(esync_changes(:'c0'));
SELECT esync_changes(NULL)->'has_more' AS has_more;
RESET ROLE;

-- NAME: columns that may not be read are in nothing that is told
GRANT SELECT (id, title) ON doc TO regress_esync_column;
SET ROLE regress_esync_column;
SELECT * FROM told(esync_changes(:'c0', tables => '{doc}'));
SELECT version, set FROM told(esync_changes(:'c0', tables => '{doc}', rows => true));
RESET ROLE;
-- without the key there is nothing to tell of
GRANT SELECT (title) ON doc TO regress_esync_keyless;
SET ROLE regress_esync_keyless;
SELECT * FROM told(esync_changes(:'c0'));
SELECT * FROM fails($$SELECT esync_changes(NULL, tables => '{doc}')$$);
RESET ROLE;

-- NAME: row policies: rows that are shown, with their history; of others that they are gone
GRANT SELECT, UPDATE ON doc TO regress_esync_rls;
ALTER TABLE doc ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON doc USING (owner = current_user);
SET ROLE regress_esync_rls;
SELECT id, version, type, set, user_id, deleted, members FROM told(esync_changes(:'c0', tables => '{doc}'));
SELECT esync_changes(:'c0', tables => '{doc}')->>'cursor' AS c1 \gset
RESET ROLE;
-- a row that is taken away, one that is given, one that goes, one that comes
UPDATE doc SET owner = 'postgres', title = 'not for you' WHERE id = 1;
SET ROLE regress_esync_rls;
SELECT id, version, type, set, patch, user_id, deleted, members FROM told(esync_changes(:'c1', tables => '{doc}'));
SELECT c - 'event_id' AS change FROM jsonb_array_elements(esync_changes(:'c1', tables => '{doc}')->'changes') AS c;
SELECT esync_changes(:'c1', tables => '{doc}')->>'cursor' AS c2 \gset
RESET ROLE;
UPDATE doc SET owner = 'regress_esync_rls' WHERE id = 2;
INSERT INTO doc VALUES (3, 'postgres', 'hidden', 1), (4, 'regress_esync_rls', 'shown', 1), (5, 'regress_esync_rls', 'in between', 1);
DELETE FROM doc WHERE id = 5;
SET ROLE regress_esync_rls;
SELECT id, version, type, set, user_id, deleted FROM told(esync_changes(:'c2', tables => '{doc}'));
-- where it is not the row by which somebody may see it, it is shown again by a touch
SELECT esync_changes(:'c2', tables => '{doc}')->>'cursor' AS c3 \gset
SELECT esync_touch('doc', '2');
SELECT id, version, type, set, deleted FROM told(esync_changes(:'c3', tables => '{doc}'));
-- but nobody touches what he does not see, or may not change
SELECT * FROM fails($$SELECT esync_touch('doc', '3')$$);
SELECT * FROM fails($$SELECT esync_touch('doc', '5')$$);
SELECT * FROM fails($$SELECT esync_touch('doc', '77')$$);
RESET ROLE;
GRANT SELECT ON note TO regress_esync_rls;
SET ROLE regress_esync_rls;
SELECT * FROM fails($$SELECT esync_touch('note', '1')$$);
RESET ROLE;
-- what a key was for somebody else before is not told with the row that bears it now
INSERT INTO doc VALUES (9, 'postgres', 'secret life', 1);
DELETE FROM doc WHERE id = 9;
INSERT INTO doc VALUES (9, 'regress_esync_rls', 'new life', 2);
SET ROLE regress_esync_rls;
SELECT id, version, type, set, deleted FROM told(esync_changes(:'c0', tables => '{doc}')) WHERE id = '9';
RESET ROLE;
-- whom policies do not bind sees all
SELECT count(*) FILTER (WHERE user_id = 'ann'), count(*) AS of FROM told(esync_changes(:'c0', tables => '{doc}'));

-- NAME: a row that comes into sight comes as a whole, whatever it is that the policy looks at
CREATE TABLE member (usr name, team int);
CREATE TABLE by_member (id int PRIMARY KEY, team int, title text);
CREATE TABLE by_itself (id int PRIMARY KEY, team int, title text);
CREATE TABLE parent (id int PRIMARY KEY, team int);
CREATE TABLE by_parent (id int PRIMARY KEY, parent int, title text, size int);
INSERT INTO member VALUES ('regress_esync_rls', 1);
SELECT esync_enable(t) FROM unnest('{by_member,by_itself,by_parent}'::regclass[]) AS t;
SELECT esync_enable('by_itself', payload => 'changes');
CREATE FUNCTION shows(key int) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = chr AS $$
SELECT EXISTS (SELECT FROM by_itself JOIN member USING (team) WHERE id = key AND usr = 'regress_esync_rls')
$$;
ALTER TABLE by_member ENABLE ROW LEVEL SECURITY;
ALTER TABLE by_itself ENABLE ROW LEVEL SECURITY;
ALTER TABLE by_parent ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON by_member USING (EXISTS (SELECT FROM member AS m WHERE m.usr = current_user AND m.team = by_member.team));
CREATE POLICY p ON by_itself USING (shows(id));
CREATE POLICY p ON by_parent USING (parent IN (SELECT id FROM parent WHERE team IN (SELECT team FROM member WHERE usr = current_user)));
GRANT SELECT ON member, by_member, by_itself, parent, by_parent TO regress_esync_rls;
INSERT INTO by_member VALUES (1, 2, 'one');
INSERT INTO by_itself VALUES (1, 2, 'one');
INSERT INTO parent VALUES (1, 2);
INSERT INTO by_parent VALUES (1, 1, 'one', 1);
SET ROLE regress_esync_rls;
SELECT * FROM told(esync_changes(NULL, tables => '{by_member,by_itself,by_parent}'));
SELECT esync_changes(NULL, tables => '{by_member,by_itself,by_parent}')->>'cursor' AS c5 \gset
RESET ROLE;
UPDATE by_member SET team = 1;
UPDATE by_itself SET team = 1;
UPDATE parent SET team = 1;
UPDATE by_parent SET size = 2;
SET ROLE regress_esync_rls;
SELECT tbl, id, version, type, set, patch FROM told(esync_changes(:'c5', tables => '{by_member,by_itself,by_parent}'));
RESET ROLE;

-- NAME: any number of rows that are hidden is passed over, and what was asked of a row is forgotten without harm
CREATE TABLE hidden (id int PRIMARY KEY, shown boolean);
SELECT esync_enable('hidden');
INSERT INTO hidden SELECT i, i % 75000 = 0 FROM generate_series(1, 150000) AS i;
UPDATE hidden SET shown = shown IS NOT TRUE WHERE id IN (1, 75000);
UPDATE hidden SET shown = NULL WHERE id = 2;
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON hidden USING (shown);
GRANT SELECT ON hidden TO regress_esync_rls;
VACUUM ANALYZE hidden;
SET ROLE regress_esync_rls;
SET statement_timeout = '10s';
SELECT id, version, type, set, deleted FROM told(esync_changes(NULL, tables => '{hidden}'));
RESET statement_timeout;
RESET ROLE;

-- NAME: conflicts about columns that may not be read are not named
BEGIN;
SELECT esync_context(user_id => 'bob', device_id => 'd2', base_version => 1, submit_timestamp => '2025-11-16 12:00Z');
UPDATE doc SET wage = 1, title = 'clash' WHERE id = 2;
COMMIT;
SELECT version, conflict FROM told(esync_changes(:'c0', tables => '{doc}')) WHERE id = '2';
ALTER TABLE doc DISABLE ROW LEVEL SECURITY;
SET ROLE regress_esync_column;
SELECT version, conflict, set, patch FROM told(esync_changes(:'c0', tables => '{doc}')) WHERE id = '2';
RESET ROLE;

-- NAME: a tenant is told its own rows, of one that comes the whole, of one that leaves that it is gone
SELECT tenant, t.id, t.version, t.type, t.set, t.deleted FROM unnest('{red,blue,green}'::text[]) AS tenant, told(esync_changes(:'c0', tables => '{note}', tenant => tenant)) AS t;
SELECT esync_changes(:'c0', tables => '{note}', tenant => 'red')->>'cursor' AS red, esync_changes(:'c0', tables => '{note}', tenant => 'blue')->>'cursor' AS blue \gset
UPDATE note SET body = 'r2' WHERE id = 1;
UPDATE note SET team = 'blue' WHERE id = 1;
UPDATE note SET body = 'r3' WHERE id = 1;
UPDATE note SET team = 'red', body = 'b2' WHERE id = 2;
UPDATE note SET team = 'red' WHERE id = 3;
UPDATE note SET team = NULL WHERE id = 3;
DELETE FROM note WHERE id = 2;
SELECT t.id, t.version, t.type, t.set, t.patch, t.deleted, t.members FROM told(esync_changes(:'red', tables => '{note}', tenant => 'red')) AS t;
SELECT t.id, t.version, t.type, t.set, t.patch, t.deleted, t.members FROM told(esync_changes(:'blue', tables => '{note}', tenant => 'blue')) AS t;
-- no page is empty while there is more, however few rows are a tenant's
INSERT INTO note SELECT i, CASE WHEN i % 400 = 0 THEN 'rare' ELSE 'common' END, 'x' FROM generate_series(100, 2099) AS i;
SELECT answer->>'has_more' AS has_more, jsonb_array_length(answer->'changes') AS n FROM esync_changes(NULL, 2, '{note}', tenant => 'rare') AS answer;
SELECT answer->>'has_more' AS has_more, jsonb_array_length(answer->'changes') AS n FROM esync_changes(NULL, 4, '{note}', tenant => 'rare') AS answer;
SELECT answer->>'has_more' AS has_more, jsonb_array_length(answer->'changes') AS n FROM esync_changes(NULL, 5, '{note}', tenant => 'rare') AS answer;
-- a row that went unseen was the tenant's that it had
SET esync.enabled = off;
DELETE FROM note WHERE id = 400;
RESET esync.enabled;
SELECT esync_changes('now', tables => '{note}', tenant => 'rare')->>'cursor' AS rare \gset
INSERT INTO note VALUES (400, 'common', 'came back as another''s');
SELECT t.id, t.version, t.type, t.set, t.deleted FROM told(esync_changes(:'rare', tables => '{note}', tenant => 'rare')) AS t;
-- the option came late: rows written before have no tenant
SELECT count(*) FROM told(esync_changes(NULL, tables => '{doc}', tenant => 'red'));

-- NAME: a row that a create takes from another tenant is gone for that one
SELECT esync_changes('now', tables => '{note}')->>'cursor' AS c6 \gset
INSERT INTO note VALUES (50, 'red', 'of red'), (51, 'red', 'of red'), (52, 'red', 'of red');
DELETE FROM note WHERE id = 52;
SELECT esync_save('note', '{"id": 50, "team": "blue", "body": "of blue"}', base_version => 0, context => '{"device_id": "d7"}')->>'status' AS status;
SELECT esync_save('note', '{"id": 51, "body": "of red still"}', base_version => 0, context => '{"device_id": "d7"}')->>'status' AS status;
INSERT INTO note VALUES (52, 'blue', 'told to red as gone before');
UPDATE note SET body = body || '.' WHERE id = 50;
SELECT tenant, t.id, t.version, t.type, t.set, t.deleted FROM unnest('{red,blue}'::text[]) AS tenant, told(esync_changes(:'c6', tables => '{note}', tenant => tenant)) AS t;

-- NAME: a device's own events are left out, what triggers made of them is not
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.body := NEW.body || '!'; RETURN NEW; END $$;
CREATE TRIGGER stamp BEFORE UPDATE ON note FOR EACH ROW EXECUTE FUNCTION stamp();
SELECT esync_changes('now', tables => '{note}')->>'cursor' AS c4 \gset
SELECT r->>'status' AS status, r->'version' AS version FROM jsonb_array_elements(esync_submit(jsonb_build_object('device_id', 'd1', 'batch_id', '6d1b7f6e-0000-4000-8000-0000000c0001', 'sent_at', now(), 'events', jsonb_build_array(
	jsonb_build_object('id', '6d1b7f6e-0000-4000-8000-0000000c0002', 'table', 'chr.note', 'key', '1', 'op', 'update', 'base_version', 4, 'set', '{"body": "mine"}'::jsonb, 'submit_timestamp', now()))))->'results') AS r;
SELECT t.id, t.version, t.type, t.set FROM told(esync_changes(:'c4', tables => '{note}')) AS t;
SELECT t.id, t.version, t.type, t.set FROM told(esync_changes(:'c4', tables => '{note}', device_id => 'd1')) AS t;
SELECT count(*) FROM told(esync_changes(:'c4', tables => '{note}', device_id => 'd2'));

-- NAME: of plain SQL, too: what triggers and foreign keys wrote is told to the device whose statement led to it
CREATE TABLE box (id int PRIMARY KEY, total int NOT NULL DEFAULT 0);
CREATE TABLE item (id int PRIMARY KEY, box int REFERENCES box ON DELETE CASCADE ON UPDATE CASCADE, n int, checked boolean);
SELECT esync_enable('box'), esync_enable('item');
CREATE FUNCTION add_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE box SET total = total + NEW.n WHERE id = NEW.box;
	UPDATE item SET checked = true WHERE id = NEW.id AND n > 50;
	RETURN NULL;
END
$$;
CREATE TRIGGER add_up AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION add_up();
CREATE FUNCTION add_item(id int, n int) RETURNS void LANGUAGE sql AS $$ INSERT INTO item VALUES (id, 1, n) $$;
INSERT INTO box VALUES (1), (2);
INSERT INTO item VALUES (1, 2, 5);
SELECT esync_changes('now', tables => '{box,item}')->>'cursor' AS c5 \gset
SET esync.device_id = 'd1';
INSERT INTO item VALUES (2, 1, 7);
SELECT add_item(3, 60);
COPY item (id, n) FROM stdin;
4	1
5	2
\.
WITH moved AS (UPDATE item SET n = 8 WHERE id = 2 RETURNING box) DELETE FROM item WHERE id IN (4, 5);
DO $$ BEGIN UPDATE item SET n = n + 1 WHERE id IN (2, 3); END $$;
UPDATE box SET id = 3 WHERE id = 2;
DELETE FROM box WHERE id = 1;
RESET esync.device_id;
SELECT t.tbl, t.id, t.version, t.type, t.set, t.deleted FROM told(esync_changes(:'c5', tables => '{box,item}', device_id => 'd1')) AS t;
-- nobody else sees a difference
SELECT count(*), count(*) FILTER (WHERE t.type = 'Deleted') AS deleted FROM told(esync_changes(:'c5', tables => '{box,item}', device_id => 'd2')) AS t;
SELECT count(*) FROM told(esync_changes(:'c5', tables => '{box,item}')) AS t;
SELECT esync_disable('item', true), esync_disable('box', true);

-- NAME: nor is anything told of tables in a schema that the caller may not use
CREATE SCHEMA chr_shut;
CREATE TABLE chr_shut.secret (id int PRIMARY KEY, v text);
SELECT esync_enable('chr_shut.secret');
GRANT SELECT ON chr_shut.secret TO regress_esync_reader;
INSERT INTO chr_shut.secret VALUES (1, 'private');
SELECT 'chr_shut.secret'::regclass::oid AS secret \gset
SET ROLE regress_esync_reader;
SELECT count(*) FROM told(esync_changes()) AS t WHERE t.id = '1' AND t.set ? 'v';
SELECT * FROM fails(format('SELECT esync_changes(NULL, tables => ARRAY[%s::regclass])', :'secret'));
SELECT * FROM fails(format('SELECT * FROM esync_history(%s::regclass, 1)', :'secret'));
RESET ROLE;
GRANT USAGE ON SCHEMA chr_shut TO regress_esync_reader;
SET ROLE regress_esync_reader;
SELECT t.tbl, t.set FROM told(esync_changes()) AS t WHERE t.id = '1' AND t.set ? 'v';
SELECT t.tbl, t.set FROM told(esync_changes(NULL, tables => ARRAY[:secret::regclass])) AS t;
RESET ROLE;
SELECT esync_disable('chr_shut.secret', true);
DROP SCHEMA chr_shut CASCADE;

RESET esync.user_id;
RESET esync.device_id;
RESET search_path;
SELECT esync_disable(t, true) FROM unnest('{chr.open_to_all,chr.doc,chr.note,chr.by_member,chr.by_itself,chr.by_parent,chr.hidden}'::regclass[]) AS t;
DROP SCHEMA chr CASCADE;
DROP ROLE regress_esync_reader, regress_esync_column, regress_esync_keyless, regress_esync_rls;
