-- An independent witness: recomputes rows from raw events by SQL alone, and
-- compares.  Loaded by a test with \i; the test drops schema witness at its end.
-- Nothing here calls esync, but for the last statement of witness.differences.
-- estimates for tables without statistics would have each query compiled
SET jit = off;
CREATE SCHEMA witness;

-- RFC 6902 "replace" of top-level members, the only operation of a plain table's patches
CREATE FUNCTION witness.apply(doc jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	op jsonb;
	member text;
BEGIN
	FOR op IN SELECT jsonb_array_elements(patch) LOOP
		member := replace(replace(substr(op->>'path', 2), '~1', '/'), '~0', '~');
		IF op->>'op' <> 'replace' OR left(op->>'path', 1) <> '/' OR NOT op ? 'value' OR (op->>'path') ~ '^/.*/' THEN
			RAISE EXCEPTION 'not a patch of a row: %', op;
		END IF;
		IF NOT doc ? member THEN
			RAISE NOTICE 'patch of a member that the row did not have: %', op;
		END IF;
		doc := doc || jsonb_build_object(member, op->'value');
	END LOOP;
	RETURN doc;
END
$$;

-- the row after an event, from the row before it
CREATE FUNCTION witness.step(state jsonb, event_type text, patch jsonb, payload jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
SELECT CASE
	WHEN event_type = 'Created' THEN payload
	WHEN event_type = 'Deleted' AND patch = '[]' THEN NULL
	WHEN state IS NULL THEN payload
	ELSE witness.apply(state, patch) END
$$;
CREATE AGGREGATE witness.replay(text, jsonb, jsonb) (SFUNC = witness.step, STYPE = jsonb);

-- A stream with late events: the registers of a row, member by member, each with the
-- stamp that set it; the greatest one shows.  Its state after each event, in the
-- order of versions; the patches of json_merge columns and groups are not for here.
CREATE TYPE witness.stamp AS (effective timestamptz, has_device boolean, device text COLLATE "C", seq bigint, event_id bigint);
CREATE TYPE witness.event AS (version bigint, event_type text, flags int, meta jsonb, patch jsonb, payload jsonb, stamp witness.stamp);
CREATE FUNCTION witness.fold(events witness.event[], OUT version bigint, OUT state jsonb) RETURNS SETOF record LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	e witness.event;
	r record;
	gone boolean;
	died witness.stamp;
	members text[] := '{}';		-- three arrays that go together
	docs jsonb[] := '{}';
	stamps witness.stamp[] := '{}';
	ground witness.stamp := ROW('-infinity', false, '', 0, 0);
	i int;
BEGIN
	FOREACH e IN ARRAY events LOOP
		IF e.stamp >= coalesce(died, ground) AND (e.event_type IN ('Created', 'Deleted', 'Restored') OR e.event_type = 'Baseline' AND (e.flags & 32 = 0 OR e.meta ? 'deleted')) THEN
			died := e.stamp;
			gone := e.event_type = 'Deleted' AND e.patch = '[]' OR e.event_type = 'Baseline' AND coalesce(e.meta @> '{"deleted": true}', false);
		END IF;
		FOR r IN
			SELECT m.key, m.value, e.stamp FROM jsonb_each(e.payload) m WHERE e.event_type = 'Created' AND e.patch = '[]'
			UNION ALL
			SELECT m.key, m.value, ground FROM jsonb_each(e.payload) m WHERE e.event_type = 'Created' AND e.patch <> '[]' OR e.event_type = 'Baseline' AND e.flags & 32 = 0
			UNION ALL
			SELECT replace(replace(substr(o.op->>'path', 2), '~1', '/'), '~0', '~'), o.op->'value', e.stamp FROM jsonb_array_elements(e.patch) AS o (op)
		LOOP
			i := array_position(members, r.key);
			IF i IS NULL THEN
				members := members || r.key; docs := docs || r.value; stamps := stamps || r.stamp;
			ELSIF r.stamp > stamps[i] THEN
				docs[i] := r.value; stamps[i] := r.stamp;
			END IF;
		END LOOP;
		version := e.version;
		state := CASE WHEN NOT gone THEN (SELECT jsonb_object_agg(m, d) FROM unnest(members, docs) AS x (m, d)) END;
		RETURN NEXT;
	END LOOP;
END
$$;

CREATE FUNCTION witness.events(tbl regclass) RETURNS SETOF esync.event LANGUAGE sql STABLE AS $$
SELECT e.* FROM esync.event e JOIN esync.tracked_table t USING (table_id) WHERE t.relation = tbl
ORDER BY e.event_id
$$;

-- a table's rows as JSON, under the settings that payloads are made with
CREATE FUNCTION witness.rows(tbl regclass, renamed jsonb, OUT aggregate_id text, OUT doc jsonb) RETURNS SETOF record
LANGUAGE plpgsql SET datestyle = 'ISO' SET intervalstyle = 'postgres' SET extra_float_digits = 1
SET timezone = 'UTC' SET bytea_output = 'hex' SET search_path = pg_catalog SET lc_monetary = 'C'
SET quote_all_identifiers = off SET xmloption = 'content' AS $$
DECLARE
	t esync.tracked_table;
	key text;
BEGIN
	SELECT * INTO STRICT t FROM esync.tracked_table k WHERE k.relation = tbl;
	SELECT string_agg(format(CASE WHEN a.atttypid = 'numeric'::regtype THEN 'pg_catalog.to_jsonb(trim_scale(witness_row.%I))' ELSE 'pg_catalog.to_jsonb(witness_row.%I)' END, a.attname), ', ' ORDER BY k.place)
	INTO key
	FROM unnest(t.key_columns) WITH ORDINALITY AS k (name, place)
	JOIN pg_attribute a ON a.attrelid = tbl AND a.attname = coalesce(renamed->>k.name, k.name);
	key := format(CASE WHEN cardinality(t.key_columns) = 1 THEN '%s #>> ''{}''' ELSE 'jsonb_build_array(%s)::text' END, key);
	RETURN QUERY EXECUTE format('SELECT %s, to_jsonb(witness_row) - %L::text[] FROM %s witness_row', key,
		ARRAY(SELECT coalesce(renamed->>x.n, x.n) FROM unnest(t.exclude) AS x (n)) || ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = tbl AND attgenerated <> ''), tbl);
END
$$;

-- members and paths under the names that columns have now
CREATE FUNCTION witness.renamed(doc jsonb, names jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
SELECT CASE jsonb_typeof(doc)
	WHEN 'object' THEN (SELECT jsonb_object_agg(coalesce(names->>m.key, m.key), m.value) FROM jsonb_each(doc) m)
	WHEN 'array' THEN (SELECT coalesce(jsonb_agg(CASE WHEN names ? substr(op->>'path', 2) THEN op || jsonb_build_object('path', '/' || (names->>substr(op->>'path', 2))) ELSE op END ORDER BY place), '[]')
		FROM jsonb_array_elements(doc) WITH ORDINALITY AS o (op, place)) END
$$;
CREATE FUNCTION witness.only(doc jsonb, members text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
SELECT CASE WHEN doc IS NOT NULL THEN (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}') FROM jsonb_each(doc) m WHERE m.key = ANY (members)) END
$$;

-- Of one row's events: what each sets.  Creations without a patch set all members;
-- what triggers derived (flag 256) is nobody's.
CREATE FUNCTION witness.setters(tbl regclass, renamed jsonb) RETURNS TABLE (aggregate_id text, version bigint, base_version bigint,
	device text, seq bigint, event_type text, field text, value jsonb) LANGUAGE sql STABLE AS $$
SELECT e.aggregate_id, e.version, e.base_version, e.device_id, e.device_seq, e.event_type, coalesce(renamed->>x.key, x.key), x.value
FROM witness.events(tbl) e, LATERAL (
	SELECT m.key, m.value FROM jsonb_each(e.payload) m WHERE e.event_type = 'Created' AND e.patch = '[]'
	UNION ALL
	SELECT replace(replace(substr(o.op->>'path', 2), '~1', '/'), '~0', '~'), o.op->'value' FROM jsonb_array_elements(e.patch) AS o (op)) x
WHERE e.flags & 256 = 0
$$;
CREATE FUNCTION witness.seen(base bigint, device text, seq bigint, version bigint, other text, other_seq bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
SELECT version <= base OR coalesce(device = other AND other_seq < seq, false)
$$;

-- The conflicts that must be open, by who had seen whom: of a field (NULL: a delete
-- against something else), the versions that contend.  Slow, and for short streams.
CREATE FUNCTION witness.clashes(tbl regclass, renamed jsonb DEFAULT '{}') RETURNS TABLE (aggregate_id text, field text, versions bigint[])
LANGUAGE sql STABLE AS $$
WITH t AS (SELECT k.mask || k.exclude || k.last_modified || coalesce(k.tombstone, '')::name AS quiet FROM esync.tracked_table k WHERE k.relation = tbl),
every AS MATERIALIZED (SELECT s.*, e.flags & 256 <> 0 AS derived FROM witness.setters(tbl, renamed) s JOIN witness.events(tbl) e USING (aggregate_id, version), t WHERE s.field <> ALL (t.quiet)),
-- a field of a row that a trigger changed after a merge is left out: what counts there is not what its author sent
s AS MATERIALIZED (
	SELECT c.* FROM every c
	WHERE NOT EXISTS (SELECT FROM every d WHERE d.derived AND d.aggregate_id = c.aggregate_id AND d.field = c.field)),
top AS (
	SELECT * FROM s AS x WHERE NOT EXISTS (SELECT FROM s AS e WHERE e.aggregate_id = x.aggregate_id AND e.field = x.field AND e.version <> x.version
		AND witness.seen(e.base_version, e.device, e.seq, x.version, x.device, x.seq))),
e AS MATERIALIZED (SELECT e.*, e.event_type IN ('Created', 'Deleted', 'Restored') AS writes, e.event_type = 'Deleted' AS kills FROM witness.events(tbl) e),
h AS (
	SELECT * FROM e AS x WHERE writes AND NOT EXISTS (SELECT FROM e AS y WHERE y.writes AND y.aggregate_id = x.aggregate_id AND y.version <> x.version
		AND witness.seen(y.base_version, y.device_id, y.device_seq, x.version, x.device_id, x.device_seq))),
edits AS MATERIALIZED (
	SELECT * FROM e AS x WHERE event_type IN ('Updated', 'Resolved') AND patch <> '[]' AND flags & 256 = 0
		AND NOT EXISTS (SELECT FROM e AS y WHERE y.writes AND y.aggregate_id = x.aggregate_id
			AND witness.seen(y.base_version, y.device_id, y.device_seq, x.version, x.device_id, x.device_seq))),
against AS (
	SELECT d.aggregate_id, d.version AS killer, x.version AS other, x.base_version, x.device_id, x.device_seq, x.writes
	FROM h AS d JOIN (TABLE h UNION ALL TABLE edits) AS x USING (aggregate_id)
	WHERE d.kills AND NOT x.kills
		AND NOT witness.seen(d.base_version, d.device_id, d.device_seq, x.version, x.device_id, x.device_seq)
		AND NOT witness.seen(x.base_version, x.device_id, x.device_seq, d.version, d.device_id, d.device_seq)),
pairs AS (		-- of the edits, those that no other of them had seen
	SELECT * FROM against AS a WHERE writes OR NOT EXISTS (SELECT FROM against AS b WHERE b.aggregate_id = a.aggregate_id AND b.killer = a.killer
		AND NOT b.writes AND b.other <> a.other AND witness.seen(b.base_version, b.device_id, b.device_seq, a.other, a.device_id, a.device_seq)))
SELECT aggregate_id, field, array_agg(version ORDER BY version) FROM top GROUP BY 1, 2 HAVING count(DISTINCT value) > 1
UNION ALL
SELECT aggregate_id, NULL, array_agg(DISTINCT v ORDER BY v) FROM pairs, unnest(ARRAY[killer, other]) AS v GROUP BY 1
$$;

-- Where stream and table disagree; no row when all is well.  added: what rows that
-- were not written since hold in columns added later; renamed: former names.
CREATE FUNCTION witness.differences(tbl regclass, added jsonb DEFAULT '{}', renamed jsonb DEFAULT '{}', unseen boolean DEFAULT false,
	OUT aggregate_id text, OUT version bigint, OUT problem text, OUT stream text, OUT "table" text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
DECLARE
	t esync.tracked_table;
	quiet text[];
	alive text[] := ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = tbl AND attnum > 0 AND NOT attisdropped AND attgenerated = '');
BEGIN
	SELECT * INTO STRICT t FROM esync.tracked_table k WHERE k.relation = tbl;
	SELECT array_agg(coalesce(renamed->>q.n, q.n)) INTO quiet FROM unnest(t.last_modified || t.mask || t.exclude) AS q (n);
	quiet := coalesce(quiet, '{}');
	CREATE TEMP TABLE state ON COMMIT DROP AS
	SELECT e.*, witness.replay(e.event_type, e.patch, e.payload) OVER w AS state,
		lag(e.version, 1, 0::bigint) OVER w AS before, lag(e.event_id, 1, 0::bigint) OVER w AS id_before,
		max(e.effective_timestamp) OVER w AS high, lag(e.commit_timestamp) OVER w AS committed_before,
		lead(e.version) OVER w IS NULL AS last
	FROM (SELECT r.aggregate_id, r.version, r.event_id, r.event_type, r.flags, r.base_version, r.effective_timestamp, r.effective_high, r.submit_timestamp, r.commit_timestamp, r.device_id, r.device_seq, r.meta,
			witness.renamed(r.patch, renamed) AS patch, witness.renamed(r.payload, renamed) AS payload FROM witness.events(tbl) r) AS e
	WINDOW w AS (PARTITION BY e.aggregate_id ORDER BY e.version);
	-- edits whose authors had not seen all that was there
	CREATE TEMP TABLE late ON COMMIT DROP AS
	SELECT s.aggregate_id AS id, (witness.fold(array_agg(ROW(s.version, s.event_type, s.flags, s.meta, s.patch, s.payload,
			ROW(s.effective_timestamp, s.device_id IS NOT NULL, coalesce(s.device_id, ''), coalesce(s.device_seq, 0), s.event_id)::witness.stamp)::witness.event ORDER BY s.version))).*
	FROM state s GROUP BY s.aggregate_id HAVING bool_or(s.base_version < s.version - 1);
	UPDATE state s SET state = l.state FROM late l WHERE s.aggregate_id = l.id AND s.version = l.version;
	RETURN QUERY SELECT s.aggregate_id, s.version, 'place', s.effective_timestamp::text, format('%s, after %s', s.submit_timestamp, b.effective_high)
	FROM state s LEFT JOIN state b ON b.aggregate_id = s.aggregate_id AND b.version = s.base_version
		LEFT JOIN state d ON d.aggregate_id = s.aggregate_id AND d.version = s.base_version + 1 AND d.flags & 256 <> 0 AND d.version < s.version
	WHERE s.event_type <> 'Baseline' AND s.device_seq IS NULL AND s.flags & 64 = 0
		AND s.effective_timestamp <> greatest(s.submit_timestamp, b.effective_high + interval '1 microsecond')
		AND s.effective_timestamp IS DISTINCT FROM greatest(s.submit_timestamp, d.effective_high + interval '1 microsecond');	-- whoever saw a cause saw what it came to
	-- of a device's queue: after what it did before, not after what it did later
	RETURN QUERY SELECT s.aggregate_id, s.version, 'place in the queue', s.effective_timestamp::text, w.due::text
	FROM state s, LATERAL (
		SELECT greatest(least(s.submit_timestamp, min(o.effective_timestamp) FILTER (WHERE o.device_id = s.device_id AND o.device_seq > s.device_seq)),
			max(o.effective_timestamp) FILTER (WHERE o.version <= s.base_version OR o.device_id = s.device_id AND o.device_seq < s.device_seq) + interval '1 microsecond') AS due
		FROM state o WHERE o.aggregate_id = s.aggregate_id AND o.version < s.version) AS w
	WHERE s.device_seq IS NOT NULL AND s.device_id IS NOT NULL AND s.event_type <> 'Baseline' AND s.effective_timestamp <> coalesce(w.due, s.submit_timestamp)
		AND NOT EXISTS (SELECT FROM state d WHERE d.aggregate_id = s.aggregate_id AND d.flags & 256 <> 0);
	IF EXISTS (SELECT FROM late) THEN
		RETURN QUERY
		SELECT coalesce(w.aggregate_id, c.aggregate_id), NULL::bigint, 'conflict of ' || coalesce(w.field, c.field, 'the row'), w.versions::text, c.versions::text
		FROM witness.clashes(tbl, renamed) w
		FULL JOIN (SELECT k.aggregate_id, coalesce(renamed->>k.field, k.field) AS field, ARRAY(SELECT (x->>'version')::bigint FROM jsonb_array_elements(k.contenders) x ORDER BY 1) AS versions
			FROM esync.conflict k WHERE k.table_id = t.table_id AND k.status = 'open' AND k.kind <> 'constraint') c
			ON c.aggregate_id = w.aggregate_id AND coalesce(c.field, '') = coalesce(w.field, '')
		WHERE w.versions IS DISTINCT FROM c.versions
			AND NOT EXISTS (SELECT FROM state s, jsonb_array_elements(s.patch) AS o (op) WHERE s.flags & 256 <> 0
				AND s.aggregate_id = coalesce(w.aggregate_id, c.aggregate_id) AND o.op->>'path' = '/' || coalesce(w.field, c.field))
			AND NOT EXISTS (SELECT FROM state s WHERE s.aggregate_id = coalesce(w.aggregate_id, c.aggregate_id) AND s.event_type = 'Baseline' AND s.flags & 32 <> 0);
	END IF;
	RETURN QUERY SELECT s.aggregate_id, s.version, 'version gap', s.before::text, NULL FROM state s WHERE s.version <> s.before + 1;
	RETURN QUERY SELECT s.aggregate_id, s.version, 'event_id does not ascend', s.id_before::text, NULL FROM state s WHERE s.event_id <= s.id_before;
	RETURN QUERY SELECT s.aggregate_id, s.version, 'clocks', s.effective_timestamp::text, s.effective_high::text FROM state s
		WHERE s.high <> s.effective_high OR s.commit_timestamp < s.committed_before OR s.submit_timestamp > s.commit_timestamp
			OR s.effective_timestamp < s.effective_high AND s.base_version = s.version - 1;
	RETURN QUERY SELECT s.aggregate_id, s.version, 'payload missing', t.payload, NULL FROM state s
		WHERE s.payload IS NULL AND (s.event_type IN ('Created', 'Baseline') OR s.version % 64 = 0 OR t.payload = 'full' AND s.flags & 32 = 0)
			AND NOT (s.event_type = 'Deleted' AND t.payload = 'changes')
			AND NOT (s.flags & 2 <> 0 AND s.state IS NULL);
	RETURN QUERY SELECT p.* FROM (SELECT s.aggregate_id, s.version, 'payload',
				(witness.only(added, m.names) || witness.only(s.state, m.names || alive) - quiet)::text, (s.payload - quiet)::text
			FROM state s, LATERAL (SELECT ARRAY(SELECT jsonb_object_keys(s.payload)) AS names) m
			WHERE s.state IS NOT NULL AND s.payload IS NOT NULL) AS p (a, v, p, s, t)
		WHERE p.s <> p.t;
	RETURN QUERY
	WITH here AS (
		SELECT r.aggregate_id, (r.doc - quiet)::text AS doc FROM witness.rows(tbl, renamed) r),
	there AS (
		SELECT s.aggregate_id, s.version, (added || witness.only(s.state, alive) - quiet)::text AS doc FROM state s WHERE s.last)
	SELECT coalesce(h.aggregate_id, e.aggregate_id), e.version, 'row', e.doc, h.doc
	FROM here h FULL JOIN there e USING (aggregate_id)
	WHERE e.doc IS DISTINCT FROM h.doc AND NOT (unseen AND e.version IS NULL);
	DROP TABLE state, late;
	RETURN QUERY SELECT v.aggregate_id, NULL::bigint, 'esync_verify: ' || v.problem, v.detail::text, NULL FROM public.esync_verify(tbl) v;
END
$$;

-- the stream of a table without its clocks, ids and roles
CREATE FUNCTION witness.stream(tbl regclass) RETURNS TABLE (aggregate_id text, version bigint, base_version bigint, event_type text,
	patch jsonb, payload jsonb, flags int)
LANGUAGE sql STABLE AS $$
SELECT aggregate_id, version, base_version, event_type, patch, payload, flags FROM witness.events(tbl)
$$;

-- how a statement is refused; "accepted" where it is not (and undone all the same)
CREATE FUNCTION witness.refused(statement text, OUT code text, OUT message text, OUT detail text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RAISE EXCEPTION USING ERRCODE = '00001', MESSAGE = 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END
$$;
