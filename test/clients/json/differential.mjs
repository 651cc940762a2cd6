// Random and real pairs of documents: esync and three libraries from npm must
// understand each other's patches, and esync's own laws must hold.
//
// PostgreSQL compares by =, where 1.0 is 1; where a law promises more, texts are
// compared.  A result is also held against its own text read back: the same size and
// equality, which walks both, say that its binary form is as the server makes it.

import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { isDeepStrictEqual } from 'node:util';
import path from 'node:path';
import * as rfc6902 from 'rfc6902';
import * as jsondiffpatch from 'jsondiffpatch';
import * as jsonpatchFormatter from 'jsondiffpatch/formatters/jsonpatch';
import { edited, fromValue, pair, random, toText } from './generate.mjs';

const fastJsonPatch = createRequire(import.meta.url)('fast-json-patch');
const differ = jsondiffpatch.create({ objectHash: (o, i) => o?.id ?? `#${i}` });
const BATCH = 500;
const FIXED = 500;			// pairs of real documents
const RFC6902_BUDGET = 1000;

// Is a value in binary what its text gives?  Neither a sort nor an aggregate may come between:
// both store values on the way, short ones in another form than they were made.
export const asMade = e => `(${e} = ${e}::text::jsonb AND pg_column_size(${e}) = pg_column_size(${e}::text::jsonb))`;

// One row per pair: our patches, and each law as a boolean.
const OURS = `
SELECT n::int, p::text AS patch, pe::text AS exact,
	   esync_patch(a, p) = b AS law,
	   esync_patch(a, pe)::text = b::text AS law_exact,
	   esync_patch(a, pr) = b AS law_replace,
	   (p = '[]') = (a = b) AS empty,
	   esync_diff(a, a) = '[]' AS same,
	   esync_patch(esync_patch(a, p), esync_invert(a, p))::text = a::text AS invert,
	   esync_patch(esync_patch(a, pe), esync_invert(a, pe))::text = a::text AS invert_exact,
	   ${['p', 'pr', 'esync_patch(a, p)', 'esync_invert(a, p)', 'esync_patch(a, pr)'].map(asMade).join(' AND ')} AS binary
FROM unnest($1::jsonb[], $2::jsonb[]) WITH ORDINALITY u (a, b, n),
	 LATERAL (SELECT esync_diff(a, b) AS p, esync_diff(a, b, exact => true) AS pe,
			  esync_diff(a, b, arrays => 'replace') AS pr OFFSET 0) d`;

// Their patches: the result, and the way back.
const THEIRS = `
SELECT esync_patch(a, p) = b AS law, esync_patch(esync_patch(a, p), esync_invert(a, p))::text = a::text AS invert
FROM unnest($1::jsonb[], $2::jsonb[], $3::jsonb[]) WITH ORDINALITY u (a, b, p, n) ORDER BY n`;

const LAWS = {
	law: 'esync_patch(a, esync_diff(a, b)) = b',
	law_exact: 'with exact => true: = b to the letter',
	law_replace: "with arrays => 'replace': = b",
	empty: 'esync_diff(a, b) is [] where a = b, and only there',
	same: 'esync_diff(a, a) = []',
	invert: 'esync_invert leads back to a, to the letter',
	invert_exact: 'esync_invert of an exact patch leads back too',
	binary: 'results are as large as their texts read back, and equal',
};

// rfc6902 changes its argument in place and cannot exchange the root: one level is put around it.
function applyRfc6902(a, patch)
{
	const box = { d: structuredClone(a) };
	const moved = patch.map(op => ({ ...op, path: '/d' + op.path, ...(op.from !== undefined && { from: '/d' + op.from }) }));
	const errors = rfc6902.applyPatch(box, moved).filter(e => e);

	if (errors.length > 0)
		throw errors[0];
	return box.d;
}

const appliers = {
	'fast-json-patch, validating, applies ours': (a, patch) =>
		fastJsonPatch.applyPatch(structuredClone(a), patch, true, false).newDocument,
	'rfc6902 applies ours': applyRfc6902,
};

const isContainer = v => v !== null && typeof v === 'object';

// rfc6902 compares each element of an array with each of the other one, some of them three
// times, at every level anew: what is left of a budget after that.  It gets no pair beyond.
function budgetLeft(a, b, budget)
{
	if (Array.isArray(a) && Array.isArray(b))
	{
		for (const x of a)
		{
			for (const y of [...b, ...b, ...b])
			{
				budget = budgetLeft(x, y, budget - 1);
				if (budget < 0)
					return budget;
			}
		}
	}
	else if (isContainer(a) && isContainer(b))
	{
		for (const key of Object.keys(a))
			budget = budgetLeft(a[key], b[key], budget - 1);
	}
	return budget;
}

// fast-json-patch compares neither scalars nor an array with an object, at the root.
const isComparable = (a, b) => isContainer(a) && isContainer(b) && Array.isArray(a) === Array.isArray(b);

