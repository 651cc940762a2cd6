// POST /sync/submit and GET /sync/changes.

import { check } from './world.mjs';

const ID = n => `6a3c1f0e-0000-4000-8000-0000000ddd${n}`;

const BATCH = {
	device_id: 'tablet-7', batch_id: '5d0f8c1e-0000-4000-8000-0000000ddd00', events: [
		{ id: ID(11), seq: 11, tx: 't1', table: 'blocks', op: 'create', submit_timestamp: '2025-11-20T08:30:00Z',
		  document: { block_id: 'tmp:1', description: 'Bypass valve', vSetPressure: 98.5 } },
		{ id: ID(12), seq: 12, tx: 't1', table: 'productions', op: 'create', submit_timestamp: '2025-11-20T08:35:00Z',
		  document: { production_id: 501, block_id: 'tmp:1', volume: 12.5 } },
		{ id: ID(13), seq: 13, table: 'blocks', key: '17', op: 'update', base_version: 1, set: { vSetPressure: 140 },
		  submit_timestamp: '2025-11-20T09:00:00Z' },
		{ id: ID(14), seq: 14, table: 'blocks', key: { block_id: 99 }, op: 'update', base_version: 1, set: { remarks: '?' },
		  submit_timestamp: '2025-11-20T09:10:00Z' }],
};

async function submit(world, tally)
{
	const { anna, ben } = world;
	const first = check(tally, 'POST /sync/submit', await anna('POST', '/sync/submit', BATCH), 200,
						{ accepted: 3, conflict: 0, rejected: 1, ids: { 'tmp:1': 100 }, batch_id: BATCH.batch_id });

	tally.test('one result an event, in order', first.results.map(r => `${r.id.slice(-2)} ${r.code ?? r.status}`).join() ===
			   '11 accepted,12 accepted,13 accepted,14 not_found', JSON.stringify(first.results));
	const again = check(tally, 'the same batch again', await anna('POST', '/sync/submit', BATCH), 200,
		{ accepted: 3, ids: { 'tmp:1': 100 } });

	tally.test('its results say so', again.results.slice(0, 3).every(r => r.duplicate === true), JSON.stringify(again.results));
	tally.test('nothing happened twice', await world.value("SELECT count(*) = 2 FROM blocks WHERE block_id IN (17, 100)") &&
			   await world.value('SELECT count(*) = 1 FROM productions') &&
				await world.value("SELECT esync_version('blocks', 17) = 2"));
	check(tally, "another user's batch under these ids", await ben('POST', '/sync/submit',
		{ ...BATCH, device_id: 'tablet-9', events: [BATCH.events[2]] }),
		  200, { rejected: 1 });
	const clash = check(tally, 'a batch with a clash', await ben('POST', '/sync/submit', { device_id: 'tablet-9', events: [
		{ id: ID(21), seq: 1, table: 'blocks', key: '17', op: 'update', base_version: 1, set: { vSetPressure: 141 },
			submit_timestamp: '2025-11-19T10:00:00Z' }] }),
		200, { conflict: 1 });

	tally.test('names the row and the other edit', clash.results[0].row?.vSetPressure === 140 &&
		clash.results[0].conflicts[0].others[0].value === 140,
			   JSON.stringify(clash));
	check(tally, "a batch of another device than the header's",
		await anna('POST', '/sync/submit', { ...BATCH, device_id: 'tablet-8' }), 200, { rejected: 4 });
	for (const [name, body] of [['an array', '[]'], ['a number', '7'], ['no events', '{}'],
		['events that are no array', '{"events": 1}']])
		check(tally, `${name} for a batch`, await anna('POST', '/sync/submit', body), 400, { code: '22023' });
	check(tally, 'malformed JSON for a batch', await anna('POST', '/sync/submit', '{"events": ['), 400, { code: '22P02' });
	check(tally, 'nothing for a batch', await anna('POST', '/sync/submit'), 400, { code: '22P02' });
	const devices = await anna('GET', '/devices');

	tally.test('GET /devices', devices.status === 200 && devices.body.map(d => d.device_id).join() === 'tablet-7',
		devices.text);
}

