// The public suite json-patch-tests: every record through esync_patch, and
// through esync_try_patch, which must say the same as data.
//
// Records that the suite disables are run too.  One cannot pass: a patch with two
// members "op" that should be refused for that.  An argument of type jsonb has one
// left, the last one, so the record is held to what that one says.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

// malformed, pointer, no such member, no such index, scalar parent, not an array, failed test
const REFUSALS = /^(22023|22P02|2203A|22033|2203C|22039|YS010)$/;

const isDuplicate = record => record.comment === 'duplicate ops';

export async function patchBothWays(db, doc, patch)
{
	const tried = (await db.query('SELECT result::text, error FROM esync_try_patch($1, $2)', [doc, patch])).rows[0];

	try
	{
		const result = (await db.query('SELECT esync_patch($1, $2)::text AS r', [doc, patch])).rows[0].r;

		return { result, agree: tried.result === result && tried.error === null };
	}
	catch (e)
	{
		return { code: e.code, detail: e.detail,
				 agree: tried.result === null && tried.error !== null && typeof tried.error === 'object' };
	}
}

async function runRecord(db, tally, name, record)
{
	const got = await patchBothWays(db, JSON.stringify(record.doc), JSON.stringify(record.patch));
	const told = JSON.stringify({ doc: record.doc, patch: record.patch, got });
	const expected = isDuplicate(record) ? { baz: record.doc.foo } : record.expected ?? record.doc;
	let ok;

	if (record.error !== undefined && !isDuplicate(record))
		ok = got.agree && REFUSALS.test(got.code);
	else
		ok = got.agree && got.code === undefined
			&& (await db.query('SELECT $1::jsonb = $2::jsonb AS same', [got.result, JSON.stringify(expected)])).rows[0].same;
	if (isDuplicate(record))
		console.log(`  not to be passed with jsonb, ${ok ? 'does what it can' : 'WRONG'}: ${name}`);
	if (!isDuplicate(record) || !ok)
		tally.test(name, ok, told);
	return ok && !isDuplicate(record);
}

export async function conformance(db, tally, { suite })
{
	const dir = suite ?? path.dirname(createRequire(import.meta.url).resolve('json-patch-test-suite/package.json'));
	let total = 0;
	let passed = 0;

	for (const file of ['tests.json', 'spec_tests.json'])
	{
		const records = JSON.parse(readFileSync(path.join(dir, file), 'utf8'));

		for (const [i, record] of records.entries())
		{
			total++;
			if (await runRecord(db, tally, `${file} ${i + 1}: ${record.comment ?? JSON.stringify(record.patch)}`, record))
				passed++;
		}
	}
	console.log(`conformance suite: ${passed} of ${total} records`);
}
