// GET, PUT and DELETE of a row: merged by the headers, refused by code and status.

import { check } from './world.mjs';

const ID = n => `6a3c1f0e-0000-4000-8000-0000000ccc${n}`;

async function merged({ db, anna, ben }, tally)
{
	const copy = check(tally, 'GET a row', await anna('GET', '/blocks/17'), 200, { version: 1, deleted: false });

	tally.test('the row is whole', JSON.stringify(copy.row) === JSON.stringify({ remarks: null, block_id: 17,
		description: 'Main valve', vSetPressure: 137 }),
			   JSON.stringify(copy));
	check(tally, 'GET of a key that never was', await anna('GET', '/blocks/99'), 404);
	check(tally, 'GET of a key that the column does not take', await anna('GET', '/blocks/x'), 400, { code: '22P02' });
	// anna's copy is of Monday, her edit of Tuesday, ben's edit of Wednesday; ben's arrives first
	const bens = { 'X-Branch-Timestamp': '2025-11-17T07:15:00Z', 'X-Base-Version': '1',
		'X-Submit-Timestamp': '2025-11-19T10:00:00Z' };
	const annas = { 'X-Branch-Timestamp': '2025-11-17T06:30:00Z', 'X-Base-Version': '1',
		'X-Submit-Timestamp': '2025-11-18T09:10:00Z' };

	check(tally, 'PUT without a clash', await ben('PUT', '/blocks/17', { block_id: 17, vSetPressure: 141, remarks: null },
		bens), 200,
		  { status: 'accepted', version: 2, duplicate: false });
	const late = check(tally, 'PUT of an older edit that clashes',
		await anna('PUT', '/blocks/17', { description: 'Main safety valve', vSetPressure: 139 }, annas), 200,
			{ status: 'conflict', version: 3 });

	tally.test('its answer has the merged row', late.row?.vSetPressure === 141 &&
		late.row?.description === 'Main safety valve' &&
			   late.conflicts?.[0]?.won === false && late.conflicts[0].others[0].user_id === 'ben', JSON.stringify(late));
	const { rows } = await db.query(`SELECT user_id, device_id, branch_timestamp, submit_timestamp, base_version FROM esync_history('blocks', 17)
		WHERE version = 3`);

	tally.test('the event has user, device and times of token and headers', rows[0].user_id === 'anna' &&
		rows[0].device_id === 'tablet-7' &&
			   rows[0].base_version === '1' && rows[0].branch_timestamp.toISOString() === '2025-11-17T06:30:00.000Z' &&
			   rows[0].submit_timestamp.toISOString() === '2025-11-18T09:10:00.000Z', JSON.stringify(rows));
}

// The headers of the two times alone: the base is what the server had when the copy was taken.
async function byTimes(world, tally)
{
	const { anna, ben } = world;
	const copy = (await anna('GET', '/blocks/18')).body;

	check(tally, 'PUT by another while the copy is out', await ben('PUT', '/blocks/18', { vSetPressure: 91 },
		{ 'X-Submit-Timestamp': '2025-11-19T10:00:00Z' }), 200);
	check(tally, 'PUT with X-Branch-Timestamp and X-Submit-Timestamp alone merges',
		await anna('PUT', '/blocks/18', { vSetPressure: 92, remarks: 'seen' },
			{ 'X-Branch-Timestamp': copy.branch_timestamp, 'X-Submit-Timestamp': new Date().toISOString() }), 200,
				{ status: 'conflict' });
	tally.test('both fields arrived, the later pressure shows',
			   await world.value(`SELECT "vSetPressure" = 92 AND remarks = 'seen' FROM blocks WHERE block_id = 18`));
	check(tally, 'PUT with a malformed time', await anna('PUT', '/blocks/18', { remarks: 'x' },
		{ 'X-Submit-Timestamp': 'yesterdayish' }), 400);
	check(tally, 'PUT with a malformed version', await anna('PUT', '/blocks/18', { remarks: 'x' }, { 'X-Base-Version': 'one' }),
		400);
}

