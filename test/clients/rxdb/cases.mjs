// What the week does not meet: answers that are lost, pages, resets, rejected edits, a device that edits again and again.

import { Client, difference, tableState } from './client.mjs';
import { Device } from '../../../demo/rest/rxdb.mjs';

const B = n => `b0000000-0000-4000-8000-0000f${String(n).padStart(7, '0')}`;
const P = n => `c0000000-0000-4000-8000-0000f${String(n).padStart(7, '0')}`;

const edit = async (collection, key, change) => (await collection.findOne(key).exec(true)).incrementalPatch(change);

const same = async (tally, world, name, ...clients) =>
{
	for (const table of ['blocks', 'productions'])
		for (const client of clients)
		{
			const wrong = difference(await client.state(table), await tableState(world.db, table));

			tally.test(`${name}: ${table}`, wrong === null, `device <, table >\n\t${wrong}`);
		}
};

// The answer of a push is lost: what is sent again is the same event.
async function lostAnswer(world, tally)
{
	const client = await Client.open(world, 'anna', 'lost-1');
	const request = client.device.request;
	let losses = 0;

	await client.sync();
	client.device.request = async function (path, options)
	{
		const answer = await request.call(this, path, options);

		if (path === '/sync/submit' && losses++ < 2)
			throw new Error('the answer is lost');
		return answer;
	};
	await client.blocks.insert({ block_id: B(1), vTagNo: 'PSV-901', vSetPressure: 10 });
	await edit(client.blocks, 'b0000000-0000-4000-8000-0000000eee01', { remarks: 'once' });
	await client.sync();
	tally.test('lost answers: pushed three times', losses === 3 && client.errors.length === 2,
		`${losses} ${client.errors.length}`);
	tally.test('lost answers: one event each', await world.value(
		"SELECT count(*) = 2 FROM esync.event WHERE device_id = 'lost-1'") &&
			await world.value('SELECT count(*) = 0 FROM esync_conflicts()'));
	tally.test('lost answers: the server counted repeats', await world.value("SELECT duplicates >= 4 FROM esync_devices() WHERE device_id = 'lost-1'"));
	await same(tally, world, 'lost answers', client);
	await client.close();
}

// Children are pushed before their parents: they wait for them, or come in the same batch.
async function parents(world, tally)
{
	const client = await Client.open(world, 'anna', 'parents-1');

	await client.sync();
	await client.productions.insert({ production_id: P(2), block_id: B(2), product_id: 1, produced_on: '2025-11-20',
		volume: 1 });
	await client.blocks.insert({ block_id: B(2), vTagNo: 'PSV-902' });
	const productions = client.sync(['productions']);

	await new Promise(resolve => setTimeout(resolve, 80));
	await Promise.all([productions, client.sync(['blocks'])]);
	await client.sync();
	tally.test('children first: both arrive', await world.value('SELECT count(*) = 1 FROM productions JOIN blocks USING (block_id) WHERE production_id = $1', P(2)) &&
			   client.rejected.length === 0, JSON.stringify(client.rejected));
	tally.test('children first: nothing stays rejected', await world.value("SELECT count(*) = 0 FROM esync_rejected() WHERE device_id = 'parents-1'"));
	await same(tally, world, 'children first', client);
	await client.close();
}

// A device is in no conflict with itself, nor with what it has seen, also where a value comes back.
async function again(world, tally)
{
	const anna = await Client.open(world, 'anna', 'again-1');
	const ben = await Client.open(world, 'ben', 'again-2');
	const key = 'b0000000-0000-4000-8000-0000000eee02';
	const production = 'c0000000-0000-4000-8000-0000000eee02';

	await anna.sync();
	await ben.sync();
	const live = ['blocks', 'productions'].map(table => anna.start(table, true));

	await Promise.all(live.map(r => r.awaitInitialReplication()));
	for (const value of [1, 2, 1, 2, 1])
	{
		await edit(anna.blocks, key, { vSetPressure: value });
		await edit(anna.productions, production, { volume: value });
		await Promise.all(live.map(r => r.awaitInSync()));
	}
	// while a push is on its way
	for (let i = 0; i < 20; i++)
		await edit(anna.blocks, key, { vWeight: i });
	await Promise.all(live.map(r => r.awaitInSync()));
	await Promise.all(live.map(r => r.cancel()));
	await ben.sync();
	await edit(ben.blocks, key, { vSetPressure: 2 });
	await ben.sync();
	await edit(ben.blocks, key, { vSetPressure: 1 });
	await ben.sync();
	await anna.sync();
	await edit(anna.blocks, key, { vSetPressure: 3 });
	await anna.sync();
	await ben.sync();
	const conflicts = (await world.db.query('SELECT tbl::text, field, contenders FROM esync_conflicts()')).rows;

	tally.test('again and again: no conflict', conflicts.length === 0, JSON.stringify(conflicts));
	tally.test('again and again: the last value shows', await world.value('SELECT "vSetPressure" = 3 AND "vWeight" = 19 FROM blocks WHERE block_id = $1', key));
	tally.test('again and again: one event for each save that was sent', await world.value(
		`SELECT count(*) = 5 FROM field_history('productions', $1::text, 'volume') WHERE device_id = 'again-1'`, production),
		JSON.stringify((await world.db.query(`SELECT value, device_id FROM field_history('productions', $1::text, 'volume')`,
			[production])).rows));
	await same(tally, world, 'again and again', anna, ben);
	await anna.close();
	await ben.close();
}

