// A device of the tests: an RxDB database in memory with blocks and productions, and replication when it is told to.

import { addRxPlugin, createRxDatabase } from 'rxdb';
import { RxDBDevModePlugin, disableWarnings } from 'rxdb/plugins/dev-mode';
import { replicateRxCollection } from 'rxdb/plugins/replication';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { wrappedValidateAjvStorage } from 'rxdb/plugins/validate-ajv';
import { Device } from '../../../demo/rest/rxdb.mjs';

disableWarnings();
addRxPlugin(RxDBDevModePlugin);

const text = { type: 'string' };
const number = { type: 'number' };
const uuid = { type: 'string', maxLength: 36 };

// Some of the 50 columns; the others are the server's.
const BLOCKS = {
	version: 0, primaryKey: 'block_id', type: 'object', required: ['block_id', 'vTagNo'], properties: {
		block_id: uuid, vTagNo: text, description: text, vSetPressure: number, vTrimMaterial: text, vWeight: number,
		vLastTestDate: text, vTestInterval: text, isSealed: { type: 'boolean' }, vDrawings: { type: 'array', items: text },
		vDocuments: { type: 'object', additionalProperties: true }, remarks: text, esync_version: { type: 'integer' },
	},
};
// without a version: the base is what was shown
const PRODUCTIONS = {
	version: 0, primaryKey: 'production_id', type: 'object', required: ['production_id', 'block_id', 'product_id'],
		properties: {
		production_id: uuid, block_id: uuid, product_id: { type: 'integer' }, produced_on: text, volume: number,
			note: { type: ['string', 'null'] },
	},
};

let databases = 0;

export class Client
{
	static async open(world, user, device, options = {})
	{
		const client = new Client();

		client.rejected = [];
		client.errors = [];
		client.sent = [];
		client.batchSize = options.batchSize;
		client.device = new Device({ url: world.url, id: device, headers: () => world.token(user), retryMs: 50,
			onRejected: (result, event) => { client.rejected.push({ result, event }); } });
		client.database = await createRxDatabase({ name: `client${++databases}`, multiInstance: false,
			storage: wrappedValidateAjvStorage({ storage: getRxStorageMemory() }) });
		Object.assign(client, await client.database.addCollections({ blocks: { schema: BLOCKS },
			productions: { schema: PRODUCTIONS } }));
		return client;
	}

	options(table)
	{
		return this.device.replicate(this[table], { table, version: table === 'blocks' ? 'esync_version' : undefined,
			batchSize: this.batchSize });
	}

	start(table, live)
	{
		const replication = replicateRxCollection({ collection: this[table], replicationIdentifier: `esync-${table}`, live,
			retryTime: 100, ...this.options(table) });

		replication.error$.subscribe(e => { this.errors.push(e); });
		return replication;
	}

	// Online for as long as it takes to hand in all edits and to take all changes.  RxDB does both at a time, and what the
	// server made of an edit comes with the pull after it.
	async sync(tables = ['blocks', 'productions'])
	{
		await this.once(tables);
		await this.once(tables);
	}

	async once(tables = ['blocks', 'productions'])
	{
		await Promise.all(tables.map(table => this.start(table, false).awaitInitialReplication()));
	}

	// What the device holds: documents without RxDB's fields, and without the version.
	async state(table)
	{
		const documents = (await this[table].find().exec()).map(d => d.toJSON());

		return documents.map(({ esync_version, ...document }) => document);
	}

	close()
	{
		return this.database.close();
	}
}

// The same of a table: properties of the schema, those that are there.
export async function tableState(db, table)
{
	const { properties, primaryKey } = table === 'blocks' ? BLOCKS : PRODUCTIONS;
	const { rows } = await db.query(`SELECT to_jsonb(t) AS row FROM ${table} t ORDER BY ${primaryKey}`);

	return rows.map(({ row }) => Object.fromEntries(Object.keys(properties).filter(name => name in row)
		.map(name => [name, row[name]]).filter(([name, value]) => value !== null ||
			[properties[name].type].flat().includes('null'))));
}

// Documents in an order of their own, members too, as text: for comparison.
export function canonical(documents)
{
	const sorted = value => value === null || typeof value !== 'object' ? value : Array.isArray(value) ? value.map(sorted) :
		Object.fromEntries(Object.keys(value).sort().map(key => [key, sorted(value[key])]));

	return documents.map(d => JSON.stringify(sorted(d))).sort().join('\n');
}

// Where two sets of documents differ: null, or the documents that only one of them has.
export function difference(a, b)
{
	const [left, right] = [a, b].map(documents => canonical(documents).split('\n'));
	const lines = [...left.filter(l => !right.includes(l)).map(l => `< ${l}`),
		...right.filter(l => !left.includes(l)).map(l => `> ${l}`)];

	return lines.length > 0 || left.length !== right.length ? lines.join('\n\t') : null;
}
