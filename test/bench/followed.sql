-- followed.sql: a table that 2 clients write and consumers follow.
CREATE TABLE followed (id int PRIMARY KEY, qty int, note text);
INSERT INTO followed SELECT i, 0, 'note ' || i FROM generate_series(1, 10000) i;
SELECT esync_enable('followed');
CREATE FUNCTION bench_consume(consumer text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	answer jsonb;
BEGIN
	LOOP
		answer := esync_poll(consumer);
		PERFORM esync_ack(consumer, answer->>'cursor');
		EXIT WHEN NOT (answer->>'has_more')::boolean;
	END LOOP;
END $$;
SELECT esync_consumer_create('consumer' || i, 'now', '{followed}') FROM generate_series(1, 10) i;
-- So many transactions of one UPDATE each; what each costs the backend, and how long it takes.
CREATE TABLE bench_written (what text, us numeric, tps numeric);
CREATE PROCEDURE bench_write(what text, n int) LANGUAGE plpgsql AS $$
DECLARE
	started	timestamptz := clock_timestamp();
	cpu		bigint := bench_cpu();
	key		int;
BEGIN
	FOR i IN 1 .. n LOOP
		key := 1 + floor(random() * 10000)::int;
		UPDATE followed SET qty = qty + 1 WHERE id = key;
		COMMIT;
	END LOOP;
	INSERT INTO bench_written VALUES (what, (bench_cpu() - cpu) / 1e3 / n,
		n / extract(epoch FROM clock_timestamp() - started));
END $$;