// All pages from a cursor on.
async function all(who, query, cursor)
{
	const changes = [];
	let page;
	let pages = 0;

	do
	{
		const answer = await who('GET', `/sync/changes?${new URLSearchParams({ ...query, ...cursor && { cursor } })}`);

		if (answer.status !== 200)
			throw new Error(answer.text);
		page = answer.body;
		cursor = page.cursor;
		changes.push(...page.changes);
		pages++;
	} while (page.has_more);
	return { changes, cursor, pages };
}

async function changes(world, tally)
{
	const { anna, ben } = world;
	const first = await all(anna, { tables: 'blocks,productions', max_rows: 2 });
	const held = {};

	tally.test('GET /sync/changes comes in pages', first.pages > 2 && first.changes.length >= 5, JSON.stringify(first));
	for (const change of first.changes)
	{
		const row = `${change.table} ${change.aggregate_id}`;

		tally.property('versions of a row ascend', change.version > (held[row] ?? 0), () => JSON.stringify(first.changes));
		held[row] = change.version;
	}
	const whole = await all(anna, { tables: 'blocks', rows: true });
	const copy = {};

	for (const change of whole.changes)
		copy[change.aggregate_id] = change.set;
	tally.test('rows=true: the last change of each row is the row', await world.value(
		'SELECT jsonb_object_agg(block_id::text, to_jsonb(b)) = $1 FROM blocks b', JSON.stringify(copy)), JSON.stringify(copy));
	tally.test('tables: nothing of others', new Set(whole.changes.map(c => c.table)).size === 1);
	await ben('PUT', '/blocks/17', { remarks: 'new' });
	await ben('DELETE', '/blocks/18');
	const since = await all(anna, { tables: 'blocks,productions' }, first.cursor);

	tally.test('a cursor goes on where it stood', since.changes.map(c => `${c.aggregate_id} ${c.event_type} ${c.deleted}`).join() === '17 Updated false,18 Deleted true' &&
			   since.changes[0].set.remarks === 'new', JSON.stringify(since));
	tally.test("device_id leaves out the device's own", (await all(ben, { tables: 'blocks,productions', device_id: 'tablet-9' },
		first.cursor)).changes.length === 0);
	const { body: open } = await anna('GET', '/sync/changes?tables=blocks&max_rows=1');

	check(tally, 'an open page with other tables', await anna('GET',
		`/sync/changes?tables=blocks,productions&cursor=${open.cursor}`), 200,
		  { reset: true, reason: 'filter', changes: [] });
	const now = await anna('GET', '/sync/changes?cursor=now');

	check(tally, 'cursor=now', now, 200, { changes: [], has_more: false, reset: false });
	tally.test('and nothing since', (await all(anna, {}, now.body.cursor)).changes.length === 0);
	check(tally, 'a cursor that is none', await anna('GET', '/sync/changes?cursor=nonsense'), 400, { code: '22023' });
	check(tally, 'a negative max_rows', await anna('GET', '/sync/changes?max_rows=-1'), 400);
	check(tally, 'max_rows that is no number', await anna('GET', '/sync/changes?max_rows=many'), 400, { code: '22P02' });
	check(tally, 'a table that is not tracked', await anna('GET', '/sync/changes?tables=plain'), 404, { code: 'YS001' });
	check(tally, 'a table that is none', await anna('GET', '/sync/changes?tables=nothing'), 404, { code: '42P01' });
	check(tally, 'a parameter that is none', await anna('GET', '/sync/changes?table=blocks'), 400, { code: 'invalid' });
}

export async function sync(world, tally)
{
	await submit(world, tally);
	await changes(world, tally);
	tally.close(['versions of a row ascend']);
}
