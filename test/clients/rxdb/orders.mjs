// The week, in each order in which three devices can come back: each plays in a process and a database of its own.

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { difference } from './client.mjs';

const WEEK = fileURLToPath(new URL('week.mjs', import.meta.url));
const ORDERS = ['anna,ben,dora', 'anna,dora,ben', 'ben,anna,dora', 'ben,dora,anna', 'dora,anna,ben', 'dora,ben,anna'];
const ROWS = `
BEGIN;
SELECT esync_context(user_id => 'carla', device_id => 'office', submit_timestamp => '2025-11-14 15:00Z');
INSERT INTO products VALUES (1, 'Condensate', 790);
INSERT INTO blocks (block_id, "vTagNo", description, "vSetPressure", "vTrimMaterial", "vTestInterval")
SELECT format('b0000000-0000-4000-8000-0000000eee0%s', n)::uuid, 'PSV-30' || n, 'Safety valve ' || n, 100 + n, '1.4404', '1 year'
FROM generate_series(1, 4) AS n;
INSERT INTO productions SELECT format('c0000000-0000-4000-8000-0000000eee0%s', n)::uuid, format('b0000000-0000-4000-8000-0000000eee0%s', b)::uuid,
	1, '2025-11-14', 10 FROM (VALUES (1, 1), (2, 3), (3, 1), (4, 3)) AS p (n, b);
COMMIT`;

async function play(world, where, order, i)
{
	const database = `week_${i}`;

	await world.db.query(`CREATE DATABASE ${database} TEMPLATE week`);
	const { stdout } = await promisify(execFile)(process.execPath, [WEEK, '--host', where.host, '--port', String(where.port),
		'--database', database, '--order', order], { maxBuffer: 1e8, timeout: 120000 });

	return { order, ...JSON.parse(stdout.trim().split('\n').at(-1)) };
}

export async function week(world, tally, where)
{
	const answers = [];

	for (const [i, order] of ORDERS.entries())
		answers.push(await play(world, where, order, i));
	const [first] = answers;

	for (const { order, states, edits, lost, conflicts, rejected, told, errors, verify, taken } of answers)
	{
		tally.test(`${order}: the devices took the rows along`, taken === 4, String(taken));
		for (const table of ['blocks', 'productions'])
		{
			for (const user of ['anna', 'ben', 'dora'])
				tally.test(`${order}: ${user}'s ${table} are the table`,
					difference(states[table][user], states[table].table) === null,
						   difference(states[table][user], states[table].table));
			tally.test(`${order}: ${table} as in the first order`,
				difference(states[table].table, first.states[table].table) === null,
					   difference(states[table].table, first.states[table].table));
		}
		tally.test(`${order}: no edit is lost`, edits > 30 && lost.length === 0, JSON.stringify(lost));
		tally.test(`${order}: the conflicts of the first order`, conflicts.length > 4 &&
			JSON.stringify(conflicts) === JSON.stringify(first.conflicts),
				   `${JSON.stringify(conflicts, null, 1)}\n\nthe first:\n${JSON.stringify(first.conflicts, null, 1)}`);
		tally.test(`${order}: only the production of the deleted block may be rejected, and its device is told`,
				   rejected.every(r => r.code === 'fk' && r.device_id === 'phone-3') && rejected.length === told.length,
					JSON.stringify({ rejected, told }));
		tally.test(`${order}: no error on the way`, errors.length === 0, errors.join('\n'));
		tally.test(`${order}: tables and streams agree`, verify.length === 0, JSON.stringify(verify));
	}
	console.log(`  the week: ${first.edits} edits of 3 devices in ${ORDERS.length} orders, ${first.conflicts.length} conflicts, ` +
				`rejected ${answers.map(a => a.rejected.length).join(' ')}`);
}

// The rows that all devices take along.
export const rows = ROWS;
