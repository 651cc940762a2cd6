// Runs every JSON test against one server; the last line is "N passed, N failed".
//   node main.mjs --host DIR --port N --seed N --pairs N [--suite DIR]

import { parseArgs } from 'node:util';
import pg from 'pg';
import { Tally } from '../tally.mjs';
import { conformance } from './conformance.mjs';
import { cases } from './cases.mjs';
import { differential } from './differential.mjs';
import { mergePatches } from './merge-patch.mjs';
import { sizes } from './sizes.mjs';

const { values: options } = parseArgs({ options: {
	host: { type: 'string' }, port: { type: 'string' }, suite: { type: 'string' },
	seed: { type: 'string', default: '1' }, pairs: { type: 'string', default: '20000' },
} });
const tally = new Tally();
const db = new pg.Client({ host: options.host, port: Number(options.port),
						   user: 'postgres', database: 'postgres' });

await db.connect();
await db.query('CREATE EXTENSION esync');
for (const part of [conformance, cases, sizes, mergePatches, differential])
{
	const start = process.hrtime.bigint();

	await part(db, tally, { seed: Number(options.seed), pairs: Number(options.pairs), suite: options.suite });
	console.log(`  ${part.name}: ${(Number(process.hrtime.bigint() - start) / 1e9).toFixed(1)} s`);
}
await db.end();
console.log(`${tally.passed} passed, ${tally.failed} failed`);
process.exitCode = tally.failed || !tally.passed ? 1 : 0;