async function repeated(world, tally)
{
	const { anna } = world;
	const headers = { 'Idempotency-Key': ID('01'), 'X-Submit-Timestamp': '2025-11-20T09:00:00Z' };
	const once = check(tally, 'PUT with an id', await anna('PUT', '/blocks/17', { remarks: 'once' }, headers), 200,
		{ id: ID('01'), duplicate: false });

	check(tally, 'PUT repeated', await anna('PUT', '/blocks/17', { remarks: 'once' }, headers), 200,
		{ duplicate: true, version: once.version });
	check(tally, 'PUT of something else under its id', await anna('PUT', '/blocks/17', { remarks: 'twice' }, headers), 409,
		{ code: 'id_reused' });
	check(tally, 'PUT with an id that is no uuid', await anna('PUT', '/blocks/17', { remarks: 'x' },
		{ 'Idempotency-Key': '1' }), 400, { code: '22P02' });
}

async function refused(world, tally)
{
	const { anna } = world;
	const put = (path, body, headers) => anna('PUT', path, body, headers);

	check(tally, 'malformed JSON', await put('/blocks/17', '{"remarks": '), 400, { code: 'invalid' });
	check(tally, 'an array for a document', await put('/blocks/17', []), 400, { code: 'invalid' });
	check(tally, 'null for a document', await put('/blocks/17', 'null'), 400, { code: 'invalid' });
	check(tally, 'no body', await put('/blocks/17'), 400, { code: 'invalid' });
	check(tally, 'a key that contradicts the path', await put('/blocks/17', { block_id: 18 }), 400, { code: 'invalid' });
	check(tally, 'a value that the column does not take', await put('/blocks/17', { vSetPressure: 'much' }), 400,
		{ status: 'rejected', code: 'invalid' });
	check(tally, 'a column that never was', await put('/blocks/17', { colour: 'red' }), 400, { code: 'unknown_column' });
	check(tally, 'a constraint', await put('/blocks/17', { vSetPressure: -1 }), 422, { code: 'constraint', retryable: false });
	check(tally, 'a foreign key', await put('/productions/1', { block_id: 99, volume: 1 }), 422,
		{ code: 'fk', retryable: true });
	check(tally, 'a base beyond the head', await put('/blocks/17', { remarks: 'x' }, { 'X-Base-Version': '1000' }), 400,
		{ code: 'base_unknown' });
	check(tally, 'a table that is none', await put('/nothing/1', {}), 404, { code: '42P01' });
	check(tally, 'a table that is not tracked', await put('/plain/1', {}), 400, { code: 'unknown_table' });
	check(tally, 'GET of a table that is not tracked', await anna('GET', '/plain/1'), 404, { code: 'YS001' });
	const kept = await world.value("SELECT string_agg(code, ' ' ORDER BY rejected_id) FROM esync_rejected() WHERE user_id = 'anna' AND device_id = 'tablet-7'");

	tally.test('what was refused is kept', kept === 'id_reused invalid unknown_column constraint fk base_unknown unknown_table',
		kept);
	await world.db.query("SELECT esync_enable('rates', on_conflict => 'reject')");
	check(tally, 'PUT of a row of two key columns', await put('/rates/' + encodeURIComponent('["CHF", "2025-11-01"]'),
		{ rate: '0.95' }), 200, { status: 'accepted', version: 1 });
	check(tally, 'its key as an object', await put('/rates/' + encodeURIComponent('{"valid_from": "2025-11-01", "currency": "CHF"}'), { rate: 0.96 }), 200, { version: 2 });
	check(tally, 'on_conflict => reject', await put('/rates/' + encodeURIComponent('["CHF", "2025-11-01"]'), { rate: 0.97 },
		{ 'X-Base-Version': '1' }), 409, { code: 'conflict' });
	check(tally, 'a key of too few parts', await put('/rates/CHF', { rate: 1 }), 400, { code: 'invalid' });
}

