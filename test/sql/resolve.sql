-- Conflicts decided: one by one, field by field, row by row, and all at once.
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA dec;
SET search_path = dec, public;
CREATE TABLE block (id int PRIMARY KEY, title text, note text, pin text, gen text GENERATED ALWAYS AS (title || '!') STORED);
SELECT esync_enable('block', mask => '{pin}');

-- somebody did that on a device, having seen that version, and saved it that day of a week long ago
CREATE FUNCTION edit(who text, base bigint, day int, statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM esync_context(user_id => who, device_id => 'tablet of ' || who, base_version => base,
		submit_timestamp => '2025-11-16 12:00Z'::timestamptz + day * interval '1 day');
	EXECUTE statement;
	PERFORM esync_context();
END
$$;
CREATE FUNCTION made(statement text) RETURNS void LANGUAGE sql AS $$ SELECT edit('office', NULL, 0, statement) $$;
-- the ledger, and events, without their numbers
CREATE TABLE base AS SELECT nextval('esync.conflict_id_seq') AS n, nextval('esync.event_id_seq') AS e;
CREATE VIEW conflicts AS
SELECT conflict_id - n AS n, tbl::text, aggregate_id AS id, field, kind, base_value AS base, shown_value AS shown,
	(SELECT string_agg(format('%s: %s%s', c->>'user_id', c->'value', CASE WHEN (c->>'shown')::boolean THEN '*' END), ', ' ORDER BY c->'event_id')
		FROM jsonb_array_elements(contenders) AS c) AS contenders, status, resolution, resolved_by
FROM base, esync_conflicts(status => 'all', after => n);
CREATE FUNCTION told(answer jsonb) RETURNS jsonb LANGUAGE sql AS $$
SELECT answer - 'event_id' - 'effective_timestamp' || jsonb_build_object('resolved', (SELECT jsonb_agg(r::bigint - n) FROM base, jsonb_array_elements(answer->'resolved') AS r),
	'conflicts', (SELECT jsonb_agg(c - 'conflict_id') FROM jsonb_array_elements(answer->'conflicts') AS c))
$$;
-- what an error tells
CREATE FUNCTION fails(statement text) RETURNS TABLE (code text, message text, detail text, hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN QUERY SELECT NULL, 'no error', NULL, NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	detail := regexp_replace(detail, '"conflict_id": \d+', '"conflict_id": n', 'g');
	message := regexp_replace(message, '(conflict|event) \d+', '\1 n', 'g');
	RETURN NEXT;
END
$$;
-- the open conflict about a field of a row
CREATE FUNCTION open_one(rel regclass, id text, f text DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
SELECT conflict_id FROM esync_conflicts(rel, id) WHERE field IS NOT DISTINCT FROM f
$$;
CREATE FUNCTION event(rel regclass, id text, v bigint) RETURNS bigint LANGUAGE sql AS $$
SELECT event_id FROM esync_history(rel, id) WHERE version = v ORDER BY event_id DESC LIMIT 1
$$;
CREATE FUNCTION decisions(rel regclass, id text) RETURNS TABLE (version bigint, type text, base bigint, patch jsonb, user_id text, strategy text, resolves int) LANGUAGE sql AS $$
SELECT version, event_type, base_version, patch, user_id, meta->>'strategy', jsonb_array_length(meta->'resolves') FROM esync_history(rel, id) WHERE event_type = 'Resolved'
$$;
-- a title that two contradict, in either order of arrival; mine is saved last
CREATE FUNCTION clash(id int, mine_first boolean) RETURNS void LANGUAGE sql AS $$
SELECT made(format('INSERT INTO block VALUES (%s, ''old'', ''old'', ''p'')', id));
SELECT CASE WHEN mine_first THEN edit('me', 1, 4, format('UPDATE block SET title = ''mine'' WHERE id = %s', id)) END;
SELECT edit('you', 1, 3, format('UPDATE block SET title = ''yours'', note = ''new'' WHERE id = %s', id));
SELECT CASE WHEN NOT mine_first THEN edit('me', 1, 4, format('UPDATE block SET title = ''mine'' WHERE id = %s', id)) END;
$$;

-- NAME: each strategy, in both orders of arrival
SELECT count(clash(i * 2 + j, j = 1)) FROM generate_series(1, 5) AS i, generate_series(0, 1) AS j;
BEGIN; SELECT esync_context(user_id => 'boss');
SELECT told(esync_resolve(open_one('block', '2', 'title'), 'server_wins'));
SELECT told(esync_resolve(open_one('block', '3', 'title'), 'server_wins', expected_version => 3));
SELECT told(esync_resolve(open_one('block', '4', 'title'), 'client_wins'));
SELECT told(esync_resolve(open_one('block', '5', 'title'), 'client_wins'));
SELECT told(esync_resolve(open_one('block', '6', 'title'), 'last_write_wins'));
SELECT told(esync_resolve(open_one('block', '7', 'title'), 'last_write_wins'));
SELECT told(esync_resolve(open_one('block', '8', 'title'), 'event_sourced'));
SELECT told(esync_resolve(open_one('block', '9', 'title'), 'event_sourced'));
SELECT told(esync_resolve(open_one('block', '10', 'title'), 'manual', '"boss''s"'));
SELECT told(esync_resolve(open_one('block', '11', 'title'), 'manual', 'null'));
COMMIT;
SELECT id, title, note, pin FROM block ORDER BY id;
SELECT n, id, shown, contenders, status, resolution, resolved_by FROM conflicts;
SELECT * FROM decisions('block', '6');
SELECT version, value, user_id, status FROM field_history('block', 2, 'title');
SELECT version, value, user_id, status FROM field_history('block', 11, 'title');
SELECT * FROM esync_verify('block');
SELECT tbl::text, sum(opened) AS opened, sum(closed) AS closed, max(median_age) < interval '1 minute' AS soon, count(*) FILTER (WHERE by_strategy ? 'client_wins') > 0 AS by FROM esync_conflict_stats() WHERE tbl = 'block'::regclass GROUP BY 1;
SELECT count(*) FROM esync_conflict_stats('2200-01-01');

-- NAME: what is closed, unknown or not a decision
CREATE TABLE first AS SELECT min(conflict_id) AS id FROM esync_conflicts('block', status => 'closed');
SELECT * FROM fails($$SELECT esync_resolve(id, 'client_wins') FROM first$$);
SELECT * FROM fails($$SELECT esync_resolve(999999999, 'client_wins')$$);
SELECT * FROM fails($$SELECT esync_resolve(NULL, 'client_wins')$$);
SELECT * FROM fails($$SELECT esync_resolve(1, NULL)$$);
SELECT * FROM fails($$SELECT esync_resolve(id, 'coin') FROM first$$);
SELECT * FROM fails($$SELECT esync_resolve(id, 'merge') FROM first$$);
SELECT * FROM fails($$SELECT esync_resolve(id, 'manual') FROM first$$);
SELECT * FROM fails($$SELECT esync_resolve(id, 'server_wins', '1') FROM first$$);

-- NAME: who decides must have seen the contenders, and nothing else
SELECT clash(20, false);
UPDATE block SET note = 'another field' WHERE id = 20;
SELECT * FROM fails($$SELECT esync_resolve(open_one('block', '20', 'title'), 'manual', '"x"', expected_version => 2)$$);
SELECT * FROM fails($$SELECT esync_resolve(open_one('block', '20', 'title'), 'manual', '"x"', expected_version => 5)$$);
SELECT told(esync_resolve(open_one('block', '20', 'title'), 'manual', '"x"', expected_version => 3));
SELECT * FROM decisions('block', '20');
SELECT * FROM fails($$SELECT esync_resolve_row('block', '20', '{"title": {"value": "y"}}', expected_version => 4)$$);
SELECT told(esync_resolve_row('block', '20', '{"note": {"value": "y"}}', expected_version => 4));
SELECT * FROM esync_verify('block');

-- NAME: what arrives later opens a new conflict instead of undoing it
SELECT edit('eve', 1, 5, $$UPDATE block SET title = 'late' WHERE id = 20$$);
SELECT title FROM block WHERE id = 20;
SELECT n, shown, contenders, status, resolution FROM conflicts WHERE id = '20';
-- a decision takes its place by the time at which it was saved
SELECT clash(21, false);
BEGIN; SELECT esync_context(user_id => 'boss', submit_timestamp => '2025-11-21 12:00Z'); SELECT told(esync_resolve(open_one('block', '21', 'title'), 'manual', '"decided"')); COMMIT;
SELECT edit('eve', 1, 6, $$UPDATE block SET title = 'later' WHERE id = 21$$);
SELECT title FROM block WHERE id = 21;
SELECT n, shown, contenders, status, resolution FROM conflicts WHERE id = '21';
SELECT version, value, user_id, status FROM field_history('block', 21, 'title');
SELECT * FROM esync_verify('block');

-- NAME: field by field, from any bar of the track, a new value, or blank
SELECT clash(30, false);
UPDATE block SET note = 'third' WHERE id = 30;
SELECT told(esync_resolve_row('block', '30', jsonb_build_object('title', jsonb_build_object('event_id', event('block', '30', 1)), 'note', '{"value": null}'::jsonb, 'pin', '{"value": "q"}'::jsonb)));
SELECT * FROM block WHERE id = 30;
SELECT * FROM decisions('block', '30');
SELECT told(esync_resolve_row('block', '30', jsonb_build_object('note', jsonb_build_object('event_id', event('block', '30', 2)))));
SELECT told(esync_resolve_row('block', '30', '{}'));
SELECT told(esync_resolve_row('block', '30', '"last_write_wins"'));
SELECT * FROM block WHERE id = 30;
SELECT * FROM fails($$SELECT esync_resolve_row('block', '30', '{"none": {"value": 1}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '30', '{"id": {"value": 1}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '30', '{"gen": {"value": 1}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '30', '{"title": "mine"}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '30', '{"title": {"value": 1, "event_id": 2}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '30', '{"title": {"event_id": "x"}}')$$);
SELECT * FROM fails(format('SELECT esync_resolve_row(''block'', ''30'', ''{"title": {"event_id": %s}}'')', event('block', '20', 1)));
SELECT * FROM fails(format('SELECT esync_resolve_row(''block'', ''30'', ''{"pin": {"event_id": %s}}'')', event('block', '30', 1)));
SELECT * FROM fails($$SELECT esync_resolve_row('block', '30', '{"pin": {"value": "***"}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '30', '{"title/a": {"value": 1}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '30', '[]')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '30', '"manual"')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '31', '{"title": {"value": "x"}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('pg_class', '31', '{"relname": {"value": "x"}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '30', '{"": {"value": true}}')$$);
SELECT * FROM esync_verify('block');

-- NAME: a row that no event tells of
CREATE TABLE plain (id int PRIMARY KEY, a text, b text);
INSERT INTO plain VALUES (1, 'a', 'b'), (2, 'a', 'b');
SELECT esync_enable('plain');
SELECT told(esync_resolve_row('plain', '1', '{"a": {"value": "x"}}', expected_version => 1));
SELECT version, event_type, patch FROM esync_history('plain', 1);
SELECT told(esync_resolve_row('plain', '2', '{}'));
SELECT * FROM esync_verify('plain');

-- NAME: groups and places inside of a json_merge column
CREATE TABLE doc (id int PRIMARY KEY, street text, zip text, note text, spec jsonb);
SELECT esync_enable('doc', groups => '{"address": ["street", "zip"]}', json_merge => '{spec}');
CREATE FUNCTION doc_clash(id int) RETURNS void LANGUAGE sql AS $$
SELECT made(format('INSERT INTO doc VALUES (%s, ''s'', ''z'', ''n'', ''{"dim": {"length": 1, "width": 1}, "gone": 1}'')', id));
SELECT edit('me', 1, 3, format('UPDATE doc SET street = ''mine'', spec = ''{"dim": {"length": 2, "width": 1}, "gone": 2}'' WHERE id = %s', id));
SELECT edit('you', 1, 2, format('UPDATE doc SET zip = ''yours'', spec = ''{"dim": {"length": 3, "width": 3}}'' WHERE id = %s', id));
$$;
SELECT count(doc_clash(i)) FROM generate_series(1, 9) AS i;
SELECT n, field, base, shown, contenders FROM conflicts WHERE tbl = 'doc' AND id = '1';
SELECT told(esync_resolve(open_one('doc', '1', 'address'), 'client_wins'));
SELECT told(esync_resolve(open_one('doc', '1', 'spec/dim/length'), 'client_wins'));
SELECT told(esync_resolve(open_one('doc', '1', 'spec/gone'), 'client_wins'));
SELECT told(esync_resolve(open_one('doc', '2', 'address'), 'manual', '{"street": "a", "zip": "b"}'));
SELECT told(esync_resolve(open_one('doc', '2', 'spec/dim/length'), 'manual', '{"cm": 3}'));
SELECT told(esync_resolve(open_one('doc', '2', 'spec/gone'), 'manual', 'null'));
SELECT told(esync_resolve_row('doc', '3', '"server_wins"'));
SELECT told(esync_resolve_row('doc', '4', '"last_write_wins"'));
SELECT told(esync_resolve_row('doc', '5', '"event_sourced"'));
SELECT told(esync_resolve_row('doc', '6', '"client_wins"'));
SELECT told(esync_resolve_row('doc', '7', format('{"spec": {"event_id": %s}, "address": {"event_id": %1$s}}', event('doc', '7', 1))::jsonb));
SELECT told(esync_resolve_row('doc', '8', format('{"spec/dim/length": {"event_id": %s}, "spec/gone": {"event_id": %s}, "zip": {"value": "c"}}', event('doc', '8', 1), event('doc', '8', 3))::jsonb));
SELECT * FROM fails($$SELECT esync_resolve(open_one('doc', '9', 'address'), 'manual', '"a"')$$);
SELECT * FROM fails($$SELECT esync_resolve(open_one('doc', '9', 'address'), 'manual', '{"note": "a"}')$$);
SELECT * FROM fails($$SELECT esync_resolve(open_one('doc', '9', 'address'), 'manual', '{"none": "a"}')$$);
SELECT * FROM doc ORDER BY id;
SELECT id, field, status, resolution FROM conflicts WHERE tbl = 'doc' ORDER BY id, n;
SELECT id, d.version, d.base, d.patch, d.strategy, d.resolves FROM generate_series(1, 8) AS id, decisions('doc', id::text) AS d;
SELECT * FROM esync_verify('doc');

-- NAME: conflicts about what is no more
ALTER TABLE doc RENAME spec TO data;
ALTER TABLE doc RENAME zip TO code;
SELECT told(esync_resolve(open_one('doc', '9', 'data/dim/length'), 'client_wins'));
SELECT esync_enable('doc', groups => '{}');
SELECT told(esync_resolve(open_one('doc', '9', 'address'), 'client_wins'));
SELECT * FROM doc WHERE id = 9;
ALTER TABLE doc DROP COLUMN data;
SELECT told(esync_resolve_row('doc', '9', '"server_wins"'));
SELECT id, field, status, resolution FROM conflicts WHERE tbl = 'doc' AND id = '9';
CREATE TABLE lost (id int PRIMARY KEY, a text, b text, c text);
SELECT esync_enable('lost');
SELECT made($$INSERT INTO lost VALUES (1, 'a', 'b', 'c'), (2, 'a', 'b', 'c')$$);
SELECT edit('me', 1, 3, format($$UPDATE lost SET a = 'mine', b = 'mine', c = 'mine' WHERE id = %s$$, i)), edit('you', 1, 2, format($$UPDATE lost SET a = 'yours', b = 'yours', c = 'yours' WHERE id = %s$$, i)) FROM generate_series(1, 2) AS i;
ALTER TABLE lost DROP COLUMN b;
ALTER TABLE lost RENAME a TO b;
ALTER TABLE lost DROP COLUMN c;
SELECT told(esync_resolve_row('lost', '1', '"server_wins"'));
SELECT told(esync_resolve_row('lost', '2', '"client_wins"'));
SELECT * FROM lost;
SELECT id, d.patch, d.resolves FROM generate_series(1, 2) AS id, decisions('lost', id::text) AS d;
SELECT id, field, status, resolution FROM conflicts WHERE tbl = 'lost' ORDER BY n;
SELECT * FROM esync_verify('lost') UNION ALL SELECT * FROM esync_verify('doc');

-- NAME: two creates of one row
CREATE FUNCTION submit(who text, seq int, op text, rest jsonb) RETURNS text LANGUAGE sql AS $$
SELECT r->>'status' FROM jsonb_array_elements(esync_submit(jsonb_build_object('device_id', 'tablet of ' || who, 'events', jsonb_build_array(jsonb_build_object(
	'id', md5('resolve' || who || seq)::uuid, 'seq', seq, 'table', 'dec.plain', 'op', op) || rest)), jsonb_build_object('user_id', who))->'results') AS r
$$;
SELECT submit('me', 1, 'create', '{"document": {"id": 7, "a": "mine", "b": "same"}, "submit_timestamp": "2025-11-19T12:00:00Z"}');
SELECT submit('you', 1, 'create', '{"document": {"id": 7, "a": "yours", "b": "same"}, "submit_timestamp": "2025-11-18T12:00:00Z"}');
SELECT field, kind, contenders FROM conflicts WHERE tbl = 'plain';
SELECT told(esync_resolve(open_one('plain', '7', 'a'), 'client_wins'));
SELECT field, kind, status, resolution FROM conflicts WHERE tbl = 'plain';
SELECT * FROM esync_verify('plain');

-- NAME: a delete against an edit, decided either way
CREATE TABLE parent (id int PRIMARY KEY, name text);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent, name text, secret text);
CREATE TABLE soft (id int PRIMARY KEY, name text, gone timestamptz);
SELECT esync_enable('parent'), esync_enable('child', mask => '{secret}'), esync_enable('soft', tombstone => 'gone');
SELECT made($$INSERT INTO parent SELECT i, 'p' || i FROM generate_series(1, 9) AS i$$);
SELECT made($$INSERT INTO child SELECT i, i, 'c', 's' FROM generate_series(1, 9) AS i$$);
SELECT made($$INSERT INTO soft SELECT i, 's' FROM generate_series(1, 9) AS i$$);
-- an edit that is saved later, and one that is saved before; either comes first
SELECT edit('you', 1, 3, format('UPDATE child SET name = %L WHERE id = %s', 'edited', i)), edit('me', 1, 2, format('DELETE FROM child WHERE id = %s', i)) FROM generate_series(1, 5) AS i;
SELECT submit('me' || i, i, 'delete', format('{"table": "dec.child", "key": %s, "base_version": 1, "submit_timestamp": "2025-11-20T12:00:00Z"}', i)::jsonb),
	submit('you' || i, i, 'update', format('{"table": "dec.child", "key": %s, "base_version": 1, "set": {"name": "edited"}, "submit_timestamp": "2025-11-19T12:00:00Z"}', i)::jsonb) FROM generate_series(6, 8) AS i;
SELECT edit('you', 1, 3, format('UPDATE soft SET name = %L WHERE id = %s', 'edited', i)), edit('me', 1, 2, format('UPDATE soft SET gone = now() WHERE id = %s', i)) FROM generate_series(1, 5) AS i;
SELECT id, kind, contenders, status FROM conflicts WHERE tbl IN ('child', 'soft') AND id IN ('1', '6');
SELECT told(esync_resolve(open_one('child', '1'), 'manual', '{"deleted": false}'));
SELECT told(esync_resolve(open_one('child', '2'), 'manual', '{"deleted": true}', expected_version => 3));
SELECT told(esync_resolve(open_one('child', '3'), 'server_wins'));
SELECT told(esync_resolve(open_one('child', '4'), 'client_wins'));
SELECT told(esync_resolve(open_one('child', '5'), 'last_write_wins'));
SELECT told(esync_resolve(open_one('child', '6'), 'server_wins'));
SELECT told(esync_resolve(open_one('child', '7'), 'client_wins'));
SELECT told(esync_resolve(open_one('child', '8'), 'last_write_wins'));
SELECT * FROM child ORDER BY id;
SELECT told(esync_resolve(open_one('soft', '1'), 'manual', '{"deleted": false}'));
SELECT told(esync_resolve(open_one('soft', '2'), 'manual', '{"deleted": true}')) #- '{row,gone}';
SELECT told(esync_resolve(open_one('soft', '3'), 'client_wins')) #- '{row,gone}';
SELECT told(esync_resolve(open_one('soft', '4'), 'server_wins'));
SELECT told(esync_resolve(open_one('soft', '5'), 'event_sourced')) #- '{row,gone}';
SELECT id, name, gone IS NOT NULL AS gone FROM soft ORDER BY id;
SELECT tbl, id, status, resolution FROM conflicts WHERE kind = 'delete_edit' ORDER BY tbl, n;
SELECT * FROM fails($$SELECT esync_resolve((SELECT min(conflict_id) FROM esync_conflicts('child', status => 'all')), 'manual', '{"deleted": 1}')$$);
SELECT field, version, value, status FROM field_history('child', 1) WHERE field IS NULL OR field = 'name';
SELECT version, event_type, patch, meta - 'resolves' AS meta FROM esync_history('child', 1);
SELECT version, event_type, patch #- '{0,value}' AS patch, meta - 'resolves' AS meta FROM esync_history('soft', 2) WHERE version > 3;
SELECT * FROM esync_verify('child') UNION ALL SELECT * FROM esync_verify('soft');
-- a row that is deleted is restored with all its registers, in conflict or not; and taken
DELETE FROM child WHERE id = 9;
SELECT told(esync_resolve_row('child', '9', '{"": {"value": {"deleted": false}}, "name": {"value": "back"}}'));
SELECT told(esync_resolve_row('child', '9', '{"": {"value": {"deleted": true}}}'));
SELECT told(esync_resolve_row('child', '9', format('{"": {"event_id": %s}}', event('child', '9', 3))::jsonb));
SELECT * FROM child WHERE id = 9;
SELECT * FROM fails(format('SELECT esync_resolve_row(''child'', ''9'', ''{"": {"event_id": %s}}'')', event('child', '1', 1)));
SELECT field, version, value, status FROM field_history('child', 9) WHERE field IS NULL OR field = 'name';
SELECT * FROM esync_verify('child');

-- NAME: foreign keys that stand in the way
DELETE FROM child WHERE id = 9;
DELETE FROM parent WHERE id = 9;
SELECT * FROM fails($$SELECT esync_resolve_row('child', '9', '{"": {"value": {"deleted": false}}}')$$);
SELECT told(esync_resolve_row('child', '9', '{"": {"value": {"deleted": false}}, "parent": {"value": 1}}'));
SELECT * FROM fails($$SELECT esync_resolve_row('parent', '1', '{"": {"value": {"deleted": true}}}')$$);
SELECT told(esync_resolve_row('parent', '9', '{"": {"value": {"deleted": false}}}'));
SELECT * FROM esync_verify('child') UNION ALL SELECT * FROM esync_verify('parent');

-- NAME: what was changed behind esync's back is put right
SELECT clash(50, false);
UPDATE plain SET b = 'known' WHERE id = 1;
SET esync.enabled = off;
UPDATE plain SET a = 'unseen' WHERE id = 1;
DELETE FROM plain WHERE id = 2;
DELETE FROM plain WHERE id = 7;
UPDATE block SET title = 'unseen' WHERE id = 50;
RESET esync.enabled;
SELECT told(esync_resolve(open_one('block', '50', 'title'), 'event_sourced', expected_version => 3));
SELECT told(esync_resolve_row('plain', '1', '"event_sourced"'));
SELECT told(esync_resolve_row('plain', '7', '"event_sourced"'));
SELECT told(esync_resolve_row('plain', '1', '"event_sourced"'));
SELECT version, event_type, patch, meta FROM esync_history('plain', 1) WHERE version > 3;
SELECT * FROM plain ORDER BY id;
SELECT title FROM block WHERE id = 50;
SELECT * FROM esync_verify('block') UNION ALL SELECT * FROM esync_verify('plain');

-- NAME: all at once
CREATE TABLE many (id int PRIMARY KEY, a text, b text, c text);
SELECT esync_enable('many');
SELECT made($$INSERT INTO many SELECT i, 'a', 'b', 'c' FROM generate_series(1, 20) AS i$$);
SELECT count(edit('me', 1, 3, format($$UPDATE many SET a = 'mine', b = 'mine' WHERE id = %s$$, i))) FROM generate_series(1, 20) AS i;
SELECT count(edit('you', 1, 2, format($$UPDATE many SET a = 'yours', b = 'yours', c = 'new' WHERE id = %s$$, i))) FROM generate_series(1, 20) AS i;
SELECT esync_resolve_all('many', 'client_wins', 'a');
SELECT * FROM fails($$SELECT esync_resolve_all('many', 'client_wins', 'none')$$);
SELECT a, b, c, count(*) FROM many GROUP BY 1, 2, 3;
SELECT esync_resolve_all('many', 'server_wins'), esync_resolve_all('many', 'server_wins');
SELECT a, b, c, count(*) FROM many GROUP BY 1, 2, 3;
SELECT field, status, resolution, count(*) FROM conflicts WHERE tbl = 'many' GROUP BY 1, 2, 3 ORDER BY 1;
SELECT * FROM fails($$SELECT esync_resolve_all('many', 'manual')$$);
SELECT * FROM fails($$SELECT esync_resolve_all('pg_class', 'server_wins')$$);
SELECT tbl::text, sum(opened) AS opened, sum(closed) AS closed, sum((by_strategy->>'client_wins')::int) AS client_wins FROM esync_conflict_stats() WHERE tbl::text = 'many' GROUP BY 1;
SELECT * FROM esync_verify('many');
-- one event a row
SELECT clash(60, false);
SELECT count(*) FROM esync_history('many', 1) WHERE event_type = 'Resolved';

-- NAME: what a constraint refuses
CREATE TABLE span (id int PRIMARY KEY, low int, high int, a text, CONSTRAINT range CHECK (low <= high));
SELECT esync_enable('span');
SELECT made($$INSERT INTO span SELECT i, 1, 10, 'a' FROM generate_series(1, 120) AS i$$);
SELECT submit('low' || i, i, 'update', format('{"table": "dec.span", "key": %s, "base_version": 1, "set": {"low": 5}, "submit_timestamp": "2025-11-18T12:00:00Z"}', i)::jsonb),
	submit('high' || i, i, 'update', format('{"table": "dec.span", "key": %s, "base_version": 1, "set": {"high": 3, "a": "high"}, "submit_timestamp": "2025-11-19T12:00:00Z"}', i)::jsonb) FROM generate_series(1, 4) AS i;
SELECT id, field, kind, contenders, status FROM conflicts WHERE tbl = 'span';
SELECT * FROM fails($$SELECT esync_resolve(open_one('span', '1', 'high'), 'client_wins')$$);
SELECT told(esync_resolve(open_one('span', '1', 'high'), 'server_wins'));
SELECT told(esync_resolve(open_one('span', '2', 'high'), 'manual', '7'));
SELECT told(esync_resolve_row('span', '3', '{"low": {"value": 2}, "high": {"value": 3}}'));
UPDATE span SET low = 2 WHERE id = 4;
SELECT told(esync_resolve(open_one('span', '4', 'high'), 'client_wins'));
SELECT * FROM span WHERE id <= 4 ORDER BY id;
SELECT id, field, kind, status, resolution FROM conflicts WHERE tbl = 'span';
-- one that is refused is no hindrance to the others
SELECT count(edit('me', 1, 3, format($$UPDATE span SET a = 'mine' WHERE id = %s$$, i))) FROM generate_series(10, 119) AS i;
SELECT count(edit('you', 1, 2, format($$UPDATE span SET a = 'yours' WHERE id = %s$$, i))) FROM generate_series(10, 119) AS i;
SELECT submit('low' || i, i, 'update', format('{"table": "dec.span", "key": %s, "base_version": 1, "set": {"low": 5}, "submit_timestamp": "2025-11-18T12:00:00Z"}', i)::jsonb),
	submit('high' || i, i, 'update', format('{"table": "dec.span", "key": %s, "base_version": 1, "set": {"high": 3, "a": "high"}, "submit_timestamp": "2025-11-19T12:00:00Z"}', i)::jsonb) FROM generate_series(120, 120) AS i;
SELECT esync_resolve_all('span', 'client_wins');
SELECT low, high, a, count(*) FROM span WHERE id >= 10 GROUP BY 1, 2, 3 ORDER BY 4;
SELECT id, field, kind, status FROM conflicts WHERE tbl = 'span' AND status = 'open';
-- nor to the other conflicts of its row
SELECT submit('a' || day, day, 'update', format('{"table": "dec.span", "key": 120, "base_version": 1, "set": {"a": "day %s"}, "submit_timestamp": "2025-11-%s"}', day, day)::jsonb) FROM generate_series(20, 21) AS day;
SELECT id, field, kind, contenders FROM conflicts WHERE tbl = 'span' AND status = 'open';
SELECT esync_resolve_all('span', 'client_wins'), esync_resolve_all('span', 'client_wins');
SELECT id, field, kind, contenders FROM conflicts WHERE tbl = 'span' AND status = 'open';
SELECT * FROM span WHERE id = 120;
SELECT esync_resolve_all('span', 'server_wins'), esync_resolve_all('span', 'client_wins');
SELECT * FROM esync_verify('span');

-- NAME: a key that was changed: conflicts under the former one are those of the row
SELECT made($$INSERT INTO many SELECT i, 'a', 'b', 'c' FROM generate_series(30, 34) AS i$$);
SELECT edit('me', 1, 3, format($$UPDATE many SET a = 'mine', b = 'mine' WHERE id = %s$$, i)) FROM generate_series(30, 34) AS i;
UPDATE many SET id = id + 10 WHERE id >= 30;
UPDATE many SET id = id + 10 WHERE id >= 30;
SELECT submit('you' || i, i, 'update', format('{"table": "dec.many", "key": %s, "base_version": 1, "set": {"a": "yours", "b": "yours"}, "submit_timestamp": "2025-11-18T12:00:00Z"}', i)::jsonb) FROM generate_series(30, 34) AS i;
SELECT id, field, contenders, status FROM conflicts WHERE tbl = 'many' AND length(id) = 2 AND id >= '30';
-- by the conflict, by the row's present key, by its former one
SELECT told(esync_resolve(conflict_id, 'manual', '"decided"')) FROM esync_conflicts('many', '50', field => 'a');
SELECT * FROM fails($$SELECT esync_resolve(conflict_id, 'client_wins', expected_version => 2) FROM esync_conflicts('many', '51', field => 'a')$$);
SELECT told(esync_resolve(conflict_id, 'server_wins', expected_version => 4)) FROM esync_conflicts('many', '51', field => 'a');
SELECT told(esync_resolve_row('many', '52', '{"a": {"value": "decided"}}'));
SELECT told(esync_resolve_row('many', '33', '"client_wins"'));
SELECT * FROM many WHERE id >= 30 ORDER BY id;
SELECT id, field, status, resolution FROM conflicts WHERE tbl = 'many' AND length(id) = 2 AND id >= '30';
SELECT esync_resolve_all('many', 'client_wins');
SELECT * FROM many WHERE id >= 30 ORDER BY id;
SELECT count(*) FROM conflicts WHERE tbl = 'many' AND status = 'open';
SELECT aggregate_id, version, event_type, patch FROM esync.event JOIN esync.tracked_table USING (table_id) WHERE relation = 'many'::regclass AND aggregate_id IN ('30', '50') AND event_type = 'Resolved' ORDER BY 1, 2;
SELECT * FROM esync_verify('many');

-- NAME: fields of a row that is gone: where they are in conflict, or with the row; else there is nothing to show them
CREATE TABLE gone (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('gone');
SELECT made($$INSERT INTO gone SELECT i, 'a', 'b' FROM generate_series(1, 3) AS i$$);
SELECT edit('me', 1, 2, 'DELETE FROM gone WHERE id = 1'), esync_save('gone', '{"id": 1, "a": "mine"}', 1)->>'status' AS kept;
SELECT * FROM fails($$SELECT esync_resolve_row('gone', '1', '{"a": {"value": "chosen"}}')$$);
SELECT kind, status FROM conflicts WHERE tbl = 'gone';
SELECT told(esync_resolve_row('gone', '1', '{"a": {"value": "chosen"}, "": {"value": {"deleted": false}}}')) #- '{resolved}';
-- who had not seen the delete is told of that
SELECT code FROM fails($$DELETE FROM gone WHERE id = 3; SELECT esync_resolve_row('gone', '3', '{"a": {"value": "chosen"}}', 1)$$);
-- in conflict: that is closed, and the value is there when the row comes back
SELECT edit('me', 1, 1, $$UPDATE gone SET a = 'mine' WHERE id = 2$$), edit('you', 1, 2, $$UPDATE gone SET a = 'yours' WHERE id = 2$$);
DELETE FROM gone WHERE id = 2;
SELECT * FROM fails($$SELECT esync_resolve_row('gone', '2', '{"b": {"value": "chosen"}}')$$);
SELECT told(esync_resolve_row('gone', '2', '{"a": {"value": "chosen"}}')) #- '{resolved}';
SELECT told(esync_resolve_row('gone', '2', '{"": {"value": {"deleted": false}}}'));
SELECT * FROM fails($$SELECT esync_resolve_row('gone', '9', '{"a": {"value": "chosen"}}')$$);
SELECT * FROM esync_verify('gone');
-- a row that came or went unseen counts as it is now, also for what a constraint refused
CREATE TABLE unseen (id int PRIMARY KEY, a text, n int CHECK (n < 9));
SELECT esync_enable('unseen');
SELECT made($$INSERT INTO unseen SELECT i, 'a', 1 FROM generate_series(1, 4) AS i$$);
SELECT count(esync_save('unseen', format('{"id": %s, "a": "b", "n": 99}', i)::jsonb, 1)) FROM generate_series(1, 4) AS i;
DELETE FROM unseen WHERE id < 3;
SET esync.enabled = off;
INSERT INTO unseen SELECT i, 'back', 2 FROM generate_series(1, 2) AS i;
DELETE FROM unseen WHERE id > 2;
RESET esync.enabled;
SELECT told(esync_resolve_row('unseen', '1', '{"a": {"value": "chosen"}}')) #- '{resolved}';
SELECT * FROM fails($$SELECT esync_resolve_row('unseen', '2', '"client_wins"')$$) UNION ALL SELECT * FROM fails($$SELECT esync_resolve_row('unseen', '3', '{"a": {"value": "chosen"}}')$$) UNION ALL SELECT * FROM fails($$SELECT esync_resolve_row('unseen', '4', '"client_wins"')$$);
SELECT id, field, kind, status FROM conflicts WHERE tbl = 'unseen' ORDER BY n;
-- the tombstone is no field to be chosen: that is the row as a whole, and closes the conflict about it
CREATE TABLE marked (id int PRIMARY KEY, a text, gone timestamptz);
SELECT esync_enable('marked', tombstone => 'gone');
SELECT made($$INSERT INTO marked VALUES (1, 'a')$$);
SELECT edit('me', 1, 1, 'UPDATE marked SET gone = now()'), edit('you', 1, 2, $$UPDATE marked SET a = 'yours'$$);
SELECT * FROM fails($$SELECT esync_resolve_row('marked', '1', '{"gone": {"value": null}}')$$) UNION ALL SELECT * FROM fails(format('SELECT esync_resolve_row(''marked'', ''1'', ''{"gone": {"event_id": %s}}'')', event('marked', '1', 2)));
SELECT kind, status FROM conflicts WHERE tbl = 'marked';
SELECT told(esync_resolve_row('marked', '1', '{"": {"value": {"deleted": false}}}')) #- '{resolved}';
SELECT kind, status FROM conflicts WHERE tbl = 'marked';

-- NAME: a path is a JSON pointer, or no client could read the patch
CREATE TABLE named (id int PRIMARY KEY, street text, zip text, b text, "x/y" int, x jsonb, spec jsonb);
SELECT esync_enable('named', groups => '{"address": ["street", "zip"]}', json_merge => '{x,spec}');
SELECT made($$INSERT INTO named VALUES (1, 's', 'z', 'b', 1, '{}', '{"a": {}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('named', '1', '{"spec/~2": {"value": 1}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('named', '1', '{"spec/a/~": {"value": 1}}')$$);
SELECT * FROM fails(format('SELECT esync_resolve_row(''named'', ''1'', ''{"spec/~a": {"event_id": %s}}'')', event('named', '1', 1)));
SELECT told(esync_resolve_row('named', '1', '{"spec/a/~1~0": {"value": 1}, "spec/": {"value": 2}, "x/y": {"value": 3}}'));
SELECT patch, esync_patch('{"spec": {"a": {}}, "x/y": 1}', patch) FROM decisions('named', '1');

-- NAME: a choice is by present names: what is gone is nothing, and stands in nobody's way
ALTER TABLE named RENAME b TO bb;
ALTER TABLE named RENAME zip TO code;
SELECT * FROM fails($$SELECT esync_resolve_row('named', '1', '{"b": {"value": "1"}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('named', '1', '{"zip": {"value": "1"}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('named', '1', '{"address": {"value": {"zip": "1"}}}')$$);
ALTER TABLE named DROP COLUMN "x/y";
SELECT told(esync_resolve_row('named', '1', '{"bb": {"value": "c"}, "address": {"value": {"code": "1"}}, "x/y": {"value": 4}}'));
ALTER TABLE named DROP COLUMN x;
SELECT * FROM fails($$SELECT esync_resolve_row('named', '1', '{"x/y": {"value": 4}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('named', '1', '{"x": {"value": {}}}')$$);
SELECT * FROM fails(format('SELECT esync_resolve_row(''named'', ''1'', ''{"x/y": {"event_id": %s}}'')', event('named', '1', 1)));
ALTER TABLE named RENAME bb TO b;
SELECT told(esync_resolve_row('named', '1', '{"b": {"value": "d"}, "spec/a~1": {"value": 1}}'));
ALTER TABLE named RENAME spec TO "a/~";
SELECT told(esync_resolve_row('named', '1', '{"a/~/a/b": {"value": 1}, "a~1~0/a/c": {"value": 1}}'));
SELECT * FROM esync_verify('named');

-- NAME: a decision inside of a place names the conflict around it where that ends by it, and where it does not does not
CREATE TABLE deep (id int PRIMARY KEY, t text, j jsonb);
SELECT esync_enable('deep', json_merge => '{j}');
SELECT made(format($$INSERT INTO deep VALUES (%s, 'old', '{"a": {"b": 1, "c": 1}}')$$, i)),
	edit('me', 1, 1, format($$UPDATE deep SET t = 'mine', j = '{"a": {"b": 2, "c": 1}}' WHERE id = %s$$, i)),
	edit('you', 1, 3, format($$UPDATE deep SET t = 'yours', j = '{"a": 7}' WHERE id = %s$$, i)) FROM generate_series(1, 3) AS i;
SELECT edit('eve', 1, 2, $$UPDATE deep SET j = '{"a": {"b": 1, "c": 5}}' WHERE id = 3$$);
CREATE TABLE answers AS SELECT i, esync_resolve_row('deep', i::text, '{"j/a/b": {"value": 3}}' || CASE WHEN i > 1 THEN '{"t": {"value": "both"}}' ELSE '{}' END::jsonb) AS answer FROM generate_series(1, 3) AS i;
SELECT i, told(answer) #- '{resolved}' AS answer, meta->'resolves' = answer->'resolved' AS named,
	(SELECT array_agg(field ORDER BY conflict_id) FROM esync_conflicts('deep', i::text, 'closed') WHERE meta->'resolves' @> to_jsonb(conflict_id)) AS fields
FROM answers, esync_history('deep', i) AS h WHERE h.event_id = (answer->>'event_id')::bigint ORDER BY i;
-- undone, it is open again with the others
SELECT i, string_agg(format('%s %s', c->>'field', c->>'status'), ', ' ORDER BY c->>'field') AS conflicts
FROM answers, jsonb_array_elements(esync_undo((answer->>'event_id')::bigint)->'conflicts') AS c GROUP BY i ORDER BY i;
SELECT id, field, status, contenders FROM conflicts WHERE tbl = 'deep' ORDER BY n;

-- NAME: a value that is none of its column, an event_id that can be none, and what is not there: each says what to do
CREATE TABLE typed (id int PRIMARY KEY, n int, d date, v varchar(3));
SELECT esync_enable('typed');
SELECT made($$INSERT INTO typed VALUES (1, 1, '2025-11-16', 'a')$$);
SELECT edit('me', 1, 1, 'UPDATE typed SET n = 2'), edit('you', 1, 2, 'UPDATE typed SET n = 3');
SELECT f.code, f.message, f.hint FROM unnest(ARRAY[$$esync_resolve(dec.open_one('typed', '1', 'n'), 'manual', '"abc"')$$, $$esync_resolve(dec.open_one('typed', '1', 'n'), 'manual', '99999999999')$$,
	$$esync_resolve_row('typed', '1', '{"d": {"value": "abc"}}')$$, $$esync_resolve_row('typed', '1', '{"v": {"value": "abcd"}}')$$, $$esync_resolve_row('typed', '2', '{"n": {"value": 1}}')$$,
	$$esync_resolve_row('typed', '1', '{"x": {"value": 1}}')$$, $$esync_resolve_row('typed', '1', '{"n": {"event_id": 99999999999999999999}}')$$, $$esync_resolve_row('typed', '1', '{"n": {"event_id": 1.5}}')$$,
	$$esync_resolve_row('typed', NULL, '{}')$$, $$esync_undo(NULL)$$, $$count(*) FROM esync_conflicts(max_rows => -1)$$]) AS call, LATERAL fails('SELECT ' || call) AS f;

-- NAME: rights and policies
CREATE ROLE dec_reader; CREATE ROLE dec_writer; CREATE ROLE dec_clerk; CREATE ROLE dec_tenant;
GRANT USAGE ON SCHEMA dec TO dec_reader, dec_writer, dec_clerk, dec_tenant;
GRANT SELECT ON ALL TABLES IN SCHEMA dec TO dec_reader, dec_writer, dec_clerk, dec_tenant;
REVOKE SELECT ON plain FROM dec_clerk;
GRANT UPDATE ON block, many, child TO dec_writer;
GRANT UPDATE (c) ON many TO dec_clerk;
CREATE TABLE ids AS SELECT open_one('block', '60', 'title') AS id;
GRANT SELECT ON ids TO PUBLIC;
SET ROLE dec_reader;
SELECT * FROM fails($$SELECT esync_resolve(id, 'server_wins') FROM ids$$);
SELECT * FROM fails($$SELECT esync_resolve_row('many', '1', '{"c": {"value": "x"}}')$$);
SET ROLE dec_clerk;
SELECT told(esync_resolve_row('many', '1', '{"c": {"value": "x"}}'));
SELECT * FROM fails($$SELECT esync_resolve_row('many', '1', '{"a": {"value": "x"}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('plain', '1', '{"a": {"value": "x"}}')$$);
SET ROLE dec_writer;
SELECT told(esync_resolve(id, 'server_wins')) FROM ids;
SELECT * FROM fails($$SELECT esync_resolve_row('child', '1', '{"": {"value": {"deleted": true}}}')$$);
RESET ROLE;
SELECT clash(61, false), clash(62, false);
CREATE POLICY own ON block USING (id = 61);
ALTER TABLE block ENABLE ROW LEVEL SECURITY;
GRANT UPDATE ON block TO dec_tenant;
DELETE FROM ids;
INSERT INTO ids SELECT open_one('block', '62', 'title');
SET ROLE dec_tenant;
SELECT * FROM fails($$SELECT esync_resolve(id, 'server_wins') FROM ids$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '62', '"server_wins"')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '62', '{"title": {"value": "x"}}', expected_version => 1)$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '62', '{"title": {"value": "x"}}')$$);
SELECT * FROM fails($$SELECT esync_resolve_row('block', '63', '{"title": {"value": "x"}}')$$);
SELECT esync_resolve_all('block', 'client_wins');
RESET ROLE;
SELECT id, title FROM block WHERE id IN (61, 62) ORDER BY id;
SELECT * FROM fails($$SET TRANSACTION READ ONLY; SELECT esync_resolve_all('block', 'client_wins')$$);
SELECT * FROM esync_verify('block');
DROP POLICY own ON block;
-- in bulk a row that policies show and do not let change is left, and so is one that a trigger refuses; a grant that is missing is an error
CREATE TABLE shared (id int PRIMARY KEY, owner text, a int);
SELECT esync_enable('shared');
SELECT made($$INSERT INTO shared VALUES (1, 'postgres', 0), (2, 'dec_tenant', 0), (3, 'dec_tenant', 0)$$);
SELECT edit('me', 1, 1, format('UPDATE shared SET a = 1 WHERE id = %s', i)), edit('you', 1, 2, format('UPDATE shared SET a = 2 WHERE id = %s', i)) FROM generate_series(1, 3) AS i;
ALTER TABLE shared ENABLE ROW LEVEL SECURITY;
CREATE POLICY sees ON shared FOR SELECT USING (true);
CREATE POLICY owns ON shared FOR UPDATE USING (owner = current_user);
GRANT SELECT ON shared TO dec_tenant;
CREATE FUNCTION locked() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 3 THEN RAISE EXCEPTION 'row % is locked', NEW.id; END IF; RETURN NEW; END $$;
CREATE TRIGGER locked BEFORE UPDATE ON shared FOR EACH ROW EXECUTE FUNCTION locked();
SET ROLE dec_tenant;
SELECT * FROM fails($$SELECT esync_resolve_all('shared', 'server_wins')$$);
RESET ROLE;
GRANT UPDATE (owner) ON shared TO dec_tenant;
SET ROLE dec_tenant;
SELECT * FROM fails($$SELECT esync_resolve_all('shared', 'server_wins')$$);
RESET ROLE;
GRANT UPDATE ON shared TO dec_tenant;
SET ROLE dec_tenant;
SET client_min_messages TO notice;
SELECT esync_resolve_all('shared', 'server_wins');
SET client_min_messages TO warning;
SELECT aggregate_id FROM esync_conflicts('shared') ORDER BY 1;
RESET ROLE;
SELECT * FROM shared ORDER BY id;
-- by a strategy for the row conflicts in columns that the caller may not read are passed over, and stay hidden
CREATE TABLE veiled (id int PRIMARY KEY, a int, secret int);
SELECT esync_enable('veiled');
SELECT made($$INSERT INTO veiled VALUES (1, 0, 0)$$);
SELECT edit('me', 1, 1, 'UPDATE veiled SET a = 1, secret = 1'), edit('you', 1, 2, 'UPDATE veiled SET a = 2, secret = 2');
GRANT SELECT (id, a), UPDATE (a) ON veiled TO dec_clerk;
SET ROLE dec_clerk;
SELECT told(esync_resolve_row('veiled', '1', '"server_wins"')) #- '{resolved}', told(esync_resolve_row('veiled', '1', '"server_wins"')) #- '{resolved}';
RESET ROLE;
SELECT field, status FROM conflicts WHERE tbl = 'veiled' ORDER BY 1;
SELECT * FROM veiled;
-- NAME: what a contender did to all of a place is his value; the latest one, which shows, is confirmed as the row shows it
CREATE TABLE around (id int PRIMARY KEY, j jsonb);
SELECT esync_enable('around', json_merge => '{j}');
INSERT INTO around SELECT i, '{"a": 1, "b": 1, "c": 1}' FROM generate_series(1, 3) i;
UPDATE around SET j = NULL;
UPDATE around SET j = '{}';
SELECT esync_save('around', format('{"id": %s, "j": {"b": 2, "c": 1}}', i)::jsonb, 1, context => '{"user_id": "ben"}')->'status' FROM generate_series(1, 3) i;
SELECT base_value, shown_value, jsonb_path_query_array(contenders, '$[*].value') AS values FROM esync_conflicts('around', '1');
SELECT esync_resolve_row('around', '1', '"last_write_wins"')->'row', esync_resolve_row('around', '2', '"client_wins"')->'row';
-- NAME: plain SQL that answers both sides of a conflict inside of a column closes it; what it leaves goes on between the others
BEGIN;
UPDATE around SET j = '{"b": 3}' WHERE id = 3;
SELECT field, status, resolution FROM esync_conflicts('around', '3', 'all');
ROLLBACK;
SELECT esync_save('around', '{"id": 3, "j": {"a": 1, "b": 1, "c": 4}}', 1, context => '{"user_id": "cid"}')->'status';
UPDATE around SET j = '{"b": 3, "c": 4}' WHERE id = 3;
SELECT field, status, shown_value, jsonb_path_query_array(contenders, '$[*].user_id') AS users FROM esync_conflicts('around', '3', 'all');
UPDATE around SET j = '{"b": 3, "c": 5}' WHERE id = 3;
SELECT field, status, resolution FROM esync_conflicts('around', '3', 'all');
SELECT * FROM esync_verify('around');

-- NAME: a late edit of a row whose key went away and came back
CREATE TABLE circle (id int PRIMARY KEY, a int, b int, CHECK (a + b < 10));
SELECT esync_enable('circle', on_conflict => 'reject');
INSERT INTO circle VALUES (1, 1, 1);
UPDATE circle SET id = 2;
UPDATE circle SET id = 1, a = 5;
SELECT esync_save('circle', '{"id": 1, "b": 8}', 1) - '{rejected_id,id}'::text[];
SELECT esync_save('circle', '{"id": 1, "b": 2}', 1)->'status', esync_delete('circle', '2', 1)->'status';
SELECT * FROM circle;
SELECT e.aggregate_id, version, event_type, patch, meta FROM esync.event e JOIN esync.tracked_table USING (table_id) WHERE relation = 'circle'::regclass ORDER BY event_id;
SELECT * FROM esync_verify('circle');

-- NAME: a late creation of a row whose key was changed since: all but the key follows it
CREATE TABLE shifted (id int PRIMARY KEY, a text, b text);
SELECT esync_enable('shifted');
SELECT made($$INSERT INTO shifted VALUES (4, 'x', 'x')$$);
UPDATE shifted SET id = 8;
SELECT esync_save('shifted', '{"id": 4, "a": "late"}', 0, context => '{"device_id": "d", "submit_timestamp": "2025-11-19"}')->'status';
SELECT * FROM shifted;
SELECT e.aggregate_id, version, event_type, patch, meta FROM esync.event e JOIN esync.tracked_table USING (table_id) WHERE relation = 'shifted'::regclass ORDER BY event_id;
SELECT * FROM esync_verify('shifted');

-- NAME: a trigger that turns a row away, and a value that the column's type does not take any more, are of that row alone
CREATE TABLE turned (id int PRIMARY KEY, t text, n int);
SELECT esync_enable('turned');
INSERT INTO turned SELECT i, 't', 100 FROM generate_series(1, 3) i;
SELECT esync_save('turned', format('{"id": %s, "n": %s}', i, CASE WHEN i = 2 THEN 40000 ELSE 3 END)::jsonb, 1, context => '{"user_id": "ann"}')->'status' FROM generate_series(1, 3) i;
SELECT esync_save('turned', format('{"id": %s, "n": 2}', i)::jsonb, 1, context => '{"user_id": "ben"}')->'status' FROM generate_series(1, 3) i;
CREATE FUNCTION turn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN new.id <> 1 THEN new END; END $$;
CREATE TRIGGER turn BEFORE UPDATE ON turned FOR EACH ROW EXECUTE FUNCTION turn();
ALTER TABLE turned ALTER n TYPE smallint;
SELECT esync_resolve_all('turned', 'server_wins');
SELECT aggregate_id, status FROM esync_conflicts('turned', status => 'all');

-- NAME: an identity column that is always generated
CREATE TABLE numbered (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY);
SELECT esync_enable('numbered');
INSERT INTO numbered VALUES (1);
SELECT esync_resolve_row('numbered', '1', '{"n": {"value": 7}}');

-- NAME: a row that never was
SELECT esync_resolve_row('turned', '99', '{}');
SELECT esync_resolve_row('turned', '99', '"server_wins"');

DROP OWNED BY dec_reader, dec_writer, dec_clerk, dec_tenant;
DROP ROLE dec_reader, dec_writer, dec_clerk, dec_tenant;
DROP SCHEMA dec CASCADE;
