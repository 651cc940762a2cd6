// RxDB's own replication suite, runReplicationBaseTestSuite of rxdb/plugins/test-utils, as the package has it.
// It wants mocha's describe and it; here they note the tests, which are then run one after the other.

import { addRxPlugin } from 'rxdb';
import { RxDBAttachmentsPlugin } from 'rxdb/plugins/attachments';
import { wrappedValidateAjvStorage } from 'rxdb/plugins/validate-ajv';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { replicateRxCollection } from 'rxdb/plugins/replication';
import { runReplicationBaseTestSuite, setConfig } from 'rxdb/plugins/test-utils';
import { Device } from '../../../demo/rest/rxdb.mjs';
import { within } from './world.mjs';

const TABLE = `CREATE TABLE humans ("passportId" text PRIMARY KEY, "firstName" text NOT NULL, "lastName" text NOT NULL,
	age int CHECK (age BETWEEN 0 AND 150), deleted_at timestamptz);
GRANT SELECT, INSERT, UPDATE, DELETE ON humans TO web_user;
SELECT esync_enable('humans')`;

// The tests that a call of the suite declares, with their full names.
function declared(call)
{
	const tests = [];
	const path = [];

	globalThis.describe = (name, body) =>
	{
		path.push(name);
		body();
		path.pop();
	};
	globalThis.it = (name, run) => tests.push({ name: [...path, name].join(': '), run });
	call();
	return tests;
}

// What the suite asks of a server.  Each collection is a device of its own.
function harness(world)
{
	let devices = 0;
	const start = (collection, live) =>
	{
		const device = new Device({ url: world.url, id: `device-${++devices}`, headers: () => world.token('anna') });

		return replicateRxCollection({ collection, replicationIdentifier: `esync-${collection.name}`, live, retryTime: 500,
									   ...device.replicate(collection, { table: 'humans' }) });
	};
	const syncOnce = async collection =>
	{
		const replication = start(collection, false);

		replication.error$.subscribe(e => { world.errors.push(e); });
		await replication.awaitInitialReplication();
	};

	return { startReplication: collection => start(collection, true), syncOnce, syncOnceWithAttachmentsDisabled: syncOnce,
			 getPrimaryOfServerDoc: document => document.passportId };
}

// Twice: rows that are deleted are gone, and rows that are deleted have the time of it in a tombstone column.
export async function suite(world, tally)
{
	const { db, errors } = world;
	const all = async () => (await db.query('SELECT * FROM humans')).rows;
	const uncaught = e => { errors.push(e); };

	// the suite throws what a replication reports out of a subscription
	process.on('uncaughtException', uncaught);

	addRxPlugin(RxDBAttachmentsPlugin);
	setConfig({ storage: { name: 'memory', hasPersistence: false, hasMultiInstance: false,
						   getStorage: () => wrappedValidateAjvStorage({ storage: getRxStorageMemory() }) } });
	await db.query(TABLE);
	for (const [name, tombstone] of [['rows go', null], ['rows have a tombstone', 'deleted_at']])
	{
		// as if there had never been a row: the suite uses keys again
		const cleanUpServer = () => db.query(`SELECT esync_disable('humans', drop_history => true); DELETE FROM humans;
			SELECT esync_enable('humans', tombstone => ${tombstone ? `'${tombstone}'` : 'NULL'})`);

		const tests = declared(() => runReplicationBaseTestSuite({ ...harness(world), getAllServerDocs: all,
			softDeletes: tombstone !== null,
			isDeleted: document => document.deleted_at !== null, cleanUpServer }));

		for (const test of tests)
		{
			errors.length = 0;
			const failure = await within(30, test.run()).then(() => errors[0], e => e);

			tally.test(`${test.name} (${name})`, failure === undefined, failure?.stack ?? String(failure));
		}
		console.log(`  ${tests.length} tests of RxDB's own suite, ${name}`);
	}
	process.off('uncaughtException', uncaught);
	tally.test('every row is what its stream says', await world.value("SELECT count(*) = 0 FROM esync_verify('humans')"));
}
