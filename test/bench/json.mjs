// What fast-json-patch takes in node, in a process of its own: CPU time in microseconds.
//   node json.mjs MODULES < DOCUMENTS > TSV
// MODULES: a directory with node_modules; DOCUMENTS: lines of {"name", "a", "b"}, a and b as text.
// A line of TSV: name, us of compare, its operations, us to parse both, of applying one
// operation, of the same from text to text.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const { compare, applyOperation } = createRequire(path.join(path.resolve(process.argv[2]), 'x.js'))('fast-json-patch');
const OPERATION = { op: 'replace', path: '/section20/field12', value: 4711 };
let sink = 0;

// The median of 5 loops of about 50 ms each, after one to warm up.
function time(call)
{
	const loop = calls =>
	{
		const before = process.cpuUsage();

		for (let i = 0; i < calls; i++)
			sink += call() ? 1 : 0;
		const { user, system } = process.cpuUsage(before);

		return (user + system) / calls;
	};
	let calls = 10;

	while (loop(calls) * calls < 50000)
		calls *= 2;
	return Array.from({ length: 5 }, () => loop(calls)).sort((x, y) => x - y)[2];
}

for (const line of readFileSync(0, 'utf8').split('\n').filter(l => l))
{
	const { name, a, b } = JSON.parse(line);
	const [va, vb] = [JSON.parse(a), JSON.parse(b)];
	const large = name === 'large';

	console.log([name, time(() => compare(va, vb)), compare(va, vb).length, time(() => [JSON.parse(a), JSON.parse(b)]),
		large ? time(() => applyOperation(va, OPERATION, true, true)) : '\\N',
		large ? time(() => JSON.stringify(applyOperation(JSON.parse(a), OPERATION, true, true).newDocument)) : '\\N'].join('\t'));
}
if (sink === 0)
	throw new Error('nothing was measured');