// Whose patches exist for this pair: undefined for none.
const makers = {
	'esync applies those of fast-json-patch': (a, b) => isComparable(a, b) ? fastJsonPatch.compare(a, b) : undefined,
	'esync applies those of rfc6902': (a, b) => budgetLeft(a, b, RFC6902_BUDGET) >= 0 ? rfc6902.createPatch(a, b) : undefined,
	'esync applies those of jsondiffpatch': (a, b) => jsonpatchFormatter.format(differ.diff(a, b)),
};

function compareOurs(tally, one, row)
{
	const told = more => () => JSON.stringify({ ...one, patch: row.patch, ...more }).slice(0, 3000);

	for (const law in LAWS)
		tally.property(LAWS[law], row[law] === true, told());
	for (const name in appliers)
	{
		for (const patch of new Set([row.patch, row.exact]))
		{
			let got;

			try
			{
				got = appliers[name](JSON.parse(one.a), JSON.parse(patch));
			}
			catch (e)
			{
				got = e;
			}
			tally.property(name, isDeepStrictEqual(got, JSON.parse(one.b)), told({ applied: patch, got: String(got?.message ?? JSON.stringify(got)) }));
		}
	}
}

async function compareTheirs(db, tally, pairs)
{
	for (const name in makers)
	{
		const made = [];

		for (const { a, b } of pairs)
		{
			const patch = makers[name](JSON.parse(a), JSON.parse(b));

			if (patch !== undefined)
				made.push({ a, b, patch: JSON.stringify(patch) });
		}
		const { rows } = await db.query(THEIRS, [made.map(m => m.a), made.map(m => m.b), made.map(m => m.patch)]);

		rows.forEach((row, i) =>
		{
			tally.property(name, row.law === true, () => JSON.stringify(made[i]).slice(0, 3000));
			tally.property("esync_invert of the libraries' patches leads back", row.invert === true,
						   () => JSON.stringify(made[i]).slice(0, 3000));
		});
	}
}

// An error of a whole batch is told with the pair that it comes from.
async function runBatch(db, tally, pairs)
{
	let rows;

	try
	{
		({ rows } = await db.query(OURS, [pairs.map(p => p.a), pairs.map(p => p.b)]));
		rows.forEach(row => compareOurs(tally, pairs[row.n - 1], row));
		await compareTheirs(db, tally, pairs);
	}
	catch (e)
	{
		if (pairs.length > 1)
		{
			for (const one of pairs)
				await runBatch(db, tally, [one]);
		}
		else
			tally.property('no batch ends in an error', false, () => `${e.message} (${e.code}): ${JSON.stringify(pairs[0]).slice(0, 3000)}`);
		return;
	}
	tally.property('no batch ends in an error', true);
}

// package.json of what is installed here: neighbours, and each with edits; GeoJSON; a deep form.
function realPairs(r)
{
	const modules = path.dirname(path.dirname(createRequire(import.meta.url).resolve('fast-json-patch/package.json')));
	const documents = readdirSync(modules).filter(d => !d.startsWith('.') && !d.startsWith('@'))
		.map(d => JSON.parse(readFileSync(path.join(modules, d, 'package.json'), 'utf8')));

	documents.push(JSON.parse(readFileSync(path.join(path.dirname(modules), 'package-lock.json'), 'utf8')));
	for (const points of [20, 400])
		documents.push({ type: 'FeatureCollection', features: [{ type: 'Feature', properties: { name: 'track', 'm~/n': null },
			geometry: { type: 'LineString', coordinates: Array.from({ length: points }, (_, i) => [i / 100 + 7.5, 47 - i / 128, 400 + r.below(9)]) } }] });
	documents.push({ form: { id: 17, pages: Array.from({ length: 8 }, (_, p) => ({ title: `Page ${p}`, visible: p % 3 > 0,
		fields: Array.from({ length: 12 }, (_, f) => ({ id: `f${p}.${f}`, label: `Field ${f}`, value: f % 4 ? f * 1.5 : null, options: ['yes', 'no', '?'].slice(f % 4) })) })) } });

	const nodes = documents.map(fromValue);

	return Array.from({ length: FIXED }, (_, i) =>
	{
		const a = nodes[i % nodes.length];
		const b = i < nodes.length ? nodes[(i + 1) % nodes.length] : edited(r, a, 1 + r.below(8));

		return { a: toText(a), b: toText(b) };
	});
}

export async function differential(db, tally, { seed, pairs })
{
	const r = random(seed);
	const names = [...Object.values(LAWS), ...Object.keys(appliers), ...Object.keys(makers),
				   "esync_invert of the libraries' patches leads back", 'no batch ends in an error'];

	await runBatch(db, tally, realPairs(r));
	for (let done = 0; done < pairs; done += BATCH)
		await runBatch(db, tally, Array.from({ length: Math.min(BATCH, pairs - done) }, () => pair(r)));
	console.log(`differential: ${pairs} random pairs, ${FIXED} of real documents`);
	tally.close(names);
}
