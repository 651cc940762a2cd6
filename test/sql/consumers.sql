-- Cursors that are kept here: esync_poll, esync_ack, and who may.
SET client_min_messages TO warning;
SET TIME ZONE 'UTC';
CREATE ROLE regress_esync_worker;
CREATE ROLE regress_esync_team;
CREATE ROLE regress_esync_stranger;
GRANT regress_esync_team TO regress_esync_worker;
CREATE SCHEMA con;
GRANT USAGE ON SCHEMA con TO PUBLIC;
SET search_path = con, public;
CREATE TABLE job (id int PRIMARY KEY, team text, a text);
CREATE TABLE log (id int PRIMARY KEY, a text);
SELECT esync_enable('job', tenant => 'team', notify => true), esync_enable('log');
GRANT SELECT ON job, log TO regress_esync_worker, regress_esync_team, regress_esync_stranger;
CREATE FUNCTION told(answer jsonb) RETURNS TABLE (n int, has_more boolean, reset boolean, reason text, changes text)
LANGUAGE sql AS $$
SELECT jsonb_array_length(answer->'changes'), (answer->>'has_more')::boolean, (answer->>'reset')::boolean, answer->>'reason',
	(SELECT string_agg(format('%s %s.%s', c->>'aggregate_type', c->>'aggregate_id', c->>'version'), ', ' ORDER BY c->'event_id') FROM jsonb_array_elements(answer->'changes') AS c)
