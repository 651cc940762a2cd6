/*
 * The other side of the property test: what happened to the tables, seen by
 * triggers in PL/pgSQL that share nothing with esync, and the state of the
 * tables as SQL alone recomputes it from the raw rows of esync.event.  No
 * function of esync is called here but in chk.compare_readers, which holds
 * the reading functions against the recomputation.
 */
CREATE SCHEMA chk;

-- a table under test; columns by attnum, so that renames do not matter
CREATE TABLE chk.config (
	relid oid PRIMARY KEY, tracked boolean NOT NULL DEFAULT false, table_id integer,
	keys smallint[] NOT NULL, exclude smallint[] NOT NULL DEFAULT '{}', mask smallint[] NOT NULL DEFAULT '{}',
	stamps smallint[] NOT NULL DEFAULT '{}', tombstone smallint, tenant smallint, payload text NOT NULL DEFAULT 'full',
	retyped smallint[] NOT NULL DEFAULT '{}',	-- values of former days have another form
	moves boolean NOT NULL DEFAULT false,	-- rows move between partitions and keep their key
	hidden text[], masked jsonb,			-- present names, by chk.refresh
	key_sql text, doc_sql text, shot_sql text, same_sql text, dead_sql text);
-- names of columns, from which event on; NULL: dropped
CREATE TABLE chk.name (relid oid, attnum smallint, name text, from_event bigint, serial bigserial);
-- what rows hold that were there before ADD COLUMN ... DEFAULT
CREATE TABLE chk.fill (relid oid, attnum smallint, value jsonb);
-- every change of every row, by triggers
CREATE TABLE chk.witness (
	id bigserial, relid oid, xid xid8, op text, agg_old text, agg_new text, changed boolean, doc_old jsonb, doc_new jsonb,
	dead_old boolean, dead_new boolean, usr text, device text, submit text, branch text, sent_at text, meta text);
CREATE INDEX ON chk.witness (relid);
-- aggregates whose row was changed while nobody recorded: excused until their next event
CREATE TABLE chk.shot (relid oid, agg text, doc jsonb);
CREATE TABLE chk.dirty (relid oid, agg text, since_event bigint);

-- json that jsonb cannot hold is kept as a string
CREATE FUNCTION chk.json_doc(j json) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN j::jsonb;
EXCEPTION WHEN data_exception OR untranslatable_character OR program_limit_exceeded THEN
	RETURN to_jsonb(j::text);
END $$;

CREATE FUNCTION chk.key_of_column(name name, typ oid) RETURNS text LANGUAGE sql AS $$
SELECT format(CASE WHEN typ = 'numeric'::regtype THEN 'to_jsonb(trim_scale(($1).%I))' ELSE 'to_jsonb(($1).%I)' END, name)
$$;

-- the SQL that makes key and document of a row, for the columns as they are now
CREATE FUNCTION chk.refresh(rel oid) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog AS $$
DECLARE
	c chk.config;
	has_json boolean;
	n text;
BEGIN
	SELECT * INTO STRICT c FROM chk.config WHERE relid = rel;
	SELECT coalesce(array_agg(attname::text), '{}') INTO c.hidden FROM pg_attribute
	WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped AND (attgenerated <> '' OR attnum = ANY (c.exclude));
	SELECT coalesce(jsonb_object_agg(attname, '***'), '{}') INTO c.masked FROM pg_attribute
	WHERE attrelid = rel AND attnum = ANY (c.mask) AND NOT attisdropped;
	SELECT CASE WHEN count(*) = 1 THEN format('%s #>> ''{}''', min(chk.key_of_column(attname, atttypid)))
		ELSE format('jsonb_build_array(%s)::text', string_agg(chk.key_of_column(attname, atttypid), ', ' ORDER BY array_position(c.keys, attnum)))
		END INTO c.key_sql
	FROM pg_attribute WHERE attrelid = rel AND attnum = ANY (c.keys);
	SELECT bool_or(atttypid = 'json'::regtype OR typbasetype = 'json'::regtype) INTO has_json
	FROM pg_attribute a JOIN pg_type t ON t.oid = atttypid
	WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped;
	SELECT format('(SELECT jsonb_object_agg(k, v) FROM (VALUES %s) AS x (k, v))', string_agg(format(
			CASE WHEN atttypid = 'json'::regtype OR typbasetype = 'json'::regtype THEN '(%L, chk.json_doc(($1).%I))'
			ELSE '(%L, to_jsonb(($1).%I))' END, attname, attname), ', ')),
		format('ROW(%s)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record',
			string_agg(format('($1).%I', attname), ', ' ORDER BY attnum) FILTER (WHERE attnum <> ALL (c.stamps)),
			string_agg(format('($2).%I', attname), ', ' ORDER BY attnum) FILTER (WHERE attnum <> ALL (c.stamps)))
	INTO c.doc_sql, c.same_sql
	FROM pg_attribute a JOIN pg_type t ON t.oid = atttypid
	WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attnum <> ALL (c.exclude);
	c.doc_sql := format('((%s - %L::text[]) || %L::jsonb)', CASE WHEN has_json THEN c.doc_sql ELSE 'to_jsonb($1)' END, c.hidden, c.masked);
	SELECT string_agg(quote_literal(attname), ', ') INTO n FROM pg_attribute
	WHERE attrelid = rel AND attnum = ANY (c.stamps || c.mask) AND NOT attisdropped;
	c.shot_sql := c.doc_sql || coalesce(format(' - ARRAY[%s]::text[]', n), '');
	SELECT format('($1).%I IS NOT NULL', attname) INTO c.dead_sql FROM pg_attribute WHERE attrelid = rel AND attnum = c.tombstone;
	UPDATE chk.config k SET hidden = c.hidden, masked = c.masked, key_sql = c.key_sql, doc_sql = c.doc_sql, shot_sql = c.shot_sql,
		same_sql = c.same_sql, dead_sql = coalesce(c.dead_sql, 'false')
	WHERE k.relid = rel;
	-- names that are new
	INSERT INTO chk.name (relid, attnum, name, from_event)
	SELECT rel, attnum, CASE WHEN NOT attisdropped THEN attname END, (SELECT last_value + 1 FROM esync.event_id_seq)
	FROM pg_attribute a
	WHERE attrelid = rel AND attnum > 0 AND (CASE WHEN NOT attisdropped THEN attname END) IS DISTINCT FROM
		(SELECT o.name FROM chk.name o WHERE o.relid = rel AND o.attnum = a.attnum ORDER BY serial DESC LIMIT 1);
	UPDATE chk.name SET from_event = 0 WHERE relid = rel AND NOT c.tracked AND c.table_id IS NULL;