// What the server refuses is kept there, and the device is told and shows what the server has.
async function refused(world, tally)
{
	const client = await Client.open(world, 'anna', 'refused-1');
	const key = 'b0000000-0000-4000-8000-0000000eee03';

	await client.sync();
	await edit(client.blocks, key, { vSetPressure: -5 });
	await client.blocks.insert({ block_id: B(3), vTagNo: 'PSV-903', vSetPressure: -1 });
	await client.productions.insert({ production_id: P(3), block_id: B(99), product_id: 1, produced_on: '2025-11-20',
		volume: 1 });
	await client.sync();
	await client.sync();
	const codes = client.rejected.map(r => r.result.code).sort().join();

	tally.test('refused: the device is told', codes === 'constraint,constraint,fk', codes);
	tally.test('refused: the edits are kept', await world.value(
		"SELECT string_agg(code, ',' ORDER BY code) = 'constraint,constraint,fk' FROM esync_rejected() WHERE device_id = 'refused-1'"));
	tally.test('refused: the device goes on', client.errors.length === 0, String(client.errors[0]));
	await same(tally, world, 'refused', client);
	await client.close();
}

// Made, deleted, made again, cleared.
async function lives(world, tally)
{
	const anna = await Client.open(world, 'anna', 'lives-1');
	const ben = await Client.open(world, 'ben', 'lives-2');

	await anna.sync();
	await ben.sync();
	await anna.blocks.insert({ block_id: B(4), vTagNo: 'PSV-904' });
	await (await anna.blocks.findOne(B(4)).exec(true)).remove();
	await anna.sync();
	tally.test('made and deleted offline: nothing is sent', await world.value("SELECT esync_row('blocks', $1) IS NULL", B(4)) &&
		anna.rejected.length === 0);
	await anna.blocks.insert({ block_id: B(5), vTagNo: 'PSV-905', remarks: 'first life', vDocuments: { a: [1, { b: null }] },
		vDrawings: ['x'] });
	await anna.productions.insert({ production_id: P(5), block_id: B(5), product_id: 1, produced_on: '2025-11-20', volume: 1,
		note: 'n' });
	await anna.sync();
	await ben.sync();
	await same(tally, world, 'a first life', anna, ben);
	tally.test('columns that the device does not know have their defaults',
		await world.value(`SELECT "vPressureUnit" = 'bar(g)' FROM blocks WHERE block_id = $1`, B(5)));
	await (await ben.productions.findOne(P(5)).exec(true)).incrementalModify(d => { d.note = null; return d; });
	await (await ben.blocks.findOne(B(5)).exec(true)).incrementalModify(d => { delete d.vDocuments; return d; });
	await ben.sync();
	tally.test('a member that is taken away is NULL', await world.value(`SELECT "vDocuments" IS NULL AND note IS NULL FROM blocks JOIN productions USING (block_id) WHERE block_id = $1`, B(5)));
	await anna.sync();
	await same(tally, world, 'cleared', anna, ben);
	await (await ben.productions.findOne(P(5)).exec(true)).remove();
	await ben.sync();
	await anna.sync();
	await same(tally, world, 'deleted by ben', anna, ben);
	// anna has seen that ben deleted it; productions have no version property
	await anna.productions.insert({ production_id: P(5), block_id: B(5), product_id: 1, produced_on: '2025-11-21', volume: 2 });
	await anna.sync();
	await ben.sync();
	tally.test('made again by anna', await world.value('SELECT volume = 2 AND note IS NULL FROM productions WHERE production_id = $1', P(5)));
	await same(tally, world, 'made again', anna, ben);
	await (await anna.productions.findOne(P(5)).exec(true)).remove();
	await (await anna.blocks.findOne(B(5)).exec(true)).remove();
	await anna.blocks.insert({ block_id: B(5), vTagNo: 'PSV-905', isSealed: true, remarks: 'second life' });
	await anna.sync();
	await ben.sync();
	tally.test('made again by the device that deleted it', await world.value(`SELECT remarks = 'second life' FROM blocks WHERE block_id = $1`, B(5)));
	await same(tally, world, 'a second life', anna, ben);
	tally.test('lives: no conflict', await world.value("SELECT count(*) = 0 FROM esync_conflicts()"),
			   JSON.stringify((await world.db.query('SELECT * FROM esync_conflicts()')).rows));
	await anna.close();
	await ben.close();
}

