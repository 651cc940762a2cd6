-- One edit at a time by devices, for tests of what becomes of it: included with \i into a schema that is first
-- on the search_path and dropped at the end.
-- one edit by itself: a device and its user, saved on a day of November
CREATE FUNCTION send(device text, day int, event jsonb, seq int DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$
	SELECT esync_submit(jsonb_build_object('device_id', device || '-tablet', 'events', jsonb_build_array(
		jsonb_build_object('id', gen_random_uuid(), 'seq', seq, 'submit_timestamp', format('2025-11-%s 10:00Z', day)) || event)),
		jsonb_build_object('user_id', device))->'results'->0
$$;
CREATE FUNCTION edit(device text, day int, tbl text, changed jsonb, base int DEFAULT 1, key text DEFAULT '1', seq int DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$
	SELECT send(device, day, jsonb_build_object('table', tbl, 'op', 'update', 'key', key, 'base_version', base, 'set', changed), seq)
$$;
-- an answer without what differs from run to run
CREATE FUNCTION told(r jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT (r #- '{row,gone_at}') - 'id' - 'effective_timestamp' - 'duplicate' - 'ignored' - 'rejected_id' - 'conflicts' || CASE WHEN r ? 'conflicts' THEN jsonb_build_object('conflicts',
		(SELECT jsonb_agg(c - 'conflict_id' - 'others' || jsonb_build_object('others', (SELECT jsonb_agg(o - 'event_id' - 'device_id') FROM jsonb_array_elements(c->'others') o)))
		FROM jsonb_array_elements(r->'conflicts') c)) ELSE '{}' END
$$;
CREATE FUNCTION stream(tbl regclass, key text DEFAULT '1') RETURNS TABLE (v bigint, base bigint, type text, who text, patch jsonb, flags int, meta jsonb) LANGUAGE sql AS $$
	SELECT version, base_version, event_type, nullif(user_id, session_user), patch, flags,
		meta - 'resolves' - 'confirms' - 'retried_by' || CASE WHEN meta ? 'resolves' THEN jsonb_build_object('resolves', jsonb_array_length(meta->'resolves')) ELSE '{}' END
		|| CASE WHEN meta ? 'confirms' THEN jsonb_build_object('confirms', (SELECT jsonb_agg(format('%s of v%s', c->>'field', x.version)) FROM jsonb_array_elements(meta->'confirms') c
			JOIN witness.events(tbl) x ON x.event_id = (c->>'event_id')::bigint)) ELSE '{}' END
	FROM witness.events(tbl) e WHERE aggregate_id = key ORDER BY version
$$;
CREATE FUNCTION ledger(t regclass) RETURNS TABLE (id text, field text, kind text, base_value jsonb, shown jsonb, contenders text, status text, by text, how text) LANGUAGE sql AS $$
	SELECT c.aggregate_id, c.field, c.kind, c.base_value, c.shown_value,
		(SELECT string_agg(format('v%s %s%s%s', x->'version', x->'value', CASE WHEN (x->'shown')::bool THEN '!' END, ' ' || (x->>'constraint')), ', ' ORDER BY x->'version') FROM jsonb_array_elements(c.contenders) x),
		c.status, nullif(c.resolved_by, session_user), c.resolution
	FROM esync_conflicts(t, status => 'all') c ORDER BY conflict_id
$$;
-- what is in the stream of a table was saved long ago, so that what is saved on a day of November is later
CREATE PROCEDURE long_ago(t regclass, ids text[] DEFAULT NULL) LANGUAGE sql AS $$
	UPDATE esync.event SET commit_timestamp = '2025-01-01', submit_timestamp = '2025-01-01', branch_timestamp = '2025-01-01', effective_timestamp = '2025-01-01', effective_high = '2025-01-01'
	WHERE table_id = (SELECT table_id FROM esync.tracked_table WHERE relation = t) AND (ids IS NULL OR aggregate_id = ANY (ids))
$$;
