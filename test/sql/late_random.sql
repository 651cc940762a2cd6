-- Random statements and batches on random bases: after every few the witness
-- recomputes rows, places and conflicts of all tables from the raw events.
-- What is drawn depends on the server's version, and times on the clock: it is
-- never printed, but for what is wrong.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
CREATE SCHEMA fz;
SET search_path = fz, public;
CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF random() < 0.3 THEN NEW.counted := coalesce(NEW.counted, 0) + 1; END IF; IF random() < 0.05 THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF pg_trigger_depth() = 1 AND random() < 0.2 THEN UPDATE fz.trig SET b = 'touched' || random() WHERE id = NEW.id; END IF; RETURN NULL; END $$;
CREATE TABLE flat (id int PRIMARY KEY, a text, b text, n int);
CREATE TABLE chg (id int PRIMARY KEY, a text, b text, n int);
CREATE TABLE soft (id int PRIMARY KEY, a text, b text, n int, gone timestamptz);
CREATE TABLE trig (id int PRIMARY KEY, a text, b text, n int, counted int);
CREATE TABLE part (id int NOT NULL, a text, b text, n int) PARTITION BY LIST (a);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN ('a0', 'a1');
CREATE TABLE part_2 (n int, b text, a text, id int NOT NULL);
ALTER TABLE part ATTACH PARTITION part_2 DEFAULT;
CREATE TRIGGER count_up BEFORE UPDATE ON trig FOR EACH ROW EXECUTE FUNCTION count_up();
CREATE TRIGGER "0_a" AFTER UPDATE ON trig FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER z AFTER UPDATE ON trig FOR EACH ROW EXECUTE FUNCTION touch();
SELECT esync_enable('flat'), esync_enable('chg', payload => 'changes'), esync_enable('soft', tombstone => 'gone'), esync_enable('trig'), esync_enable('part', key => '{id}');
INSERT INTO part SELECT i, 'a' || i, 'b', 0 FROM generate_series(1, 4) i;
SELECT setseed(0.5);
CREATE PROCEDURE one(tbl text, i int) LANGUAGE plpgsql AS $$
DECLARE
	k int := 1 + floor(random() * 4);
	head bigint := coalesce((SELECT max(version) FROM witness.events(('fz.' || tbl)::regclass) WHERE aggregate_id = k::text), 0);
	base bigint := CASE WHEN random() < 0.85 THEN greatest(0, head - floor(random() * 5)::int) END;
	dev text := CASE WHEN random() < 0.7 THEN 'd' || floor(random() * 3)::int END;
	sub timestamptz := CASE WHEN random() < 0.7 THEN '2030-01-01Z'::timestamptz - random() * interval '20 years' END;
	va text := 'a' || floor(random() * 3)::int;
	vb text := CASE WHEN random() < 0.2 THEN NULL ELSE 'b' || floor(random() * 3)::int END;
	vn int := floor(random() * 3);
	st timestamptz;
	old jsonb;
	ev jsonb;
	r jsonb;
	what float := random();
	seq int;
BEGIN
	IF random() < 0.4 AND tbl <> 'part' THEN
		-- a batch
		st := coalesce(sub, now());
		ev := jsonb_build_object('id', gen_random_uuid(), 'table', 'fz.' || tbl, 'key', k, 'submit_timestamp', st);
		IF dev IS NOT NULL AND random() < 0.9 THEN
			seq := CASE WHEN random() < 0.3 THEN greatest(1, i - 40 + floor(random() * 30)::int) ELSE i END;
			ev := ev || jsonb_build_object('seq', seq);
			-- what a device has seen of a row grows with its seq
			base := least(greatest(coalesce(base, head), (SELECT max(base_version) FROM witness.events(('fz.' || tbl)::regclass) WHERE aggregate_id = k::text AND device_id = dev AND device_seq < seq)),
				(SELECT least(min(version) - 1, min(base_version)) FROM witness.events(('fz.' || tbl)::regclass) WHERE aggregate_id = k::text AND device_id = dev AND device_seq > seq));
		END IF;
		old := jsonb_strip_nulls(jsonb_build_object('a', va, 'n', vn)) || CASE WHEN random() < 0.5 THEN jsonb_build_object('b', vb) ELSE '{}' END;
		ev := ev || CASE WHEN what < 0.15 THEN jsonb_build_object('op', 'delete', 'base_version', coalesce(base, head))
			WHEN what < 0.25 THEN jsonb_build_object('op', 'restore', 'base_version', coalesce(base, head))
			WHEN what < 0.35 THEN jsonb_build_object('op', 'create', 'document', old || jsonb_build_object('id', k)) || CASE WHEN seq IS NOT NULL OR random() < 0.5 THEN jsonb_build_object('base_version', coalesce(base, head)) ELSE '{}' END
			WHEN what < 0.5 THEN jsonb_build_object('op', 'save', 'base_version', coalesce(base, head), 'document', old || jsonb_build_object('id', k))
			WHEN what < 0.6 AND seq IS NULL THEN jsonb_build_object('op', 'update', 'branch_timestamp', now() - random() * interval '1 minute', 'set', old)
			ELSE jsonb_build_object('op', 'update', 'base_version', coalesce(base, head), 'set', old) END;
		r := public.esync_submit(jsonb_build_object('device_id', coalesce(dev, 'dx'), 'events', jsonb_build_array(ev)));
		RETURN;
	END IF;
	PERFORM public.esync_context('u', dev, base_version => CASE WHEN random() < 0.8 THEN base END, branch_timestamp => CASE WHEN random() < 0.2 THEN clock_timestamp() - random() * interval '1 minute' END, submit_timestamp => sub);
	IF tbl = 'soft' AND what < 0.2 THEN
		UPDATE fz.soft SET gone = CASE WHEN gone IS NULL THEN now() END WHERE id = k;
	ELSIF what < 0.12 THEN EXECUTE format('DELETE FROM fz.%I WHERE id = $1', tbl) USING k;
	ELSIF what < 0.3 AND tbl <> 'part' THEN EXECUTE format('INSERT INTO fz.%I (id, a, b, n) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET a = excluded.a, b = excluded.b', tbl) USING k, va, vb, vn;
	ELSIF what < 0.3 THEN EXECUTE format('INSERT INTO fz.%I (id, a, b, n) SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT FROM fz.%1$I WHERE id = $1)', tbl) USING k, va, vb, vn;
	ELSIF what < 0.5 THEN EXECUTE format('UPDATE fz.%I SET a = $2, b = $3, n = $4 WHERE id = $1', tbl) USING k, va, vb, vn;
	ELSIF what < 0.65 THEN EXECUTE format('UPDATE fz.%I SET a = $2 WHERE id = $1', tbl) USING k, va;
	ELSIF what < 0.8 THEN EXECUTE format('UPDATE fz.%I SET b = $2 WHERE id = $1', tbl) USING k, vb;
	ELSIF what < 0.9 THEN EXECUTE format('UPDATE fz.%I SET n = n + 1 WHERE id = $1', tbl) USING k;
	ELSE EXECUTE format('UPDATE fz.%I SET b = $2 WHERE id = $1', tbl) USING k, vb; EXECUTE format('UPDATE fz.%I SET a = $2 WHERE id = $1', tbl) USING k, va; END IF;
	PERFORM public.esync_context();
