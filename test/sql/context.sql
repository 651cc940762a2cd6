-- Who, when, on which device: esync_context, settings, and what PostgREST sets.
\getenv abs_srcdir PG_ABS_SRCDIR
\set witness :abs_srcdir '/lib/witness.sql'
\set ECHO none
\i :witness
\set ECHO all
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
SET datestyle = 'ISO, MDY';
CREATE SCHEMA ctx;
SET search_path = ctx, public;
CREATE TABLE t (id int PRIMARY KEY, v text);
-- recorded, and no more: sqlmerge.sql is about what a base does
SELECT esync_enable('t', sql_merge => false);
-- an event under some settings, and what it says of its author
CREATE FUNCTION edit(settings text[] DEFAULT '{}') RETURNS TABLE (user_id text, device_id text, branch timestamptz, submit timestamptz, effective timestamptz, flags int, meta jsonb)
LANGUAGE plpgsql AS $$
DECLARE
	s text;
BEGIN
	DELETE FROM ctx.t WHERE id < 1000;
	FOREACH s IN ARRAY settings LOOP
		PERFORM set_config(split_part(s, '=', 1), substr(s, strpos(s, '=') + 1), true);
	END LOOP;
	INSERT INTO ctx.t VALUES ((SELECT count(*) FROM witness.events('ctx.t')), 'x');
	RETURN QUERY SELECT e.user_id, e.device_id, nullif(e.branch_timestamp, e.commit_timestamp), nullif(e.submit_timestamp, e.commit_timestamp), nullif(e.effective_timestamp, e.commit_timestamp), e.flags, e.meta
	FROM witness.events('ctx.t') e ORDER BY event_id DESC LIMIT 1;
END $$;
SELECT current_user AS me \gset

-- NAME: without a context: the role, no device, and now
SELECT user_id = :'me' AS me, device_id, branch, submit, effective, flags, meta FROM edit();

-- NAME: esync_context, all of it; local to the transaction
BEGIN;
SELECT esync_context('ann', 'tablet-7', '2025-11-17 08:00+02', '2025-11-19T10:00:00Z', NULL, 3, '{"reason": "calibrated"}');
SELECT * FROM edit();
SELECT current_setting('esync.user_id'), current_setting('esync.branch_timestamp'), current_setting('esync.base_version'), current_setting('esync.meta');
COMMIT;
SELECT user_id = :'me' AS me, device_id, branch, submit, meta FROM edit();
-- by name, one at a time; NULL clears
BEGIN;
SELECT esync_context(device_id => 'd');
SELECT esync_context(user_id => 'bob');
SELECT user_id, device_id FROM edit();
COMMIT;
-- undone with its savepoint
BEGIN;
SELECT esync_context('outer');
SAVEPOINT s;
SELECT esync_context('inner');
SELECT user_id FROM edit();
ROLLBACK TO s;
SELECT user_id FROM edit();
COMMIT;

-- NAME: SET LOCAL and SET do the same
BEGIN;
SET LOCAL esync.user_id = 'carl';
SET LOCAL esync.submit_timestamp = '2025-11-19 10:00+00';
SELECT user_id, submit FROM edit();
COMMIT;
SET esync.user_id = 'for the session';
SELECT user_id FROM edit();
SELECT user_id FROM edit();
RESET esync.user_id;
SELECT user_id = :'me' AS me FROM edit();

-- NAME: a role that was set counts as user and as db_role; an outer role as db_role
CREATE ROLE regress_esync_ctx;
GRANT USAGE ON SCHEMA ctx, witness TO regress_esync_ctx;
GRANT ALL ON t TO regress_esync_ctx;
SET ROLE regress_esync_ctx;
INSERT INTO ctx.t VALUES (1001, 'x');
BEGIN;
SELECT public.esync_context('somebody else');
INSERT INTO ctx.t VALUES (1002, 'x');
COMMIT;
RESET ROLE;
SELECT aggregate_id, user_id, db_role FROM witness.events('t') WHERE aggregate_id IN ('1001', '1002');
CREATE FUNCTION as_definer() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$ INSERT INTO ctx.t VALUES (1003, 'x') $$;
SET ROLE regress_esync_ctx;
SELECT ctx.as_definer();
RESET ROLE;
SELECT aggregate_id, user_id, db_role FROM witness.events('t') WHERE aggregate_id = '1003';

-- NAME: what PostgREST sets: request.jwt.claims and request.headers
SELECT user_id, device_id, branch, submit, meta FROM edit('{"request.jwt.claims={\"sub\": \"jwt-user\", \"role\": \"web\"}","request.headers={\"x-device-id\": \"phone\", \"x-branch-timestamp\": \"2025-11-17T06:00:00Z\", \"x-submit-timestamp\": \"2025-11-19T10:00:00Z\", \"x-base-version\": \"17\", \"accept\": \"*/*\"}"}');
-- numbers, null, and members of other kinds
SELECT user_id = :'me' AS me, user_id, device_id, meta FROM edit('{"request.jwt.claims={\"sub\": 42}","request.headers={\"x-device-id\": null, \"x-base-version\": 5}"}');
SELECT user_id = :'me' AS me, device_id FROM edit('{"request.jwt.claims={}","request.headers={}"}');
SELECT user_id = :'me' AS me, device_id FROM edit('{"request.jwt.claims={\"sub\": {\"a\": 1}}","request.headers={\"x-device-id\": \"\"}"}');