// Numbers pass the layer as text: none is rounded to a double.
async function exact(world, tally)
{
	const digits = '123456789012345678901234567890.10';

	await world.anna('PUT', '/blocks/17', `{"vSetPressure": ${digits}}`);
	tally.test('a long number arrives', await world.value('SELECT "vSetPressure"::text FROM blocks WHERE block_id = 17') === digits);
	tally.test('and leaves', (await world.anna('GET', '/blocks/17')).text.includes(`"vSetPressure": ${digits}`));
}

// So do keys, of paths and of documents; what is equal by the column's type is the same key, however it is spelt.
async function exactKeys(world, tally)
{
	const { anna, db } = world;
	const [odd, even] = ['9007199254740993', '9007199254740992'];
	const path = (tbl, key) => `/${tbl}/${encodeURIComponent(key)}`;

	await db.query(`CREATE TABLE big (id bigint PRIMARY KEY, v text);
		CREATE TABLE pairs (a bigint, b text, v text, PRIMARY KEY (a, b));
		CREATE TABLE codes (id numeric PRIMARY KEY, v text); CREATE TABLE uuids (id uuid PRIMARY KEY, v text);
		GRANT SELECT, INSERT, UPDATE, DELETE ON big, pairs, codes, uuids TO web_user;
		SELECT esync_enable('big'), esync_enable('pairs'), esync_enable('codes'), esync_enable('uuids');
		INSERT INTO big VALUES (${odd}, 'odd'), (${even}, 'even'), (17, 'small');
		INSERT INTO pairs VALUES (${odd}, 'x', 'odd'), (${even}, 'x', 'even');
		INSERT INTO codes VALUES (1.5, 'c'); INSERT INTO uuids VALUES ('6a3c1f0e-0000-4000-8000-0000000ccc77', 'u')`);
	check(tally, 'PUT to a key of two columns beyond 2^53', await anna('PUT', path('pairs', `[${odd},"x"]`), { v: 'array' }), 200,
		{ version: 2 });
	check(tally, 'as an object', await anna('PUT', path('pairs', `{"b": "x", "a": ${odd}}`), { v: 'object' }), 200, { version: 3 });
	check(tally, 'repeated in the document', await anna('PUT', path('pairs', `[${odd},"x"]`), `{"a": ${odd}, "b": "x", "v": "both"}`),
		200, { version: 4 });
	check(tally, 'another in the document', await anna('PUT', path('pairs', `[${odd},"x"]`), `{"a": ${even}, "v": "wrong"}`), 400,
		{ code: 'invalid' });
	check(tally, 'of too many parts', await anna('PUT', path('pairs', `[${odd},"x",1]`), { v: 'wrong' }), 400, { code: 'invalid' });
	const pairs = await world.value("SELECT string_agg(v, ' ' ORDER BY a) FROM pairs");

	tally.test('is written to that row', pairs === 'even both', pairs);
	check(tally, 'PUT to a key beyond 2^53 of what GET answered', await anna('PUT', path('big', odd), `{"id": ${odd}, "v": "new"}`),
		200, { version: 2 });
	check(tally, 'its neighbour in the document', await anna('PUT', path('big', odd), `{"id": ${even}, "v": "wrong"}`), 400,
		{ code: 'invalid' });
	check(tally, 'null in the document', await anna('PUT', path('big', odd), { id: null, v: 'wrong' }), 400, { code: 'invalid' });
	check(tally, 'another spelling of a number', await anna('PUT', '/big/017', { id: 17, v: 'new' }), 200, { version: 2 });
	check(tally, 'of a numeric', await anna('PUT', '/codes/1.50', { id: 1.5, v: 'new' }), 200, { version: 2 });
	check(tally, 'of a uuid', await anna('PUT', '/uuids/6A3C1F0E-0000-4000-8000-0000000CCC77',
		{ id: '6a3c1f0e-0000-4000-8000-0000000ccc77', v: 'new' }), 200, { version: 2 });
	const left = await world.value("SELECT string_agg(id || ' ' || v, ', ' ORDER BY id) FROM big");

	tally.test('no other row is written', left === `17 new, ${even} even, ${odd} new`, left);
}

