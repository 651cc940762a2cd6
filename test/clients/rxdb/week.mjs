// One week, one order: three devices that were offline come back in the order given; prints what came of it as JSON.
//   node week.mjs --host DIR --port N --database NAME --order anna,ben,dora

import './webcrypto.mjs';
import { parseArgs } from 'node:util';
import { Client, tableState } from './client.mjs';
import { World } from './world.mjs';

const DEVICES = { anna: 'tablet-7', ben: 'tablet-9', dora: 'phone-3' };
const B = n => `b0000000-0000-4000-8000-0000000eee0${n}`;
const P = n => `c0000000-0000-4000-8000-0000000eee0${n}`;

// When, who, table, key, and the members that are set (undefined: cleared), 'delete', or 'create' with the document.
const EDITS = [
	['17 08:00', 'anna', 'blocks', B(1), { vSetPressure: 139, vLastTestDate: '2025-11-17' }],
	['17 09:00', 'ben', 'blocks', B(1), { vSetPressure: 141, vTrimMaterial: '1.4462' }],
	['17 10:00', 'dora', 'blocks', B(1), { remarks: 'seal broken', vWeight: 42.5 }],
	['17 11:00', 'anna', 'blocks', B(3), { remarks: 'first look' }],
	['17 12:00', 'dora', 'blocks', B(3), { description: 'Knock-out drum, level 2', vDocuments: { manual: { page: 3 } } }],
	['18 08:00', 'dora', 'blocks', B(1), { vSetPressure: 140 }],
	['18 09:00', 'anna', 'blocks', B(2), 'delete'],
	['18 10:00', 'ben', 'blocks', B(3), { description: undefined, vDrawings: ['A1', 'A2'] }],
	['18 11:00', 'anna', 'blocks', B(3), { remarks: 'second look', isSealed: false }],
	['19 08:00', 'ben', 'blocks', B(2), { remarks: 'new bellows ordered' }],
	['19 09:00', 'anna', 'blocks', B(5), { create: { vTagNo: 'PSV-305', vSetPressure: 98.5 } }],
	['19 09:05', 'anna', 'productions', P(5), { create: { block_id: B(5), product_id: 1, produced_on: '2025-11-19',
		volume: 42.5 } }],
	['19 10:00', 'ben', 'blocks', B(6), { create: { vTagNo: 'PSV-306', remarks: 'found in the store' } }],
	['19 11:00', 'dora', 'productions', P(6), { create: { block_id: B(3), product_id: 1, produced_on: '2025-11-19', volume: 1,
		note: 'by hand' } }],
	['19 12:00', 'dora', 'productions', P(2), { note: 'checked' }],
	// one key, made on two devices
	['19 13:00', 'anna', 'blocks', B(7), { create: { vTagNo: 'PSV-307', description: 'Bypass', vSetPressure: 12 } }],
	['19 14:00', 'ben', 'blocks', B(7), { create: { vTagNo: 'PSV-307', description: 'Bypass of V-300', vWeight: 7 } }],
	// a block that is deleted here and gets a production there
	['20 08:00', 'ben', 'blocks', B(4), 'delete'],
	['20 09:00', 'dora', 'productions', P(7), { create: { block_id: B(4), product_id: 1, produced_on: '2025-11-20',
		volume: 3 } }],
	['20 10:00', 'anna', 'productions', P(1), { volume: 11 }],
	['20 10:30', 'ben', 'productions', P(1), { volume: 12, note: 'weighed again' }],
	['20 11:00', 'dora', 'productions', P(3), 'delete'],
	['20 11:30', 'anna', 'productions', P(3), { volume: 33 }],
	['20 12:00', 'ben', 'productions', P(4), 'delete'],
	['20 12:30', 'dora', 'productions', P(4), 'delete'],
];

const KEY = { blocks: 'block_id', productions: 'production_id' };

