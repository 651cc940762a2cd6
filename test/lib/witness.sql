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
	FROM (SELECT r.aggregate_id, r.version, r.event_id, r.event_type, r.flags, r.base_version, r.effective_timestamp, r.effective_high, r.submit_timestamp, r.commit_timestamp,
			witness.renamed(r.patch, renamed) AS patch, witness.renamed(r.payload, renamed) AS payload FROM witness.events(tbl) r) AS e
	WINDOW w AS (PARTITION BY e.aggregate_id ORDER BY e.version);
	RETURN QUERY SELECT s.aggregate_id, s.version, 'version gap', s.before::text, NULL FROM state s WHERE s.version <> s.before + 1;
	RETURN QUERY SELECT s.aggregate_id, s.version, 'event_id does not ascend', s.id_before::text, NULL FROM state s WHERE s.event_id <= s.id_before;
	RETURN QUERY SELECT s.aggregate_id, s.version, 'clocks', s.effective_timestamp::text, s.effective_high::text FROM state s
		WHERE s.high <> s.effective_high OR s.commit_timestamp < s.committed_before OR s.submit_timestamp > s.commit_timestamp
			OR s.effective_timestamp < s.effective_high AND s.base_version = s.version - 1;
	RETURN QUERY SELECT s.aggregate_id, s.version, 'payload missing', t.payload, NULL FROM state s
		WHERE s.payload IS NULL AND (s.event_type IN ('Created', 'Baseline') OR s.version % 64 = 0 OR t.payload = 'full' AND s.flags & 32 = 0)
			AND NOT (s.event_type = 'Deleted' AND t.payload = 'changes');
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
	DROP TABLE state;
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