// The key is what it is called now, whichever columns it is, and whatever a role may read of esync's own tables.
async function keyNames(world, tally)
{
	const { anna, db } = world;

	await db.query(`CREATE TABLE tags (id int PRIMARY KEY, tag text NOT NULL UNIQUE, v text);
		GRANT SELECT, INSERT, UPDATE, DELETE ON tags TO web_user;
		SELECT esync_enable('tags', key => '{tag}');
		ALTER TABLE rates RENAME COLUMN valid_from TO since;
		ALTER TABLE tags RENAME COLUMN tag TO name;
		REVOKE SELECT ON esync.tracked_table FROM PUBLIC`);
	check(tally, 'PUT to a row whose key column was renamed', await anna('PUT',
		'/rates/' + encodeURIComponent('["USD", "2025-11-01"]'), { rate: 0.8 }), 200, { status: 'accepted', version: 1 });
	check(tally, 'its new name in the key', await anna('PUT',
		'/rates/' + encodeURIComponent('{"currency": "USD", "since": "2025-11-01"}'), { rate: 0.9 }), 200, { version: 2 });
	check(tally, 'its new name in the document', await anna('PUT', '/rates/' + encodeURIComponent('["USD", "2025-11-01"]'),
		{ since: '2025-11-02', rate: 1 }), 400, { code: 'invalid' });
	check(tally, 'PUT to a key that is not the primary one', await anna('PUT', '/tags/PSV-1', { id: 1, v: 'x' }), 200,
		{ status: 'accepted', version: 1 });
	check(tally, 'PUT to a table that is not tracked', await anna('PUT', '/plain/1', {}), 400, { code: 'unknown_table' });
	await db.query('GRANT SELECT ON esync.tracked_table TO PUBLIC');
}

async function deleted(world, tally)
{
	const { anna, ben } = world;

	check(tally, 'DELETE', await anna('DELETE', '/blocks/18', undefined, { 'Idempotency-Key': ID('09') }), 200,
		{ status: 'accepted', deleted: true });
	check(tally, 'DELETE repeated', await anna('DELETE', '/blocks/18', undefined, { 'Idempotency-Key': ID('09') }), 200,
		{ duplicate: true });
	check(tally, 'DELETE of what is deleted agrees', await ben('DELETE', '/blocks/18'), 200,
		{ status: 'accepted', deleted: true });
	check(tally, 'DELETE of a key that never was', await ben('DELETE', '/blocks/99'), 404,
		{ code: 'not_found', retryable: true });
	check(tally, 'GET of what is deleted', await ben('GET', '/blocks/18'), 200, { row: null, deleted: true });
	const { rejected_id: id } = await world.db.query("SELECT rejected_id FROM esync_rejected() WHERE code = 'not_found'").then(r => r.rows[0]);

	check(tally, 'GET /rejected', await ben('GET', '/rejected?table=blocks'), 200);
	check(tally, 'POST /rejected/:id/retry', await ben('POST', `/rejected/${id}/retry`), 404,
		{ code: 'not_found', status: 'rejected' });
	check(tally, 'retry as amended', await ben('POST', `/rejected/${id}/retry`,
		{ table: 'blocks', op: 'save', document: { block_id: 99, description: 'new' } }), 200, { status: 'accepted' });
	const other = await world.value("SELECT rejected_id FROM esync_rejected() WHERE code = 'constraint'");

	check(tally, 'DELETE /rejected/:id', await anna('DELETE', `/rejected/${other}`), 204);
	check(tally, 'of one that never was', await anna('DELETE', '/rejected/100000'), 404, { code: 'P0002' });
}

export async function rows(world, tally)
{
	for (const part of [merged, byTimes, repeated, refused, exact, exactKeys, keyNames, deleted])
		await part(world, tally);
}