END $$;
CREATE PROCEDURE go(n int) LANGUAGE plpgsql AS $$
DECLARE t text; d text;
BEGIN
	FOR i IN 1 .. n LOOP
		FOREACH t IN ARRAY '{flat,chg,soft,trig,part}'::text[] LOOP
			CALL fz.one(t, i);
			COMMIT;
		END LOOP;
		IF i % 10 = 0 THEN
			FOREACH t IN ARRAY '{flat,chg,soft,trig,part}'::text[] LOOP
				SELECT string_agg(format('%s', x), E'\n') INTO d FROM (SELECT x FROM witness.differences(('fz.' || t)::regclass) x LIMIT 5) x;
				COMMIT;
				IF d IS NOT NULL THEN RAISE EXCEPTION '% after %: %', t, i, d; END IF;
			END LOOP;
		END IF;
	END LOOP;
END $$;
SET search_path = pg_catalog;
CALL fz.go(100);
-- an edit that comes after a later one of its own device had been replaced by that: no conflict with who had seen the later one
CREATE TABLE fz.queue (id int PRIMARY KEY, a text);
SELECT public.esync_enable('fz.queue');
INSERT INTO fz.queue VALUES (1, 'a');
CREATE FUNCTION fz.send(device text, seq int, base int, a text) RETURNS text LANGUAGE sql AS $$
SELECT public.esync_submit(jsonb_build_object('device_id', device, 'events', jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'seq', seq, 'table', 'fz.queue', 'op', 'update', 'key', 1, 'base_version', base, 'set', jsonb_build_object('a', a)))))->'results'->0->>'status'
$$;
SELECT fz.send('d1', 69, 1, 'x'), fz.send('d1', 60, 1, 'y'), fz.send('d2', 1, 2, 'z');
SELECT version, base_version, device_id, device_seq, patch, payload, flags FROM witness.events('fz.queue');
SELECT * FROM witness.differences('fz.queue');
-- much has happened
SELECT count(*) > 150 AS events, count(*) FILTER (WHERE base_version < version - 1) > 40 AS late, count(*) FILTER (WHERE flags & 2 <> 0) > 5 AS rowless, count(*) FILTER (WHERE flags & 256 <> 0) > 0 AS derived, count(DISTINCT event_type) >= 4 AS types FROM esync.event JOIN esync.tracked_table USING (table_id) WHERE schema_name = 'fz';
SELECT count(*) FILTER (WHERE status = 'open') > 3 AS open, count(*) FILTER (WHERE status = 'closed') > 3 AS closed, count(DISTINCT kind) > 1 AS kinds FROM esync.conflict JOIN esync.tracked_table USING (table_id) WHERE schema_name = 'fz';
DO $$ BEGIN PERFORM public.esync_disable(relation, true) FROM esync.tracked_table WHERE schema_name = 'fz'; END $$;
DELETE FROM esync.submission WHERE device_id ~ '^d[x0-2]$';
DELETE FROM esync.rejected WHERE device_id ~ '^d[x0-2]$';
DROP SCHEMA fz, witness CASCADE;
