-- esync_undo of creations, deletes and restores, and of undos of these, in any order: random steps
-- on rows with and without a tombstone, held against a reckoning that knows nothing of stamps.
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE SCHEMA ul;
SET search_path = ul, public;
CREATE TABLE hard (id int PRIMARY KEY, a text, b text, spec jsonb);
SELECT esync_enable('hard', json_merge => '{spec}');
CREATE TABLE soft (id int PRIMARY KEY, a text, b text, spec jsonb, gone timestamptz);
SELECT esync_enable('soft', tombstone => 'gone', json_merge => '{spec}');
CREATE FUNCTION event(tbl regclass, key text, v bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT event_id FROM esync_history(tbl, key) WHERE version = v $$;
CREATE FUNCTION undo(tbl regclass, key text, v bigint) RETURNS TABLE (undone jsonb, kept text, shown jsonb, deleted jsonb) LANGUAGE sql AS $$
SELECT u->'undone',
	(SELECT string_agg(format('%s %s%s', k->'field', k->>'reason', ' by v' || (SELECT h.version FROM esync_history(tbl, key) AS h WHERE to_jsonb(h.event_id) = k->'event_id')), ', ') FROM jsonb_array_elements(u->'kept') AS k),
	CASE WHEN u->'row' <> 'null' THEN jsonb_strip_nulls(u->'row') - 'id' - 'gone' END, u->'deleted'
FROM esync_undo(event(tbl, key, v)) AS u
$$;

-- NAME: a row that was created twice goes with the last of its creations, in whatever order
INSERT INTO hard VALUES (1, 'x');
DELETE FROM hard;
INSERT INTO hard VALUES (1, 'y');
SELECT * FROM undo('hard', '1', 2) UNION ALL SELECT * FROM undo('hard', '1', 1) UNION ALL SELECT * FROM undo('hard', '1', 3);
-- the first creation is back, and the row with what that one said
SELECT * FROM undo('hard', '1', 5);
-- the second one, too: the row shows that one
SELECT * FROM undo('hard', '1', 6);
SELECT * FROM undo('hard', '1', 1);

-- NAME: who takes back the delete of a row whose creation was undone is told what else to take back
INSERT INTO hard VALUES (2, 'x');
DELETE FROM hard WHERE id = 2;
SELECT * FROM undo('hard', '2', 1) UNION ALL SELECT * FROM undo('hard', '2', 2);
SELECT * FROM undo('hard', '2', 3);

-- NAME: a restore lets a row live whose creation is undone; without it the row goes
INSERT INTO soft VALUES (1, 'x');
UPDATE soft SET gone = now();
UPDATE soft SET gone = NULL;
SELECT * FROM undo('soft', '1', 1) UNION ALL SELECT * FROM undo('soft', '1', 2) UNION ALL SELECT * FROM undo('soft', '1', 3);

-- NAME: random steps
-- what a row was told; a word says whether the row lives, sets has the fields
CREATE TABLE told (tbl regclass, id int, v bigint, step text, birth bool NOT NULL, word bool, sets jsonb NOT NULL, undoes bigint,
	put bool NOT NULL DEFAULT false, PRIMARY KEY (tbl, id, v));
-- from which version a row shows a field, or whether it lives ('row'): 0 is nobody's; and by which undo, if any
CREATE TABLE shows (tbl regclass, id int, what text, source bigint, via bigint, PRIMARY KEY (tbl, id, what));
CREATE SEQUENCE dice_seq;
CREATE FUNCTION dice(n int) RETURNS int LANGUAGE sql AS $$ SELECT ('x' || substr(md5('undo ' || nextval('ul.dice_seq')), 1, 7))::bit(28)::int % n $$;

-- which of a row's events are undone, one more than was: who undoes comes later
CREATE FUNCTION withdrawn(t regclass, key int, also bigint DEFAULT NULL) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
	gone bigint[] := CASE WHEN also IS NULL THEN '{}' ELSE ARRAY[also] END;
	e told;
BEGIN
	FOR e IN SELECT * FROM told WHERE tbl = t AND id = key AND undoes IS NOT NULL ORDER BY v DESC LOOP
		IF e.v <> ALL (gone) THEN
			gone := gone || e.undoes;
		END IF;
	END LOOP;
	RETURN gone;
END
$$;

-- the row that it has to be: {"lives": …, "a": …, "b": …, "c": …}
CREATE FUNCTION reckoned(t regclass, key int) RETURNS jsonb LANGUAGE sql AS $$
SELECT jsonb_build_object('lives', coalesce(bool_or(e.word) FILTER (WHERE what = 'row'), false)) ||
	coalesce(jsonb_object_agg(what, e.sets->what) FILTER (WHERE what <> 'row'), '{}')
FROM shows AS s LEFT JOIN told AS e ON e.tbl = t AND e.id = key AND e.v = s.source WHERE s.tbl = t AND s.id = key
$$;

-- the row that there is; of one that is gone no field counts
CREATE FUNCTION found(t regclass, key int) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	r jsonb;
BEGIN
	EXECUTE format('SELECT to_jsonb(r) FROM %s AS r WHERE id = %s', t, key) INTO r;
	RETURN CASE WHEN r IS NULL OR r->>'gone' IS NOT NULL THEN '{"lives": false}' ELSE
		jsonb_build_object('lives', true, 'a', r->'a', 'b', r->'b', 'c', r->'spec'->'k') END;
END
$$;

-- notes what somebody said, who had seen everything
CREATE FUNCTION say(t regclass, key int, step text, birth bool, word bool, sets jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	n bigint := 1 + coalesce((SELECT max(e.v) FROM told AS e WHERE e.tbl = t AND e.id = key), 0);
BEGIN
	INSERT INTO told VALUES (t, key, n, say.step, say.birth, say.word, say.sets);
	INSERT INTO shows SELECT t, key, k, n FROM jsonb_object_keys(say.sets) AS k UNION ALL SELECT t, key, 'row', n WHERE say.word IS NOT NULL
	ON CONFLICT (tbl, id, what) DO UPDATE SET source = n, via = NULL;
END
$$;

-- What an undo makes of the row: what it shows from events that do not count any more
-- it shows from the last of those that do.  The names of what is put back; NULL: nothing may be undone.
CREATE FUNCTION reckon_undo(t regclass, key int, target bigint) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	was bigint[] := withdrawn(t, key);
	gone bigint[] := withdrawn(t, key, target);
	n bigint := 1 + (SELECT max(e.v) FROM told AS e WHERE e.tbl = t AND e.id = key);
	here shows;
	aim told;
	lived bool := (reckoned(t, key)->>'lives')::bool;
	births bool;				-- a creation stands
	ground bigint[];			-- creations that were undone before, where none stands
	taken bool;					-- the creation goes with this very undo
	words bool;					-- who says whether it lives has changed
	final bigint;				-- the last who says so
	lives bool;
	out bigint[];				-- what does not count
	back bigint[];				-- what does again
	names text[] := '{}';
BEGIN
	SELECT * INTO here FROM shows AS s WHERE s.tbl = t AND s.id = key AND what = 'row';
	SELECT * INTO aim FROM told AS e WHERE e.tbl = t AND e.id = key AND e.v = target;
	SELECT bool_or(birth AND e.v <> ALL (gone)), bool_or(birth AND e.v = ANY (gone) AND e.v <> ALL (was)),
		bool_or((word IS NOT NULL OR put) AND (e.v = ANY (gone)) <> (e.v = ANY (was))),
		array_agg(e.v) FILTER (WHERE birth AND e.v = ANY (gone) AND e.v = ANY (was)),
		max(e.v) FILTER (WHERE word IS NOT NULL AND e.v <> ALL (gone))
	INTO births, taken, words, ground, final FROM told AS e WHERE e.tbl = t AND e.id = key;
	lives := coalesce((SELECT word FROM told AS e WHERE e.tbl = t AND e.id = key AND e.v = final), false);
	SELECT coalesce(array_agg(e.v), '{}') INTO back FROM told AS e WHERE e.tbl = t AND e.id = key AND e.v = ANY (was) AND e.v <> ALL (gone);
	IF words AND (here.source = 0 OR here.source = ANY (gone) OR here.via = ANY (gone) OR
		here.via IS NOT NULL AND EXISTS (SELECT FROM told AS e WHERE e.tbl = t AND e.id = key AND e.v = ANY (back) AND e.v > here.source AND e.v < here.via AND e.word IS NOT NULL)) AND
		(lived OR lives OR (final > 0 AND (here.source > 0 OR here.via = ANY (gone)))) THEN
		IF lived AND NOT lives AND EXISTS (SELECT FROM told AS e WHERE e.tbl = t AND e.id = key AND e.v > target AND e.v <> ALL (gone) AND undoes IS NULL AND (birth OR sets <> '{}')) THEN
			RETURN NULL;
		END IF;
		UPDATE shows AS s SET source = coalesce(final, 0), via = n WHERE s.tbl = t AND s.id = key AND what = 'row';
		names := '{row}';
	END IF;
	IF births OR lives OR NOT taken THEN
		SELECT coalesce(array_agg(e.v), '{}') INTO out FROM told AS e WHERE e.tbl = t AND e.id = key AND e.v = ANY (gone) AND
			(births OR NOT birth OR (e.v <> ALL (was) AND ground IS NOT NULL));
		FOR here IN SELECT * FROM shows AS s WHERE s.tbl = t AND s.id = key AND what <> 'row' AND (s.source = ANY (out) OR s.via = ANY (out) OR
			s.via IS NOT NULL AND EXISTS (SELECT FROM told AS e WHERE e.tbl = t AND e.id = key AND e.v = ANY (back) AND e.v > s.source AND e.v < s.via AND e.sets ? s.what)) LOOP
			UPDATE shows AS s SET via = n, source = coalesce((SELECT max(e.v) FROM told AS e WHERE e.tbl = t AND e.id = key AND e.v <> ALL (out) AND e.sets ? here.what), 0)
			WHERE s.tbl = t AND s.id = key AND s.what = here.what;
			names := names || here.what;
		END LOOP;
	END IF;
	INSERT INTO told VALUES (t, key, n, 'undo ' || target, false, NULL, '{}', target, 'row' = ANY (names));
	RETURN names;
END
$$;

-- one step on a row; what is wrong then
CREATE FUNCTION step(t regclass, key int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	is_soft bool := t = 'soft'::regclass;
	there bool;
	lives bool := (found(t, key)->>'lives')::bool;
	n bigint := (SELECT max(e.v) FROM told AS e WHERE e.tbl = t AND e.id = key);
	target bigint;
	value text := 'v' || coalesce(n, 0) + 1;
	wants text[];
	answer jsonb;
	got text[];
BEGIN
	EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE id = %s)', t, key) INTO there;
	IF n IS NOT NULL AND dice(10) < 5 THEN
		target := CASE WHEN dice(2) = 0 THEN n - dice(least(n, 4)::int) ELSE 1 + dice(n::int) END;
		IF target = ANY (withdrawn(t, key)) THEN
			RETURN NULL;
		END IF;
		wants := reckon_undo(t, key, target);
		answer := esync_undo(event(t, key::text, target));
		SELECT coalesce(array_agg(DISTINCT CASE WHEN u IS NULL THEN 'row' WHEN u LIKE 'spec%' THEN 'c' ELSE u END), '{}') INTO got FROM jsonb_array_elements_text(answer->'undone') AS u;
		IF (wants IS NULL) <> (answer->'event_id' = 'null') OR NOT array_remove(wants, 'c') <@ got THEN
			RETURN format('undo %s: undone %s, not %s', target, answer, wants);
		END IF;
	ELSIF NOT there AND dice(3) > 0 OR n IS NULL THEN
		EXECUTE format('INSERT INTO %s VALUES (%s, %L, %L, %L)', t, key, value, value, jsonb_build_object('k', value));
		PERFORM say(t, key, 'insert', true, true, jsonb_build_object('a', value, 'b', value, 'c', value));
	ELSIF NOT lives AND dice(2) = 0 THEN
		PERFORM esync_resolve_row(t, key::text, '{"": {"value": {"deleted": false}}}');
		PERFORM say(t, key, 'resolve', false, true, '{}');
	ELSIF NOT there THEN
		RETURN NULL;
	ELSIF dice(3) = 0 THEN
		EXECUTE format('DELETE FROM %s WHERE id = %s', t, key);
		PERFORM say(t, key, 'delete', false, false, '{}');
	ELSIF is_soft AND (dice(3) = 0 OR NOT lives) THEN
		EXECUTE format('UPDATE %s SET gone = CASE WHEN gone IS NULL THEN now() END WHERE id = %s', t, key);
		PERFORM say(t, key, CASE WHEN lives THEN 'mark' ELSE 'restore' END, false, NOT lives, '{}');
	ELSIF dice(3) = 0 THEN
		EXECUTE format('UPDATE %s SET spec = %L WHERE id = %s', t, jsonb_build_object('k', value), key);
		PERFORM say(t, key, 'c', false, NULL, jsonb_build_object('c', value));
	ELSE
		EXECUTE format('UPDATE %s SET a = %L WHERE id = %s', t, value, key);
		PERFORM say(t, key, 'a', false, NULL, jsonb_build_object('a', value));
	END IF;
	-- which of several creations that are undone is below a row that somebody restored is nobody's matter
	IF (SELECT count(*) > 1 AND bool_and(e.v = ANY (withdrawn(t, key))) FROM told AS e WHERE e.tbl = t AND e.id = key AND birth) THEN
		RETURN CASE WHEN found(t, key)->'lives' <> reckoned(t, key)->'lives' THEN format('the row is %s, not %s', found(t, key), reckoned(t, key)) ELSE '' END;
	END IF;
	IF found(t, key) <> (CASE WHEN reckoned(t, key)->'lives' = 'true' THEN reckoned(t, key) ELSE '{"lives": false}' END) THEN
		RETURN format('the row is %s, not %s', found(t, key), reckoned(t, key));
	END IF;
	RETURN NULL;
END
$$;

-- rows until they go wrong, which they do not; the story of those that did
CREATE FUNCTION walk(t regclass, nrows int, steps int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	wrong text;
BEGIN
	FOR key IN 101 .. 100 + nrows LOOP
		FOR i IN 1 .. steps LOOP
			wrong := step(t, key);
			IF wrong = '' THEN
				EXIT;
			ELSIF wrong IS NOT NULL THEN
				RETURN NEXT format('%s %s: %s: %s', t, key, (SELECT string_agg(format('%s %s', e.v, e.step), ', ' ORDER BY e.v) FROM told AS e WHERE e.tbl = t AND e.id = key), wrong);
				EXIT;
			END IF;
		END LOOP;
	END LOOP;
END
$$;
SELECT * FROM walk('hard', 150, 12);
SELECT * FROM walk('soft', 150, 12);
SELECT tbl, count(undoes) > 500 AS undos, count(*) FILTER (WHERE birth) > 200 AS births FROM told GROUP BY tbl ORDER BY tbl::text;
SELECT * FROM esync_verify('hard') UNION ALL SELECT * FROM esync_verify('soft');

SET search_path = public;
DROP SCHEMA ul CASCADE;