END $$;

CREATE FUNCTION chk.witness() RETURNS trigger LANGUAGE plpgsql
SET TimeZone = 'UTC' SET DateStyle = 'ISO' SET IntervalStyle = 'postgres' SET extra_float_digits = 1 SET bytea_output = 'hex'
SET search_path = 'pg_catalog' SET lc_monetary = 'C' SET quote_all_identifiers = off SET xmloption = content AS $$
DECLARE
	c chk.config;
	w chk.witness;
BEGIN
	SELECT * INTO STRICT c FROM chk.config WHERE relid = TG_ARGV[0]::oid;
	IF NOT c.tracked OR current_setting('esync.enabled') = 'off' THEN
		RETURN NULL;
	END IF;
	w.relid := c.relid;
	w.xid := pg_current_xact_id();
	w.op := TG_OP;
	w.changed := true;
	w.usr := coalesce(nullif(current_setting('esync.user_id', true), ''), session_user);
	w.device := nullif(current_setting('esync.device_id', true), '');
	w.submit := nullif(current_setting('esync.submit_timestamp', true), '');
	w.branch := nullif(current_setting('esync.branch_timestamp', true), '');
	w.sent_at := nullif(current_setting('esync.sent_at', true), '');
	w.meta := nullif(current_setting('esync.meta', true), '');
	IF TG_LEVEL = 'STATEMENT' THEN		-- TRUNCATE
		EXECUTE format('INSERT INTO chk.witness (relid, xid, op, agg_old, changed, doc_old, dead_old, usr, device, submit, branch, sent_at, meta)
			SELECT %s, %L, ''DELETE'', k.*, d.*, %L, %L, %L, %L, %L, %L FROM %s.%s AS r,
			LATERAL (SELECT %s) AS k, LATERAL (SELECT true, %s, %s) AS d', c.relid, w.xid, w.usr, w.device, w.submit, w.branch, w.sent_at, w.meta,
			quote_ident(TG_TABLE_SCHEMA), quote_ident(TG_TABLE_NAME),
			replace(c.key_sql, '($1)', '(r)'), replace(replace(c.doc_sql, '($1)', '(r)'), '$1', 'r'), replace(c.dead_sql, '($1)', '(r)'));
		RETURN NULL;
	ELSIF TG_OP = 'INSERT' THEN
		EXECUTE format('SELECT %s, %s, %s', c.key_sql, c.doc_sql, c.dead_sql) INTO w.agg_new, w.doc_new, w.dead_new USING NEW;
	ELSE
		EXECUTE format('SELECT %s, %s, %s', c.key_sql, c.doc_sql, c.dead_sql) INTO w.agg_old, w.doc_old, w.dead_old USING OLD;
		IF TG_OP = 'UPDATE' THEN
			EXECUTE format('SELECT %s, %s, %s', c.key_sql, c.doc_sql, c.dead_sql) INTO w.agg_new, w.doc_new, w.dead_new USING NEW;
			EXECUTE format('SELECT %s', c.same_sql) INTO w.changed USING OLD, NEW;
		END IF;
	END IF;
	w.id := nextval('chk.witness_id_seq');
	INSERT INTO chk.witness SELECT w.*;
	RETURN NULL;
END $$;

-- the rows of a table under the pinned settings; shot: without what has no register
CREATE FUNCTION chk.rows(rel oid, shot boolean) RETURNS TABLE (agg text, doc jsonb, dead boolean) LANGUAGE plpgsql
SET TimeZone = 'UTC' SET DateStyle = 'ISO' SET IntervalStyle = 'postgres' SET extra_float_digits = 1 SET bytea_output = 'hex'
SET search_path = 'pg_catalog' SET lc_monetary = 'C' SET quote_all_identifiers = off SET xmloption = content AS $$
DECLARE
	c chk.config;
BEGIN
	SELECT * INTO STRICT c FROM chk.config WHERE relid = rel;
	RETURN QUERY EXECUTE format('SELECT %s, %s, %s FROM %s AS r', replace(c.key_sql, '($1)', '(r)'),
		replace(replace(CASE WHEN shot THEN c.shot_sql ELSE c.doc_sql END, '($1)', '(r)'), '$1', 'r'),
		replace(c.dead_sql, '($1)', '(r)'), rel::regclass);