-- NAME: empty strings are unset, as request.* is after a SET LOCAL ended
SELECT user_id = :'me' AS me, device_id, branch, submit, meta FROM edit('{"request.jwt.claims=","request.headers=",esync.user_id=,esync.device_id=,esync.branch_timestamp=,esync.submit_timestamp=,esync.sent_at=,esync.base_version=,esync.meta=}');
BEGIN;
SET LOCAL request.jwt.claims = '{"sub": "x"}';
COMMIT;
SHOW request.jwt.claims;
SELECT user_id = :'me' AS me FROM edit();

-- NAME: precedence: esync.* before request.*
SELECT user_id, device_id, branch FROM edit('{esync.user_id=setting,esync.device_id=,"esync.branch_timestamp=2025-01-01T00:00:00Z","request.jwt.claims={\"sub\": \"claim\"}","request.headers={\"x-device-id\": \"header\", \"x-branch-timestamp\": \"2025-02-02T00:00:00Z\"}"}');

-- NAME: submit in the future is clamped to the commit, flagged, and kept raw
SELECT submit IS NULL AS clamped, effective IS NULL AS effective_too, branch IS NULL AS branch_as_submit, flags, meta FROM edit('{"esync.submit_timestamp=2999-01-01T00:00:00Z"}');

-- NAME: within the clock tolerance nothing is shifted; beyond it submit is, and branch is not
BEGIN;
SELECT esync_context('u', 'd', '2025-11-17 08:00+00', '2025-11-19 10:00+00', now() - interval '29 seconds');
SELECT branch, submit, flags, meta FROM edit();
SELECT esync_context('u', 'd', '2025-11-17 08:00+00', '2025-11-19 10:00+00', now() - interval '31 seconds');
SELECT branch, submit, flags, meta FROM edit();
SELECT esync_context('u', 'd', '2025-11-17 08:00+00', '2025-11-19 10:00+00', now() + interval '1 hour');
SELECT branch, submit, flags, meta FROM edit();
SET LOCAL esync.clock_tolerance = '2h';
SELECT submit, flags FROM edit();
SET LOCAL esync.clock_tolerance = 0;
SELECT esync_context(sent_at => now() - interval '1 second', submit_timestamp => '2025-11-19 10:00+00');
SELECT submit, flags, meta FROM edit();
-- sent_at without submit does nothing
SELECT esync_context(sent_at => now() - interval '1 day');
SELECT submit, flags, meta FROM edit();
-- a shifted submit that is still in the future
SELECT esync_context(sent_at => now() - interval '1 day', submit_timestamp => now());
SELECT submit IS NULL AS clamped, flags, meta->'clock_offset_ms' AS clock_offset_ms, meta ? 'submit_raw' AS raw FROM edit();
COMMIT;
-- by headers, and a sent_at for each transaction anew
BEGIN;
SELECT set_config('request.headers', format('{"x-sent-at": %s, "x-submit-timestamp": "2025-11-19T10:00:00Z"}', to_jsonb(now() - interval '60 seconds')), false) IS NOT NULL AS set;
SELECT submit, flags FROM edit();
COMMIT;
RESET request.headers;

-- NAME: an edit saved before what its author had seen takes its place after it: base = head
INSERT INTO t VALUES (2000, 'now');
BEGIN;
SELECT esync_context('late', 'd', submit_timestamp => '2025-11-19 10:00+00');
UPDATE t SET v = 'saved long ago' WHERE id = 2000;
COMMIT;
SELECT version, base_version, effective_timestamp = lag(effective_high) OVER (ORDER BY version) + interval '1 microsecond' AS "just after", flags & 16 AS later
FROM witness.events('t') WHERE aggregate_id = '2000';
SELECT esync_state('t', 2000);

-- NAME: events of one submit time keep their order
BEGIN;
SELECT esync_context('u', 'd', submit_timestamp => '2025-11-19 10:00+00');
INSERT INTO t VALUES (2001, 'a');
UPDATE t SET v = 'b' WHERE id = 2001;
UPDATE t SET v = 'c' WHERE id = 2001;
COMMIT;
SELECT version, submit_timestamp, effective_timestamp, effective_high FROM witness.events('t') WHERE aggregate_id = '2001';
SELECT field, version, value, status FROM field_history('t', 2001, 'v');

-- NAME: without sql_merge base_version is kept in meta where it is not the head, and the base is the head
BEGIN;
SELECT esync_context(base_version => 1);
UPDATE t SET v = 'd' WHERE id = 2001;
SELECT esync_context(base_version => 4);
UPDATE t SET v = 'e' WHERE id = 2001;
COMMIT;
SELECT version, base_version, meta FROM witness.events('t') WHERE aggregate_id = '2001' AND version > 3;