// The devices' clock during the week; RxDB asks it when it stores a document.
function setClock(time)
{
	Date.now = () => Date.parse(`2025-11-${time.replace(' ', 'T')}:00Z`);
}

async function play(clients)
{
	for (const [time, user, table, key, edit] of EDITS)
	{
		setClock(time);
		const collection = clients[user][table];

		if (edit.create)
			await collection.insert({ [KEY[table]]: key, ...edit.create });
		else
		{
			const document = await collection.findOne(key).exec(true);

			await (edit === 'delete' ? document.remove() : document.incrementalModify(data =>
			{
				for (const [name, value] of Object.entries(edit))
					if (value === undefined)
						delete data[name];
					else
						data[name] = value;
				return data;
			}));
		}
	}
}

// What each device left of each row, field by field: RxDB hands over states, so an edit that the same device replaced is none.
function left()
{
	const fields = new Map();

	for (const [, user, table, key, edit] of EDITS)
		for (const [field, value] of edit === 'delete' ? [[null, null]] : Object.entries(edit.create ?? edit))
			fields.set([user, table, key, field].join(), { device: DEVICES[user], table, key, field, value: value ?? null });
	return [...fields.values()];
}

// Is it in the stream, or among what was rejected?
async function isKept(world, { device, table, key, field, value })
{
	if (field === null)
		return world.value("SELECT bool_or(event_type = 'Deleted') FROM esync_history($1::regclass, $2::text)", table, key);
	return world.value(`
SELECT EXISTS (SELECT FROM field_history($2::regclass, $3::text, $4) h WHERE h.device_id = $1 AND h.value = $5::jsonb)
	OR EXISTS (SELECT FROM esync_rejected() r WHERE r.device_id = $1 AND r.aggregate_id = $3 AND r.event -> 'document' -> $4 = $5::jsonb)`,
		device, table, key, field, JSON.stringify(value));
}

const { values: options } = parseArgs({ options: { host: { type: 'string' }, port: { type: 'string' },
	database: { type: 'string' }, order: { type: 'string' } } });
const now = Date.now;
const world = await World.open({ host: options.host, port: Number(options.port), database: options.database });
const clients = {};
const answer = { states: {}, lost: [], errors: [] };

setClock('17 06:00');
for (const user in DEVICES)
{
	clients[user] = await Client.open(world, user, DEVICES[user]);
	await clients[user].sync();
}
answer.taken = (await clients.dora.state('blocks')).length;
await play(clients);
Date.now = now;
for (const user of options.order.split(','))
	await clients[user].sync();
// and once more, for what those brought that came later
for (const user of options.order.split(','))
	await clients[user].sync();
for (const table of ['blocks', 'productions'])
{
	answer.states[table] = { table: await tableState(world.db, table) };
	for (const user in DEVICES)
		answer.states[table][user] = await clients[user].state(table);
}
for (const edit of left())
	if (!await isKept(world, edit))
		answer.lost.push(edit);
answer.edits = left().length;
answer.conflicts = (await world.db.query(`
SELECT tbl::text, aggregate_id, field, kind, (SELECT jsonb_agg(c -> 'value' ORDER BY c ->> 'device_id') FROM jsonb_array_elements(contenders) c) AS contenders
FROM esync_conflicts() ORDER BY 1, 2, 3`)).rows;
answer.rejected = (await world.db.query('SELECT aggregate_id, code, device_id FROM esync_rejected() ORDER BY 1, 2')).rows;
answer.told = Object.values(clients).flatMap(c => c.rejected.map(r => r.result.code));
answer.errors = Object.values(clients).flatMap(c => c.errors.map(e => String(e)));
answer.verify = (await world.db.query("SELECT * FROM esync_verify('blocks') UNION ALL SELECT * FROM esync_verify('productions')")).rows;
for (const user in DEVICES)
	await clients[user].close();
await world.close();
console.log(JSON.stringify(answer));
