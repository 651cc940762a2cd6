-- merging_tables.sql: the tables of one width that edits are merged into, and how one would
-- do the same by hand.  Variables: w (width: 50 or 6), rows.
--
-- Contestants: m<w>, tracked; hand<w>, an untracked copy.  Two functions take the batch of
-- esync_submit: loop<w> does an UPDATE an event, so that the last write wins and nothing
-- is kept; hand<w>_submit remembers ids, keeps what each event set, compares it with what came
-- after its base, field by field, and notes what clashes.  Neither knows more than one table,
-- creates and deletes, seqs, rejections or deferred constraints.
SELECT 'm' || :w AS m, 'hand' || :w AS hand, format('%I', 'hand' || :w || '_event') AS event,
	   format('%I', 'hand' || :w || '_conflict') AS conflict, columns, tbl AS source
FROM bench_source WHERE width = :w \gset
CREATE TABLE :m (LIKE :source INCLUDING ALL);
CREATE TABLE :hand (LIKE :source INCLUDING ALL);
SELECT esync_enable(:'m'::regclass);
INSERT INTO :m SELECT * FROM :source ORDER BY id LIMIT :rows;
INSERT INTO :hand SELECT * FROM :m;

CREATE TABLE :event (
	id			uuid,
	version		int,
	submit		timestamptz,
	device		text,
	changed		jsonb,
	PRIMARY KEY (id, version)
);
CREATE TABLE :conflict (id uuid, field text, version int, other int, PRIMARY KEY (id, field, version));
INSERT INTO :event SELECT id, 1, now(), NULL, to_jsonb(h) FROM :hand h;

SELECT format($f$
CREATE FUNCTION %1$I(batch jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	e		jsonb;
	results	jsonb[];
BEGIN
	FOR e IN SELECT jsonb_array_elements(batch->'events') LOOP
		UPDATE %2$I t SET (%3$s) = (SELECT %3$s FROM jsonb_populate_record(t, e->'set'))
		WHERE t.id = (e->>'key')::uuid;
		results := results || jsonb_build_object('id', e->'id', 'status', CASE WHEN FOUND THEN 'accepted' ELSE 'rejected' END);
	END LOOP;
	RETURN jsonb_build_object('results', to_jsonb(results));
END $$ $f$, 'loop' || :w, :'hand', :'columns') \gexec

SELECT format($f$
CREATE FUNCTION %1$I(batch jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	e		jsonb;
	late	record;
	f		text;
	shown	jsonb;
	head	int;
	clashes	int;
	row		jsonb;
	results	jsonb[];
BEGIN
	FOR e IN SELECT jsonb_array_elements(batch->'events') LOOP
		INSERT INTO hand_submission VALUES ((e->>'id')::uuid, e) ON CONFLICT DO NOTHING;
		CONTINUE WHEN NOT FOUND;
		PERFORM FROM %2$I t WHERE t.id = (e->>'key')::uuid FOR UPDATE;
		SELECT max(version) INTO head FROM %4$I l WHERE l.id = (e->>'key')::uuid;
		shown := e->'set';
		clashes := 0;
		FOR late IN SELECT version, submit, changed FROM %4$I l
					WHERE l.id = (e->>'key')::uuid AND version > (e->>'base_version')::int
					  AND device IS DISTINCT FROM batch->>'device_id' ORDER BY version LOOP
			FOR f IN SELECT k FROM jsonb_object_keys(e->'set') k
					 WHERE late.changed->k IS DISTINCT FROM e->'set'->k AND late.changed ? k LOOP
				INSERT INTO %5$I VALUES ((e->>'key')::uuid, f, head + 1, late.version)
				ON CONFLICT (id, field, version) DO UPDATE SET other = excluded.other;
				clashes := clashes + 1;
				IF late.submit > (e->>'submit_timestamp')::timestamptz THEN
					shown := shown - f;
				END IF;
			END LOOP;
		END LOOP;
		UPDATE %2$I t SET (%3$s) = (SELECT %3$s FROM jsonb_populate_record(t, shown))
		WHERE t.id = (e->>'key')::uuid RETURNING to_jsonb(t) INTO row;
		INSERT INTO %4$I VALUES ((e->>'key')::uuid, head + 1, (e->>'submit_timestamp')::timestamptz,
								 batch->>'device_id', e->'set');
		results := results || CASE WHEN clashes = 0
			THEN jsonb_build_object('id', e->'id', 'status', 'accepted', 'version', head + 1)
			ELSE jsonb_build_object('id', e->'id', 'status', 'conflict', 'version', head + 1, 'row', row) END;
	END LOOP;
	RETURN jsonb_build_object('results', to_jsonb(results));
END $$ $f$, 'hand' || :w || '_submit', :'hand', :'columns', 'hand' || :w || '_event',
		'hand' || :w || '_conflict') \gexec

-- The first rows get later versions, one a statement: four columns in turn, cycles or qty last.
SELECT format($f$
CREATE PROCEDURE %1$I(keys uuid[], times int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN REVERSE times - 1 .. 0 LOOP
		CASE i %% 2
			WHEN 0 THEN
				UPDATE %2$I SET %3$s WHERE id = ANY (keys);
				INSERT INTO %5$I SELECT id, 1 + (SELECT max(version) FROM %5$I l WHERE l.id = t.id), clock_timestamp(), NULL,
					jsonb_build_object(%6$L, t.%6$I) FROM %2$I t WHERE id = ANY (keys);
			ELSE
				UPDATE %2$I SET %4$s WHERE id = ANY (keys);
				INSERT INTO %5$I SELECT id, 1 + (SELECT max(version) FROM %5$I l WHERE l.id = t.id), clock_timestamp(), NULL,
					jsonb_build_object(%7$L, t.%7$I) FROM %2$I t WHERE id = ANY (keys);
		END CASE;
		COMMIT;
	END LOOP;
END $$ $f$, 'age' || :w, :'m',
		CASE :w WHEN 50 THEN 'cycles = cycles + 1' ELSE 'qty = qty + 1' END,
		CASE :w WHEN 50 THEN 'remark = md5(remark)' ELSE 'name = md5(name)' END,
		'hand' || :w || '_event', CASE :w WHEN 50 THEN 'cycles' ELSE 'qty' END,
		CASE :w WHEN 50 THEN 'remark' ELSE 'name' END) \gexec
