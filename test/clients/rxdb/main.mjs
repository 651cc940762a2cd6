// RxDB through the REST layer of demo/rest; the last line is "N passed, N failed".
//   node main.mjs --host DIR --port N --seed N
// The databases rxdb and week have the tables of demo/1-tables.sql.

import './webcrypto.mjs';
import { parseArgs } from 'node:util';
import { Tally } from '../tally.mjs';
import { cases } from './cases.mjs';
import { random } from './random.mjs';
import { suite } from './suite.mjs';
import { setUp } from './setup.mjs';
import { week } from './orders.mjs';
import { World, within } from './world.mjs';

const { values: options } = parseArgs({ options: { host: { type: 'string' }, port: { type: 'string' },
	seed: { type: 'string', default: '1' } } });
const where = { host: options.host, port: Number(options.port) };
const seed = Number(options.seed);
const tally = new Tally();

await setUp(where);
for (const part of [suite, cases, random, week])
{
	const start = process.hrtime.bigint();
	const world = await World.open({ ...where, database: part === random ? 'random' : 'rxdb' });

	try
	{
		await within(300, part(world, tally, { ...where, seed }));
	}
	catch (e)
	{
		tally.test(`${part.name} runs to its end`, false, e.stack);
	}
	// a part that hangs has its requests open
	await Promise.race([world.close(), within(10, new Promise(() => {})).catch(() => {})]);
	console.log(`  ${part.name}: ${(Number(process.hrtime.bigint() - start) / 1e9).toFixed(1)} s`);
}
console.log(`${tally.passed} passed, ${tally.failed} failed`);
// a test that failed may have left a replication running
process.exit(tally.failed || !tally.passed ? 1 : 0);