$$;
CREATE FUNCTION fails(statement text) RETURNS TABLE (code text, message text, detail text, hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN QUERY SELECT NULL, 'no error', NULL, NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	detail := regexp_replace(detail, '\d{4}-[-0-9:. +]*', '(time)');
	RETURN NEXT;
END
$$;
-- what esync_consumers shows, without what differs from run to run
CREATE VIEW shown AS SELECT consumer, owner, tables, tenant, cursor IS NOT NULL AS cursor, pending IS NOT NULL AS pending, leased_until > now() AS leased, reset, lag > '0' AS lags, behind,
	created_at <= now() AS created, polled_at IS NOT NULL AS polled, acked_at IS NOT NULL AS acked FROM esync_consumers() WHERE consumer ~ '^con_';
GRANT SELECT ON shown TO PUBLIC;
SELECT consumer FROM esync_consumers();

-- NAME: what was polled is leased until it is acknowledged
SELECT esync_consumer_create('con_a', 'now', '{job,log}');
INSERT INTO job SELECT i, CASE WHEN i < 3 THEN 'red' ELSE 'blue' END, 'x' FROM generate_series(1, 5) AS i;
SELECT * FROM shown;
SELECT t.*, answer->>'cursor' AS cursor FROM esync_poll('con_a', 3) AS answer, told(answer) AS t \gset a_
SELECT :a_n AS n, :'a_has_more' AS has_more, :'a_changes' AS changes;
SELECT * FROM fails($$SELECT esync_poll('con_a')$$);
SELECT * FROM shown;
SELECT * FROM fails($$SELECT esync_ack('con_a', 'e1.something')$$);
SELECT * FROM fails($$SELECT esync_ack('con_a', NULL)$$);
SELECT esync_ack('con_a', :'a_cursor');
SELECT esync_ack('con_a', :'a_cursor');
SELECT * FROM shown;
SELECT t.*, answer->>'cursor' AS cursor FROM esync_poll('con_a', 3) AS answer, told(answer) AS t \gset b_
SELECT :b_n AS n, :'b_has_more' AS has_more, :'b_changes' AS changes;
SELECT * FROM fails(format('SELECT esync_ack(%L, %L)', 'con_a', 'e1.' || 'old')), fails(format('SELECT esync_poll(%L)', 'con_a')) AS p (c, m, d, h);
SELECT esync_ack('con_a', :'b_cursor');
-- nothing new: no lease, and the cursor that is answered can be acknowledged
SELECT t.n, answer->>'cursor' AS cursor FROM esync_poll('con_a', 3) AS answer, told(answer) AS t \gset n_
SELECT :n_n AS n;
SELECT esync_ack('con_a', :'n_cursor');
SELECT * FROM told(esync_poll('con_a'));
SELECT * FROM shown;

-- NAME: what is not acknowledged comes again when the lease is over
SET esync.consumer_lease = '20ms';
UPDATE job SET a = 'y' WHERE id = 1;
SELECT t.changes, answer->>'cursor' AS cursor FROM esync_poll('con_a') AS answer, told(answer) AS t \gset l_
SELECT :'l_changes' AS changes;
UPDATE job SET a = 'z' WHERE id = 1;
SELECT count(pg_sleep(0.05));
SELECT t.changes, answer->>'cursor' AS cursor FROM esync_poll('con_a') AS answer, told(answer) AS t \gset m_
SELECT :'m_changes' AS changes;
-- who was too late is told so
SELECT code, message, hint FROM fails(format('SELECT esync_ack(%L, %L)', 'con_a', :'l_cursor'));
-- but one who was late and alone is not
SELECT count(pg_sleep(0.05));
SELECT esync_ack('con_a', :'m_cursor');
SELECT * FROM told(esync_poll('con_a'));
RESET esync.consumer_lease;
SHOW esync.consumer_lease;
-- a poll that is rolled back never was
UPDATE job SET a = 'w' WHERE id = 1;
BEGIN;
SELECT * FROM told(esync_poll('con_a'));
ROLLBACK;
SELECT t.changes, answer->>'cursor' AS cursor FROM esync_poll('con_a') AS answer, told(answer) AS t \gset l_
SELECT :'l_changes' AS changes;
BEGIN;
SELECT esync_ack('con_a', :'l_cursor');
ROLLBACK;
SELECT code FROM fails($$SELECT esync_poll('con_a')$$);
SELECT esync_ack('con_a', :'l_cursor');

-- NAME: the first poll makes a consumer, from the beginning; others begin where they are told to
SELECT t.n, t.has_more FROM told(esync_poll('con_b', 1)) AS t;
SELECT esync_consumer_drop('con_b');
SELECT esync_consumer_create('con_red', NULL, '{job}', 'red'), esync_consumer_create('con_log', 'now', '{log}'), esync_consumer_create('con_time', (now() - interval '1 hour')::text, '{job,log}'),
	esync_consumer_create('con_cursor', :'a_cursor', '{job,log}');
SELECT * FROM fails($$SELECT esync_consumer_create('con_red')$$);
SELECT code, message FROM fails($$SELECT esync_consumer_create('con_x', 'e1.rubbish')$$);
SELECT code, message FROM fails($$SELECT esync_consumer_create('con_x', NULL, '{pg_class}')$$);
SELECT code, message FROM fails($$SELECT esync_consumer_create('')$$);
SELECT code, message FROM fails($$SELECT esync_consumer_create(NULL)$$);
SELECT code, message FROM fails(format('SELECT esync_consumer_create(%L, %L)', 'con_x', :'a_cursor'));
SELECT c, t.n, t.changes FROM unnest('{con_red,con_log,con_time,con_cursor}'::text[]) AS c, told(esync_poll(c)) AS t;
SELECT * FROM shown;
SELECT tbl::text, c->>'consumer' AS consumer, c->'behind' AS behind, c->'reset' AS reset FROM esync_status(), jsonb_array_elements(options->'consumers') AS c WHERE c->>'consumer' ~ '^con_' AND tbl IN ('con.job'::regclass, 'con.log') ORDER BY 1, 2;

-- NAME: a consumer belongs to a role; its members may use it
SET ROLE regress_esync_team;
SELECT (told(esync_poll('con_team', 1))).n;
RESET ROLE;
SET ROLE regress_esync_stranger;
SELECT * FROM fails($$SELECT esync_poll('con_team')$$);
SELECT code FROM fails($$SELECT esync_ack('con_team', NULL)$$);
SELECT code FROM fails($$SELECT esync_consumer_drop('con_team')$$);
SELECT code FROM fails($$SELECT esync_consumer_create('con_team')$$);
SELECT consumer FROM shown;
SELECT code FROM fails($$SELECT * FROM esync.consumer$$);
RESET ROLE;
SET ROLE regress_esync_worker;
SELECT consumer, owner FROM shown;
SELECT code FROM fails($$SELECT esync_poll('con_team')$$);
SELECT esync_consumer_drop('con_team');
RESET ROLE;
-- it reads with the rights of whoever polls
SELECT esync_consumer_create('con_mine', NULL, '{job}');
UPDATE esync.consumer SET owner = 'regress_esync_stranger' WHERE consumer = 'con_mine';
REVOKE SELECT ON job FROM regress_esync_stranger;
SET ROLE regress_esync_stranger;
SELECT code, message FROM fails($$SELECT esync_poll('con_mine')$$);
RESET ROLE;

-- NAME: unknown, gone, and where nothing may be written
SELECT code, message, hint FROM fails($$SELECT esync_ack('con_nobody', 'e1.x')$$);
SELECT code, message FROM fails($$SELECT esync_consumer_drop('con_nobody')$$);
SELECT esync_consumer_drop('con_red'), esync_consumer_drop('con_log'), esync_consumer_drop('con_time'), esync_consumer_drop('con_mine');
SELECT code, message FROM fails($$SELECT esync_ack('con_red', 'e1.x')$$);
SELECT code, message FROM fails($$SELECT esync_poll('con_a', 0)$$);
SELECT code, message FROM fails($$SELECT esync_poll(NULL)$$);
BEGIN READ ONLY;
SAVEPOINT s;
SELECT esync_poll('con_a');
ROLLBACK TO s;
SELECT esync_ack('con_a', NULL);
ROLLBACK TO s;
SELECT esync_consumer_create('con_x');
ROLLBACK TO s;
SELECT esync_consumer_drop('con_a');
ROLLBACK;

-- NAME: a reset is told until it is acknowledged; then all that is retained comes
UPDATE log SET a = a;
INSERT INTO log VALUES (1, 'x');
UPDATE esync.tracked_table SET pruned_through = (SELECT max(xid) FROM esync.event e WHERE e.table_id = tracked_table.table_id) WHERE relation = 'log'::regclass;
SELECT esync.invalidate('log');
SELECT * FROM told(esync_poll('con_a'));
SELECT * FROM told(esync_poll('con_a'));
SELECT consumer, pending, leased, reset, lags, behind FROM shown WHERE consumer = 'con_a';
SELECT code, message FROM fails($$SELECT esync_ack('con_a', 'e1.x')$$);
SELECT esync_ack('con_a', NULL);
SELECT consumer, cursor, pending, leased, reset, lags, behind > 5 AS behind FROM shown WHERE consumer = 'con_a';
-- whoever did not hear the answer may say so again, until there is something else to acknowledge
SELECT esync_ack('con_a', NULL);
SELECT t.n > 5 AS all_of_it, reset FROM told(esync_poll('con_a')) AS t;
SELECT code, message FROM fails($$SELECT esync_ack('con_a', NULL)$$);

-- NAME: where the history of one of its tables was dropped, that is told, also where the table is tracked again; then it goes on with the others
CREATE TABLE gone (id int PRIMARY KEY);
SELECT esync_enable('gone');
INSERT INTO gone VALUES (1);
SELECT esync_consumer_create('con_both', 'now', '{job,gone}');
SELECT esync_poll('con_both')->>'cursor' IS NOT NULL AS polled;
SELECT esync_disable('gone', true);
SELECT esync_enable('gone');
INSERT INTO gone VALUES (2);
UPDATE job SET a = 'on' WHERE id = (SELECT min(id) FROM job);
SELECT consumer, tables, reset, lags, behind FROM shown WHERE consumer = 'con_both';
SELECT * FROM told(esync_poll('con_both'));
SELECT esync_ack('con_both', NULL);
SELECT t.n > 0 AS some, t.reset, t.changes ~ 'gone' AS gone FROM told(esync_poll('con_both')) AS t;
SELECT esync_consumer_drop('con_both');
-- one that began at a cursor of more tables lacks none of them
SELECT esync_consumer_create('con_both', esync_changes('now', tables => '{job,gone}')->>'cursor', '{job}');
SELECT esync_disable('gone', true);
SELECT reset, lags, behind FROM shown WHERE consumer = 'con_both';
SELECT * FROM told(esync_poll('con_both'));
SELECT esync_consumer_drop('con_both');
DROP TABLE gone;

-- NAME: tables that are gone are left out
SELECT esync_consumer_create('con_gone', 'now', '{job,log}');
INSERT INTO job VALUES (77, 'red', 'last');
INSERT INTO log VALUES (78, 'lost');
DROP TABLE log;
SELECT consumer, tables FROM shown WHERE consumer = 'con_gone';
SELECT * FROM told(esync_poll('con_gone'));

SELECT count(esync_consumer_drop(consumer)) FROM shown;
SELECT * FROM shown;
RESET search_path;
SELECT esync_disable('con.job', true);
DROP SCHEMA con CASCADE;
DROP ROLE regress_esync_worker, regress_esync_team, regress_esync_stranger;