// More changes than a page, and pages of nothing but deletions of what the device never held.
async function pages(world, tally)
{
	const small = await Client.open(world, 'anna', 'pages-1', { batchSize: 7 });
	const old = await Client.open(world, 'ben', 'pages-2', { batchSize: 7 });

	await old.sync();
	await world.db.query(`INSERT INTO blocks ("vTagNo") SELECT 'PAGE-' || n FROM generate_series(1, 50) AS n`);
	await world.db.query(`DELETE FROM blocks WHERE "vTagNo" ~ '^PAGE-[1-4]'`);
	await small.sync();
	await same(tally, world, 'pages', small);
	await world.db.query(`UPDATE blocks SET remarks = 'paged' WHERE "vTagNo" ~ '^PAGE-'`);
	await old.sync();
	await same(tally, world, 'pages, from an old checkpoint', old);
	await old.blocks.bulkInsert(Array.from({ length: 40 }, (_, i) => ({ block_id: B(50 + i), vTagNo: `PUSH-${i}` })));
	await old.sync();
	await small.sync();
	await same(tally, world, 'pushed in batches', small, old);
	await small.close();
	await old.close();
	// more at a time than the server takes in one batch
	const large = await Client.open(world, 'anna', 'pages-3', { batchSize: 2000 });

	await large.blocks.bulkInsert(Array.from({ length: 1100 }, (_, i) => ({ block_id: B(10000 + i), vTagNo: `LARGE-${i}`,
		remarks: 'x'.repeat(i < 700 ? 10 : 12000) })));
	await large.sync();
	tally.test('more than a batch: nothing is rejected', large.rejected.length === 0 && large.errors.length === 0 &&
			   await world.value("SELECT count(*) = 1100 FROM blocks WHERE \"vTagNo\" ~ '^LARGE-'"), `${large.rejected.length} ${large.errors[0]}`);
	await same(tally, world, 'more than a batch', large);
	await large.close();
}

// A cursor that the server cannot go on from: everything comes anew, and what is gone meanwhile goes.
async function reset(world, tally)
{
	const client = await Client.open(world, 'anna', 'reset-1');

	await client.sync();
	await edit(client.blocks, 'b0000000-0000-4000-8000-0000000eee04', { remarks: 'not handed in yet' });
	// rows that go where the stream does not see it, and a stream that is another one afterwards
	await world.db.query(`SET esync.enabled = off; DELETE FROM productions; RESET esync.enabled;
		SELECT esync_disable('productions', drop_history => true); SELECT esync_enable('productions', baseline => true)`);
	await world.db.query(`INSERT INTO productions (block_id, product_id, produced_on, volume) SELECT block_id, 1, '2025-11-22', 7 FROM blocks WHERE "vTagNo" = 'PSV-304'`);
	const before = (await client.state('productions')).length;
	const pulls = [];
	const request = client.device.request;

	client.device.request = async function (path, options)
	{
		const answer = await request.call(this, path, options);

		if (path.startsWith('/sync/changes'))
			pulls.push(answer.reset);
		return answer;
	};
	await client.sync();
	tally.test('reset: the server says so', before > 1 && pulls.includes(true), `${before} ${pulls}`);
	await same(tally, world, 'reset', client);
	tally.test('reset: an edit that waited is handed in', await world.value(`SELECT remarks = 'not handed in yet' FROM blocks WHERE "vTagNo" = 'PSV-304'`));
	await client.close();
}