-- NAME: meta of the author is kept; esync's own members win
SELECT meta FROM edit('{"esync.meta={\"a\": [1, null], \"submit_raw\": \"mine\", \"Z\": \"ü\"}","esync.submit_timestamp=2999-01-01T00:00:00Z",esync.base_version=9}');
SELECT meta FROM edit('{"esync.meta={}"}');

-- NAME: a Baseline is nobody's: neither user nor device
ALTER TABLE t DISABLE TRIGGER USER;
INSERT INTO t VALUES (2002, 'unseen');
ALTER TABLE t ENABLE TRIGGER USER;
BEGIN;
SELECT esync_context('ann', 'tablet', submit_timestamp => '2025-11-19 10:00+00', meta => '{"m": 1}');
UPDATE t SET v = 'seen' WHERE id = 2002;
COMMIT;
SELECT version, event_type, user_id, device_id, db_role = :'me' AS me, submit_timestamp = commit_timestamp AS now, effective_timestamp, meta FROM witness.events('t') WHERE aggregate_id = '2002';

-- NAME: malformed context: 22023, and the write fails
CREATE FUNCTION refused(text, text) RETURNS TABLE (setting text, value text, code text, message text, hint text) LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	PERFORM set_config($1, $2, true);
	SELECT * INTO r FROM witness.refused('UPDATE ctx.t SET v = v || ''!'' WHERE id = 2001');
	PERFORM set_config($1, '', true);
	RETURN QUERY SELECT $1, $2, r.code, r.message, r.hint;
END $$;
SELECT r.* FROM (VALUES ('esync.branch_timestamp', 'yesterday'), ('esync.branch_timestamp', 'nonsense'), ('esync.submit_timestamp', '2025-13-01'), ('esync.submit_timestamp', 'infinity'),
	('esync.submit_timestamp', 'now'), ('esync.submit_timestamp', '-infinity'), ('esync.submit_timestamp', '1'), ('esync.sent_at', 'x'), ('esync.sent_at', '99999999-01-01'), ('esync.base_version', 'one'), ('esync.base_version', '-1'),
	('esync.base_version', '1.5'), ('esync.base_version', '99999999999999999999'), ('esync.meta', '[]'), ('esync.meta', '1'), ('esync.meta', '{'), ('esync.meta', '"x"'),
	('request.jwt.claims', 'x'), ('request.jwt.claims', '[]'), ('request.headers', '{"x-base-version": "x"}'), ('request.headers', '{"x-submit-timestamp": "soon"}'), ('request.headers', '"'),
	('request.headers', '{"x-sent-at": "tomorrow"}')) s (n, v), refused(s.n, s.v) r;
SELECT count(*) FROM witness.events('t') WHERE aggregate_id = '2001' AND version > 5;
-- put right, it goes on
SELECT user_id FROM edit('{esync.base_version=x,esync.base_version=2,esync.user_id=right}');
-- by esync_context itself
SELECT r.* FROM unnest(ARRAY[$$base_version => -1$$, $$meta => '[]'$$, $$meta => '1'$$, $$submit_timestamp => 'infinity'$$, $$branch_timestamp => '-infinity'$$, $$sent_at => 'infinity'$$]) a (a), witness.refused(format('SELECT esync_context(%s)', a.a)) r;

-- NAME: reading needs no context, and a malformed one does not hinder it
BEGIN;
SET LOCAL esync.meta = '[';
SELECT count(*) FROM esync_history('t', 2001);
ROLLBACK;

-- NAME: who may set what: the context anybody, esync.enabled a superuser alone
SET ROLE regress_esync_ctx;
SELECT code FROM witness.refused($$SET esync.user_id = 'x'$$);
SELECT code, message FROM witness.refused($$SET esync.enabled = off$$);
RESET ROLE;
SELECT name, context, boot_val FROM pg_settings WHERE name ~ '^esync\.' ORDER BY 1;
-- the prefix is reserved
SELECT code, message FROM witness.refused($$SET esync.nope = 1$$);

-- NAME: order of the clock: commit never goes back within an aggregate
UPDATE esync.event SET commit_timestamp = '2999-01-01 00:00+00', effective_high = '2999-01-01 00:00+00', effective_timestamp = '2999-01-01 00:00+00'
WHERE table_id = (SELECT table_id FROM esync.tracked_table WHERE relation = 't'::regclass) AND aggregate_id = '2001' AND version = 5;
UPDATE t SET v = 'after the clock was set back' WHERE id = 2001;
SELECT commit_timestamp, effective_timestamp, submit_timestamp = commit_timestamp AS submit FROM witness.events('t') WHERE aggregate_id = '2001' AND version = 6;

SELECT esync_disable('t', true);
DROP SCHEMA ctx, witness CASCADE;
DROP ROLE regress_esync_ctx;