END $$;

-- a document by the numbers of its columns; what is null is left out
CREATE FUNCTION chk.by_number(rel oid, doc jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
SELECT coalesce(jsonb_object_agg(a.attnum, d.value), '{}')
FROM jsonb_each(doc) AS d JOIN pg_attribute a ON a.attrelid = rel AND a.attname = d.key
WHERE d.value <> 'null'
$$;

-- before and after what is not recorded
CREATE FUNCTION chk.before_blind(rel oid) RETURNS void LANGUAGE sql AS $$
DELETE FROM chk.shot WHERE relid = rel;
INSERT INTO chk.shot SELECT rel, agg, chk.by_number(rel, doc) FROM chk.rows(rel, true);
$$;
CREATE FUNCTION chk.after_blind(rel oid) RETURNS void LANGUAGE sql AS $$
INSERT INTO chk.dirty
SELECT rel, agg, (SELECT last_value FROM esync.event_id_seq)
FROM (SELECT agg, doc - ARRAY(SELECT attnum::text FROM pg_attribute WHERE attrelid = rel AND attisdropped) AS doc
	FROM chk.shot WHERE relid = rel) AS o
FULL JOIN chk.rows(rel, true) AS n USING (agg)
WHERE o.doc::text IS DISTINCT FROM chk.by_number(rel, n.doc)::text;
$$;

CREATE FUNCTION chk.is_dirty(rel oid, a text) RETURNS boolean LANGUAGE sql STABLE AS $$
SELECT EXISTS (SELECT FROM chk.dirty d WHERE d.relid = rel AND d.agg = a AND NOT EXISTS (
	SELECT FROM esync.event e JOIN chk.config c USING (table_id)
	WHERE c.relid = rel AND e.aggregate_id = a AND e.event_id > d.since_event))
$$;

/*
 * The fold: the registers of all events within bounds, by (effective,
 * device_id, device_seq, event_id), NULL lowest; written from the rules alone.
 */
CREATE FUNCTION chk.fold(rel oid, as_of timestamptz DEFAULT 'infinity', known_at timestamptz DEFAULT 'infinity')
RETURNS TABLE (agg text, gone boolean, doc jsonb) LANGUAGE sql STABLE SET jit = off SET enable_nestloop = off AS $$
WITH c AS MATERIALIZED (SELECT * FROM chk.config WHERE relid = rel),
e AS MATERIALIZED (
	SELECT e.*, coalesce(device_id, '') COLLATE "C" AS dev, device_id IS NOT NULL AS has_dev, coalesce(device_seq, 0) AS seq,
		event_type IN ('Created', 'Baseline') AND (event_type = 'Created' OR flags & 32 = 0) AS whole
	FROM esync.event e
	-- the ground was known before it was written down
	WHERE table_id = (SELECT table_id FROM c)
		AND (effective_timestamp = '-infinity' OR effective_timestamp <= as_of AND commit_timestamp <= known_at)),
spans AS MATERIALIZED (
	SELECT attnum, name, from_event, coalesce(lead(from_event) OVER (PARTITION BY attnum ORDER BY serial), 9e18::bigint) AS to_event
	FROM chk.name WHERE relid = rel),
edits AS (
	SELECT e.aggregate_id, e.event_id, e.effective_timestamp, has_dev, dev, seq, m.key AS name, m.value
	FROM e, jsonb_each(e.payload) AS m WHERE whole
	UNION ALL
	SELECT e.aggregate_id, e.event_id, e.effective_timestamp, has_dev, dev, seq,
		replace(replace(substr(o.op ->> 'path', 2), '~1', '/'), '~0', '~'), o.op -> 'value'
	FROM e, jsonb_array_elements(e.patch) AS o (op)),
registers AS (
	SELECT DISTINCT ON (d.aggregate_id, s.attnum) d.aggregate_id, s.attnum, d.value
	FROM edits d JOIN spans s ON s.name = d.name AND d.event_id >= s.from_event AND d.event_id < s.to_event
	ORDER BY d.aggregate_id, s.attnum, d.effective_timestamp DESC, has_dev DESC, dev DESC, seq DESC, d.event_id DESC),
ends AS (
	SELECT DISTINCT ON (aggregate_id) aggregate_id,
		event_type = 'Deleted' AND patch = '[]' OR event_type = 'Baseline' AND coalesce(meta @> '{"deleted": true}' AND payload IS NULL, false) AS gone
	FROM e
	WHERE event_type IN ('Created', 'Deleted', 'Restored') OR event_type = 'Baseline' AND (whole OR meta ? 'deleted')
	ORDER BY aggregate_id, effective_timestamp DESC, has_dev DESC, dev DESC, seq DESC, event_id DESC),
fields AS MATERIALIZED (
	SELECT a.attnum, a.attname::text AS name, coalesce(f.value, 'null') AS fill
	FROM c JOIN pg_attribute a ON a.attrelid = rel LEFT JOIN chk.fill f ON f.relid = rel AND f.attnum = a.attnum
	WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (c.hidden) AND a.attnum <> ALL (c.mask || c.stamps))
SELECT n.aggregate_id, n.gone, jsonb_object_agg(f.name, coalesce(r.value, f.fill))
FROM ends n CROSS JOIN fields f LEFT JOIN registers r ON r.aggregate_id = n.aggregate_id AND r.attnum = f.attnum
GROUP BY n.aggregate_id, n.gone
$$;

-- everything that one event must fulfil among its aggregate's
CREATE FUNCTION chk.order(rel oid) RETURNS TABLE (agg text, problem text) LANGUAGE sql STABLE AS $$
WITH e AS (
	SELECT e.*, event_type = 'Deleted' AND patch = '[]' OR event_type = 'Baseline' AND coalesce(meta @> '{"deleted": true}', false) AS gone,
		row_number() OVER w AS n, lag(event_id) OVER w AS last_id, lag(event_type = 'Deleted' AND patch = '[]') OVER w AS last_gone, lag(commit_timestamp) OVER w AS last_commit,
		lag(xid) OVER w AS last_xid,
		max(effective_timestamp) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS last_high,
		max(effective_timestamp) OVER (w ROWS UNBOUNDED PRECEDING) AS high
	FROM esync.event e WHERE table_id = (SELECT table_id FROM chk.config WHERE relid = rel)
	WINDOW w AS (PARTITION BY aggregate_id ORDER BY version))
SELECT e.aggregate_id, format('%s at version %s (event %s %s)', p.problem, e.version, e.event_id, e.event_type)
FROM e CROSS JOIN LATERAL (VALUES
	(version <> n, 'versions have a gap or a duplicate'),
	(n = 1 AND event_type NOT IN ('Created', 'Baseline'), 'the first event is neither Created nor Baseline'),
	(event_id <= last_id, 'event_id does not ascend with version'),
	(commit_timestamp < last_commit, 'commit_timestamp goes back'),
	(commit_timestamp > clock_timestamp() + interval '1 s', 'commit_timestamp is in the future'),
	(base_version <> version - 1, 'base_version is not the version before'),
	(n > 1 AND effective_timestamp <= last_high, 'effective_timestamp does not exceed what was seen'),
	(effective_high <> high, 'effective_high is not the highest'),
	(event_type = 'Baseline' AND n = 1 AND effective_timestamp <> '-infinity', 'the ground is not -infinity'),
	(event_type = 'Baseline' AND n > 1 AND (flags & 32 = 0), 'a late Baseline without flag'),
	(event_type <> 'Baseline' AND effective_timestamp = '-infinity', 'effective_timestamp is -infinity'),
	(event_type <> 'Baseline' AND effective_timestamp < submit_timestamp, 'effective_timestamp before submit'),
	(event_type <> 'Baseline' AND (flags & 16 <> 0) <> (effective_timestamp > submit_timestamp), 'flag 16 is wrong'),
	(event_type <> 'Baseline' AND effective_timestamp > submit_timestamp AND effective_timestamp > last_high + interval '1 us'
		AND NOT (coalesce(meta, '{}') ? 'moved_from'), 'effective_timestamp is later than need be'),
	(submit_timestamp > commit_timestamp, 'submit_timestamp in the future'),
	(flags & ~(127 | 1024) <> 0, 'unknown flags'),
	(flags & 1024 <> 0 AND device_id IS NULL, 'flag 1024 without a device'),
	(flags & 2 <> 0, 'flag 2 on plain SQL'),
	((flags & 64 <> 0) <> (coalesce(meta, '{}') ?| '{moved_to,moved_from}'), 'flag 64 is wrong'),
	(event_type = 'Deleted' AND flags & 1 = 0, 'a Deleted without flag 1'),
	(event_type = 'Restored' AND flags & 1 <> 0, 'a Restored with flag 1'),
	(gone AND row_xmin <> '0', 'row_xmin where there is no row'),
	(NOT gone AND row_xmin = '0', 'no row_xmin'),
	(gone AND event_type = 'Baseline' AND (patch <> '[]' OR payload IS NOT NULL OR flags & 1 = 0), 'a Baseline of a row that is gone'),
	(event_type IN ('Updated', 'Restored') AND patch = '[]', 'an empty patch'),
	(jsonb_typeof(patch) <> 'array', 'the patch is no array'),
	(db_role <> session_user, 'db_role is wrong'),
	(event_type NOT IN ('Created', 'Updated', 'Deleted', 'Restored', 'Baseline'), 'event_type'),
	(NOT gone AND last_gone AND event_type NOT IN ('Created', 'Baseline'), 'an event of a row that was gone'),
	(payload IS NULL AND (SELECT payload FROM chk.config WHERE relid = rel) = 'full'
		AND NOT (gone AND flags & 32 <> 0), 'no payload'),
	(payload IS NULL AND NOT gone AND (event_type IN ('Created', 'Baseline') OR version % 64 = 0 AND event_type <> 'Deleted'), 'no payload where there must be one')
) AS p (bad, problem)
WHERE p.bad
UNION ALL	-- a change of key: the halves name each other
SELECT e.aggregate_id, format('event %s is linked to %s, which is no answer', e.event_id, l.link)
FROM e CROSS JOIN LATERAL (SELECT coalesce(meta -> 'moved_to', meta -> 'moved_from') AS link, meta ? 'moved_to' AS forth) AS l
WHERE l.link IS NOT NULL AND NOT EXISTS (
	SELECT FROM e AS o WHERE o.aggregate_id = l.link ->> 'aggregate_id' AND o.version = (l.link ->> 'version')::bigint
		AND o.xid = e.xid AND o.event_type = CASE WHEN l.forth THEN 'Created' ELSE 'Deleted' END
		-- the Deleted of a key that was taken again before could not know where its row went
		AND (NOT l.forth AND o.flags & 32 <> 0
			OR coalesce(o.meta -> 'moved_to', o.meta -> 'moved_from') = jsonb_build_object('aggregate_id', e.aggregate_id, 'version', e.version)))
$$;

-- what the triggers saw against the events: each change is one event, with that document
CREATE FUNCTION chk.against_witness(rel oid) RETURNS TABLE (agg text, problem text) LANGUAGE sql STABLE AS $$
WITH c AS MATERIALIZED (SELECT * FROM chk.config WHERE relid = rel),
seen AS MATERIALIZED (
	SELECT w.id, w.xid, x.agg, x.type, x.doc, w.usr, w.device
	FROM chk.witness w CROSS JOIN LATERAL (
		SELECT agg_new, 'Created', doc_new WHERE op = 'INSERT'
		UNION ALL SELECT agg_old, 'Deleted', doc_old WHERE op = 'DELETE'
		UNION ALL SELECT agg_new, CASE WHEN dead_old = dead_new THEN 'Updated' WHEN dead_new THEN 'Deleted' ELSE 'Restored' END, doc_new
			WHERE op = 'UPDATE' AND changed AND agg_old = agg_new
		UNION ALL SELECT agg_old, 'Deleted', doc_old WHERE op = 'UPDATE' AND agg_old <> agg_new
		UNION ALL SELECT agg_new, 'Created', doc_new WHERE op = 'UPDATE' AND agg_old <> agg_new) AS x (agg, type, doc)
	WHERE w.relid = rel),
told AS MATERIALIZED (
	SELECT e.*, effective_high AS x FROM esync.event e WHERE table_id = (SELECT table_id FROM c)),
-- one after the other: equals are numbered; documents are not compared where none is stored
a AS (
	SELECT s.*, row_number() OVER (PARTITION BY xid, agg, type, key ORDER BY id) AS n
	FROM (SELECT s.*, CASE WHEN c.payload = 'full' THEN doc::text ELSE '' END AS key FROM seen s, c) AS s),
b AS (
	SELECT t.*, row_number() OVER (PARTITION BY xid, agg, type, key ORDER BY flags & 32, event_id) AS n
	FROM (SELECT t.event_id, t.xid, t.aggregate_id AS agg, t.event_type AS type, t.payload, t.flags, t.user_id, t.device_id,
			CASE WHEN c.payload = 'full' THEN t.payload::text ELSE '' END AS key FROM told t, c
		WHERE t.event_type <> 'Baseline') AS t),
-- a Deleted written when its key was taken again carries no payload
unpaid AS (
	SELECT b.agg, b.xid, count(*) AS n FROM b WHERE type = 'Deleted' AND flags & 32 <> 0 GROUP BY 1, 2),
missed AS (
	SELECT a.agg, a.xid, a.type, a.doc, a.id, row_number() OVER (PARTITION BY a.agg, a.xid, a.type ORDER BY a.id) AS n
	FROM a LEFT JOIN b ON b.xid = a.xid AND b.agg = a.agg AND b.type = a.type AND b.key = a.key AND b.n = a.n
	WHERE b.event_id IS NULL)
SELECT m.agg, format('no event: %s %s in transaction %s', m.type, m.doc, m.xid)
FROM missed m CROSS JOIN c LEFT JOIN unpaid u ON u.agg = m.agg AND u.xid = m.xid AND m.type = 'Deleted'
WHERE coalesce(u.n, 0) < m.n AND NOT (c.moves AND m.type IN ('Deleted', 'Created'))
UNION ALL
SELECT b.agg, format('event %s (%s) tells what did not happen: %s', b.event_id, b.type, b.payload)
FROM b CROSS JOIN c LEFT JOIN a ON b.xid = a.xid AND b.agg = a.agg AND b.type = a.type AND b.key = a.key AND b.n = a.n
WHERE a.id IS NULL AND NOT (b.type = 'Deleted' AND b.flags & 32 <> 0)
	AND NOT (c.moves AND EXISTS (SELECT FROM chk.witness w WHERE w.relid = rel AND w.xid = b.xid AND w.agg_new = b.agg
		AND (c.payload <> 'full' OR w.doc_new::text = b.payload::text)))
UNION ALL	-- a ground is the row as it was found
SELECT t.aggregate_id, format('Baseline %s shows what was not there: %s', t.event_id, t.payload)
FROM told t
WHERE t.event_type = 'Baseline' AND NOT EXISTS (
	SELECT FROM chk.witness w WHERE w.relid = rel AND w.agg_old = t.aggregate_id AND w.xid = t.xid AND w.doc_old::text = t.payload::text)
	-- after the late Deleted of the row before, the present one is told again
	AND NOT (t.meta @> '{"deleted": false}' AND EXISTS (SELECT FROM told d WHERE d.aggregate_id = t.aggregate_id AND d.xid = t.xid
			AND d.version = t.version - 1 AND d.event_type = 'Deleted')
		AND EXISTS (SELECT FROM chk.witness w WHERE w.relid = rel AND w.agg_new = t.aggregate_id AND w.xid = t.xid AND w.doc_new::text = t.payload::text))
	-- that a row is gone is found by the option baseline alone
	AND NOT (t.payload IS NULL AND EXISTS (SELECT FROM chk.dirty d WHERE d.relid = rel AND d.agg = t.aggregate_id AND d.since_event < t.event_id)
		AND EXISTS (SELECT FROM chk.witness w WHERE w.relid = rel AND w.xid = t.xid AND w.op = 'BASELINE')
		AND NOT EXISTS (SELECT FROM chk.witness w WHERE w.relid = rel AND w.xid = t.xid AND w.op = 'BASELINE' AND w.agg_old = t.aggregate_id))
UNION ALL	-- who
SELECT b.agg, format('event %s is by %s on %s, not by %s on %s', b.event_id, b.user_id, b.device_id, a.usr, a.device)
FROM b JOIN a ON b.xid = a.xid AND b.agg = a.agg AND b.type = a.type AND b.key = a.key AND b.n = a.n
WHERE a.usr IS DISTINCT FROM b.user_id OR a.device IS DISTINCT FROM b.device_id
$$;

-- when: submit, branch and meta of each event, as the transaction's context says
CREATE FUNCTION chk.clocks(rel oid) RETURNS TABLE (agg text, problem text) LANGUAGE sql STABLE AS $$
SELECT DISTINCT e.aggregate_id, format('%s of event %s', p.problem, e.event_id)
FROM esync.event e
JOIN chk.config c ON c.relid = rel AND c.table_id = e.table_id
JOIN LATERAL (
	SELECT w.submit::timestamptz AS submit, w.branch::timestamptz AS branch, w.meta::jsonb AS meta, w.sent_at::timestamptz AS sent_at
	FROM chk.witness w WHERE w.relid = rel AND w.xid = e.xid
	GROUP BY 1, 2, 3, 4) AS w ON (SELECT count(DISTINCT (submit, branch, meta, sent_at)) FROM chk.witness w WHERE w.relid = rel AND w.xid = e.xid) = 1
CROSS JOIN LATERAL (VALUES
	(w.submit IS NULL AND submit_timestamp <> commit_timestamp, 'submit_timestamp'),
	(w.submit IS NOT NULL AND w.sent_at IS NULL AND submit_timestamp <> least(w.submit, commit_timestamp), 'submit_timestamp'),
	((flags & 4 <> 0) <> (flags & 8 = 0 AND w.submit > commit_timestamp) AND flags & 8 = 0, 'flag 4'),
	(flags & 8 <> 0 AND (w.sent_at IS NULL OR abs(extract(epoch FROM commit_timestamp - w.sent_at)) < 30), 'flag 8'),
	(flags & 8 = 0 AND w.submit IS NOT NULL AND abs(extract(epoch FROM commit_timestamp - w.sent_at)) > 60, 'flag 8'),
	(flags & 8 <> 0 AND flags & 4 = 0 AND abs(extract(epoch FROM submit_timestamp - (w.submit + (commit_timestamp - w.sent_at)))) > 30, 'corrected submit'),
	(branch_timestamp <> coalesce(w.branch, submit_timestamp), 'branch_timestamp'),
	((e.meta ->> 'submit_raw')::timestamptz IS DISTINCT FROM CASE WHEN w.submit <> submit_timestamp THEN w.submit END, 'meta.submit_raw'),
	(NOT coalesce(e.meta, '{}') @> coalesce(w.meta, '{}'), 'meta')
) AS p (bad, problem)
WHERE p.bad AND e.event_type <> 'Baseline'
$$;

-- the table against the recomputation
CREATE FUNCTION chk.against_table(rel oid) RETURNS TABLE (agg text, problem text) LANGUAGE sql AS $$
SELECT agg, CASE WHEN r.doc IS NULL THEN format('the stream shows a row that is gone: %s', f.doc)
	WHEN f.agg IS NULL THEN format('a row without events, whose insertion was seen: %s', r.doc)
	WHEN f.gone THEN format('the stream shows no row, the table does: %s', r.doc)
	ELSE (SELECT string_agg(format('%s: the stream says %s, the table %s', key, f.doc -> key, r.doc -> key), '; ')
		FROM (SELECT jsonb_object_keys(r.doc) UNION SELECT jsonb_object_keys(f.doc)) AS k (key)
		WHERE (r.doc -> key)::text IS DISTINCT FROM (f.doc -> key)::text) END
FROM chk.fold(rel) AS f FULL JOIN chk.rows(rel, true) AS r USING (agg)
WHERE CASE WHEN f.agg IS NULL THEN EXISTS (SELECT FROM chk.witness w WHERE w.relid = rel AND w.op = 'INSERT' AND w.agg_new = agg)
	WHEN f.gone THEN r.doc IS NOT NULL
	ELSE r.doc::text IS DISTINCT FROM f.doc::text END
$$;

-- esync_verify reports what differs and no more; differing are those that were changed unseen
CREATE FUNCTION chk.against_verify(rel oid) RETURNS TABLE (agg text, problem text) LANGUAGE sql AS $$
WITH t AS (SELECT agg, problem FROM chk.against_table(rel)),
v AS (SELECT aggregate_id AS agg, string_agg(format('%s %s', problem, detail), '; ') AS problem FROM public.esync_verify(rel) GROUP BY 1)
SELECT agg, 'fold and table differ: ' || t.problem FROM t WHERE NOT chk.is_dirty(rel, agg)
UNION ALL
SELECT v.agg, 'esync_verify reports, and SQL finds nothing: ' || v.problem FROM v LEFT JOIN t ON t.agg = v.agg WHERE t.agg IS NULL
UNION ALL
SELECT t.agg, 'esync_verify overlooks: ' || t.problem FROM t LEFT JOIN v ON v.agg = t.agg
WHERE v.agg IS NULL AND EXISTS (SELECT FROM esync.event e JOIN chk.config c USING (table_id) WHERE c.relid = rel AND e.aggregate_id = t.agg)
$$;

-- where two documents differ
CREATE FUNCTION chk.difference(a jsonb, b jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
SELECT coalesce(string_agg(format('%s: %s, SQL: %s', key, a -> key, b -> key), '; '), format('%s, SQL: %s', a, b))
FROM (SELECT jsonb_object_keys(a) UNION SELECT jsonb_object_keys(b)) AS k (key)
WHERE (a -> key)::text IS DISTINCT FROM (b -> key)::text AND a IS NOT NULL AND b IS NOT NULL
$$;

-- the readers against the recomputation, at a moment of both axes
CREATE FUNCTION chk.against_state(rel oid, as_of timestamptz, known_at timestamptz) RETURNS TABLE (agg text, problem text) LANGUAGE plpgsql AS $$
DECLARE
	c chk.config;
	bare text[];
	retyped text[];
BEGIN
	SELECT * INTO STRICT c FROM chk.config WHERE relid = rel;
	SELECT coalesce(array_agg(attname::text), '{}') INTO bare FROM pg_attribute
	WHERE attrelid = rel AND attnum = ANY (c.mask || c.stamps) AND NOT attisdropped;
	SELECT coalesce(array_agg(attname::text), '{}') INTO retyped FROM pg_attribute
	WHERE attrelid = rel AND attnum = ANY (c.retyped) AND NOT attisdropped;
	RETURN QUERY EXECUTE format($q$
		SELECT agg, format('esync_state(%%s, %%s): %%s', %1$L, %2$L, chk.difference(s - %4$L::text[], doc))
		FROM (SELECT f.agg, f.gone, f.doc, public.esync_state(%3$s::regclass, f.agg, %1$L, %2$L) AS s
			FROM chk.fold(%3$s, coalesce(%1$L::timestamptz, 'infinity'), coalesce(%2$L::timestamptz, 'infinity')) AS f
			-- what followed a change of key is read with its former keys
			WHERE NOT EXISTS (SELECT FROM esync.event e WHERE e.table_id = %5$s AND e.aggregate_id = f.agg AND e.flags & 64 <> 0)) AS x
		WHERE CASE WHEN gone THEN s IS NOT NULL ELSE (s - %4$L::text[])::text IS DISTINCT FROM doc::text END
		UNION ALL
		SELECT agg, format('esync_as_of(%%s, %%s): %%s', %1$L, %2$L, chk.difference(a.doc, f.doc))
		FROM (SELECT * FROM chk.fold(%3$s, coalesce(%1$L::timestamptz, 'infinity'), coalesce(%2$L::timestamptz, 'infinity')) WHERE NOT gone
			UNION ALL	-- a row without events has been as it is since ever
			SELECT agg, false, doc FROM chk.rows(%3$s, true) AS r
			WHERE NOT EXISTS (SELECT FROM esync.event e WHERE e.table_id = %5$s AND e.aggregate_id = r.agg)) AS f
		FULL JOIN chk.as_of(%3$s, %1$L, %2$L) AS a USING (agg)
		WHERE (a.doc - %6$L::text[])::text IS DISTINCT FROM (f.doc - %6$L::text[])::text
			AND NOT (%1$L IS NULL AND %2$L IS NULL AND chk.is_dirty(%3$s, agg))
		$q$, as_of, known_at, rel, bare, c.table_id, CASE WHEN as_of IS NULL AND known_at IS NULL THEN '{}' ELSE retyped END);
END $$;

CREATE FUNCTION chk.as_of(rel oid, as_of timestamptz, known_at timestamptz) RETURNS TABLE (agg text, doc jsonb) LANGUAGE plpgsql
SET TimeZone = 'UTC' SET DateStyle = 'ISO' SET IntervalStyle = 'postgres' SET extra_float_digits = 1 SET bytea_output = 'hex'
SET search_path = 'pg_catalog' SET lc_monetary = 'C' SET quote_all_identifiers = off SET xmloption = content AS $$
DECLARE
	c chk.config;
BEGIN
	SELECT * INTO STRICT c FROM chk.config WHERE relid = rel;
	RETURN QUERY EXECUTE format('SELECT %s, %s FROM public.esync_as_of(NULL::%s, %L, %L) AS r', replace(c.key_sql, '($1)', '(r)'),
		replace(replace(c.shot_sql, '($1)', '(r)'), '$1', 'r'), rel::regclass, as_of, known_at);
END $$;

-- the other readers, as of now, against the rows of the table
CREATE FUNCTION chk.against_rows(rel oid) RETURNS TABLE (agg text, problem text) LANGUAGE plpgsql AS $$
DECLARE
	c chk.config;
	r record;
	s jsonb;
	loose text[] := '{}';
BEGIN
	SELECT * INTO STRICT c FROM chk.config WHERE relid = rel;
	IF EXISTS (SELECT FROM chk.shot WHERE relid = rel) THEN
		-- nobody keeps last_modified while capture is off, and its drift alone is none
		SELECT coalesce(array_agg(attname::text), '{}') INTO loose FROM pg_attribute WHERE attrelid = rel AND attnum = ANY (c.stamps);
	END IF;
	FOR r IN SELECT x.agg, x.doc FROM chk.rows(rel, false) AS x
		WHERE EXISTS (SELECT FROM esync.event e WHERE e.table_id = c.table_id AND e.aggregate_id = x.agg) AND NOT chk.is_dirty(rel, x.agg)
	LOOP
		agg := r.agg;
		s := public.esync_state(rel, r.agg);
		problem := format('esync_state: %s', chk.difference(s, r.doc));
		IF (s - loose)::text IS DISTINCT FROM (r.doc - loose)::text AND c.payload = 'full' OR s IS NULL THEN
			RETURN NEXT;
		END IF;
		SELECT state INTO s FROM public.esync_replay(rel, r.agg) WITH ORDINALITY ORDER BY ordinality DESC LIMIT 1;
		problem := format('last state of esync_replay: %s', chk.difference(s, r.doc));
		IF (s - loose)::text IS DISTINCT FROM (r.doc - loose)::text AND c.payload = 'full' THEN
			RETURN NEXT;
		END IF;
		RETURN QUERY	-- a column that is gone may have borne the same name: one of the tracks must show the row
		SELECT r.agg, format('field_history: current %s is %s; table: %s', k.key, string_agg(h.value::text, ', '), r.doc -> k.key)
		FROM (SELECT field, value FROM public.field_history(rel, r.agg) WHERE status = 'current' AND field IS NOT NULL) AS h
		RIGHT JOIN jsonb_object_keys(r.doc) AS k (key) ON k.key = h.field
		JOIN pg_attribute a ON a.attrelid = rel AND a.attname = k.key
		LEFT JOIN chk.fill f ON f.relid = rel AND f.attnum = a.attnum
		WHERE a.attnum <> ALL (c.mask || c.stamps)
		GROUP BY k.key, f.value
		HAVING NOT coalesce(bool_or(h.value::text = (r.doc -> k.key)::text), false)
			AND NOT (coalesce(f.value, 'null')::text = (r.doc -> k.key)::text);
		IF NOT EXISTS (SELECT FROM public.esync_history(rel, r.agg) AS h
			WHERE (h.event_id, h.version, h.event_type, h.patch) IN
				(SELECT e.event_id, e.version, e.event_type, e.patch FROM esync.event e
				WHERE e.table_id = c.table_id AND e.aggregate_id = r.agg)
			HAVING count(*) = (SELECT count(*) FROM esync.event e WHERE e.table_id = c.table_id AND e.aggregate_id = r.agg)) THEN
			problem := 'esync_history does not show every event';
			RETURN NEXT;
		END IF;
	END LOOP;
END $$;

------------------------------------------------------------- small services

-- numbers of columns, in the order of their names
CREATE FUNCTION chk.nums(tbl text, names text[]) RETURNS smallint[] LANGUAGE sql AS $$
SELECT coalesce(array_agg(a.attnum ORDER BY n.place), '{}')
FROM unnest(names) WITH ORDINALITY AS n (name, place) JOIN pg_attribute a ON a.attrelid = tbl::regclass AND a.attname = n.name
$$;

-- the triggers of the witness
CREATE FUNCTION chk.watch(rel oid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
	leaf regclass;
BEGIN
	EXECUTE format('CREATE TRIGGER "!!witness" AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION chk.witness(%s)', rel::regclass, rel);
	FOR leaf IN SELECT relid FROM pg_partition_tree(rel) WHERE isleaf UNION SELECT rel WHERE NOT EXISTS (SELECT FROM pg_partition_tree(rel)) LOOP
		EXECUTE format('CREATE TRIGGER "!!witness_truncate" BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION chk.witness(%s)', leaf, rel);
	END LOOP;
END $$;

CREATE FUNCTION chk.forget(rel oid) RETURNS void LANGUAGE sql AS $$
DELETE FROM chk.config WHERE relid = rel;
DELETE FROM chk.name WHERE relid = rel;
DELETE FROM chk.fill WHERE relid = rel;
DELETE FROM chk.witness WHERE relid = rel;
DELETE FROM chk.shot WHERE relid = rel;
DELETE FROM chk.dirty WHERE relid = rel;
$$;

-- the rows that a Baseline may show
CREATE FUNCTION chk.note_baseline(rel oid) RETURNS void LANGUAGE sql AS $$
INSERT INTO chk.witness (relid, xid, op) SELECT rel, pg_current_xact_id(), 'BASELINE';
INSERT INTO chk.witness (relid, xid, op, agg_old, doc_old) SELECT rel, pg_current_xact_id(), 'BASELINE', agg, doc FROM chk.rows(rel, false)
$$;

-- what ADD COLUMN ... DEFAULT gave the rows that were there, under the pinned settings
CREATE FUNCTION chk.note_fill(rel oid, name text) RETURNS void LANGUAGE plpgsql
SET TimeZone = 'UTC' SET DateStyle = 'ISO' SET IntervalStyle = 'postgres' SET extra_float_digits = 1 SET bytea_output = 'hex'
SET search_path = 'pg_catalog' SET lc_monetary = 'C' SET quote_all_identifiers = off SET xmloption = content AS $$
DECLARE
	type text;
	source text;
BEGIN
	SELECT format_type(atttypid, atttypmod), pg_get_expr(adbin, adrelid) INTO type, source
	FROM pg_attribute a JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum WHERE attrelid = rel AND attname = name;
	EXECUTE format(CASE WHEN type IN ('json', 'rnd.rawdoc') THEN 'INSERT INTO chk.fill SELECT %s, %s, chk.json_doc((%s)::%s)'
		ELSE 'INSERT INTO chk.fill SELECT %s, %s, to_jsonb((%s)::%s)' END,
		rel, (SELECT attnum FROM pg_attribute WHERE attrelid = rel AND attname = name), source, type);
END $$;
