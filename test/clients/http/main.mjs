// The REST layer of demo/rest, request by request, and the listener beside it; the last line is "N passed, N failed".
//   node main.mjs --host DIR --port N

import { parseArgs } from 'node:util';
import { Tally } from '../tally.mjs';
import { World } from './world.mjs';
import { conflicts } from './conflicts.mjs';
import { listener } from './listener.mjs';
import { layer } from './layer.mjs';
import { rows } from './rows.mjs';
import { sync } from './sync.mjs';
import { trust } from './trust.mjs';

const { values: options } = parseArgs({ options: { host: { type: 'string' }, port: { type: 'string' } } });
const tally = new Tally();

for (const part of [rows, sync, conflicts, trust, layer, listener])
{
	const start = process.hrtime.bigint();
	const before = tally.passed + tally.failed;
	const world = await World.create(`http_${part.name}`, { host: options.host, port: Number(options.port) });

	try
	{
		await part(world, tally);
	}
	catch (e)
	{
		tally.test(`${part.name} runs to its end`, false, e.stack);
	}
	await world.destroy();
	console.log(`  ${part.name}: ${tally.passed + tally.failed - before} tests, ${(Number(process.hrtime.bigint() - start) / 1e9).toFixed(1)} s`);
}
console.log(`${tally.passed} passed, ${tally.failed} failed`);
process.exitCode = tally.failed || !tally.passed ? 1 : 0;