// A reset while everything comes anew: what has not come yet is not taken for gone.
async function resetTwice(world, tally)
{
	const client = await Client.open(world, 'anna', 'reset-2');

	await client.sync();
	const before = (await client.state('blocks')).length;
	const removed = [];
	const request = client.device.request;
	const lost = { changes: [], reset: true, reason: 'epoch', cursor: null, has_more: false };
	let pulls = 0;

	client.blocks.$.subscribe(e => { if (e.operation === 'DELETE') removed.push(e.documentId); });
	client.device.request = function (path, options)
	{
		// the first page of a pull, and the second one of what is pulled anew for it
		if (path.startsWith('/sync/changes') && path.includes('tables=blocks') && ++pulls !== 2 && pulls <= 3)
			return lost;
		return request.call(this, path.replace('max_rows=500', 'max_rows=2'), options);
	};
	await client.sync(['blocks']);
	tally.test('a reset within a reset: nothing is deleted', before > 4 && pulls > 4 && removed.length === 0,
		`${before} ${pulls} ${removed.length}`);
	tally.test('a reset within a reset: RxDB tries again', client.errors.length === 1, String(client.errors));
	await same(tally, world, 'a reset within a reset', client);
	await client.close();
}

// A key of several columns, one of them no text.
async function composite(world, tally)
{
	const schema = { version: 0, type: 'object', primaryKey: { key: 'id', fields: ['currency', 'valid_from'], separator: '|' },
		required: ['id', 'currency', 'valid_from', 'rate'], properties: {
			id: { type: 'string', maxLength: 40 }, currency: { type: 'string', maxLength: 3 },
				valid_from: { type: 'string', maxLength: 20 }, rate: { type: 'number' } } };
	const clients = [];

	for (const name of ['composite-1', 'composite-2'])
	{
		const client = await Client.open(world, 'anna', name);

		Object.assign(client, await client.database.addCollections({ rates: { schema } }));
		clients.push(client);
	}
	const [one, two] = clients;
	const sync = async (...who) => { for (const client of who) await client.sync(['rates']); };
	const rates = async () => (await world.db.query('SELECT currency, valid_from::text, rate::float8 FROM rates ORDER BY 1, 2')).rows.map(r => Object.values(r).join()).join(' ');

	await one.rates.bulkInsert([{ currency: 'CHF', valid_from: '2025-11-01', rate: 0.95 },
		{ currency: 'USD', valid_from: '2025-11-01', rate: 1.15 }]);
	await sync(one, two);
	await edit(two.rates, 'CHF|2025-11-01', { rate: 0.96 });
	await (await two.rates.findOne('USD|2025-11-01').exec(true)).remove();
	await sync(two, one);
	tally.test('a key of two columns: the table', await rates() === 'CHF,2025-11-01,0.96', await rates());
	for (const client of clients)
	{
		const held = (await client.rates.find().exec()).map(d => d.toJSON());

		tally.test('a key of two columns: the devices', JSON.stringify(held.map(d => [d.id,
			d.rate])) === '[["CHF|2025-11-01",0.96]]' && client.errors.length === 0,
				   `${JSON.stringify(held)} ${client.errors[0]}`);
		await client.close();
	}
}

// One id for one content, another for another.
async function ids(world, tally)
{
	const client = await Client.open(world, 'anna', 'ids-1');
	const sent = [];
	const device = Object.assign(new Device({ url: world.url, id: 'ids-1' }),
		{ submit: event => { sent.push(event); return { status: 'accepted' }; } });
	const { push } = device.replicate(client.productions, { table: 'productions' });

	await client.productions.insert({ production_id: P(80), block_id: B(5), product_id: 1, volume: 1 });
	const state = (await client.productions.findOne(P(80)).exec(true)).toJSON();
	const row = newDocumentState => ({ newDocumentState: { ...newDocumentState, _deleted: false } });

	for (const document of [state, state, { ...state, volume: 2 }])
		await push.handler([row(document)]);
	tally.test('ids: the same for the same', sent[0].id === sent[1].id &&
		/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(sent[0].id), JSON.stringify(sent));
	tally.test('ids: another for another', sent[2].id !== sent[0].id && sent[2].seq === sent[0].seq - 1, JSON.stringify(sent));
	await client.close();
}

export async function cases(world, tally)
{
	for (const part of [ids, lostAnswer, parents, again, refused, lives, composite, pages, reset, resetTwice])
	{
		const start = Date.now();

		await part(world, tally);
		console.log(`  ${part.name}: ${Date.now() - start} ms`);
	}
	tally.test('cases: tables and streams agree', await world.value(
		"SELECT count(*) = 0 FROM (SELECT FROM esync_verify('blocks') UNION ALL SELECT FROM esync_verify('productions')) v"));
}
