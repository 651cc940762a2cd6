// RFC 7396: the examples of its appendix A, and random patches beside npm's json-merge-patch.

import { createRequire } from 'node:module';
import { asMade } from './differential.mjs';
import { document, edited, random, toText } from './generate.mjs';

const mergePatch = createRequire(import.meta.url)('json-merge-patch');

// original, patch, result
const APPENDIX = [
	['{"a":"b"}', '{"a":"c"}', '{"a":"c"}'],
	['{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'],
	['{"a":"b"}', '{"a":null}', '{}'],
	['{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'],
	['{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'],
	['{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'],
	['{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'],
	['{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'],
	['["a","b"]', '["c","d"]', '["c","d"]'],
	['{"a":"b"}', '["c"]', '["c"]'],
	['{"a":"foo"}', 'null', 'null'],
	['{"a":"foo"}', '"bar"', '"bar"'],
	['{"e":null}', '{"a":1}', '{"e":null,"a":1}'],
	['[1,2]', '{"a":"b","c":null}', '{"a":"b"}'],
	['{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'],
];

const COMPARE = `
SELECT n::int, esync_merge_patch(a, p) = c AS ok, ${asMade('r')} AS binary
FROM unnest($1::jsonb[], $2::jsonb[], $3::jsonb[]) WITH ORDINALITY u (a, p, c, n), LATERAL (SELECT esync_merge_patch(a, p) AS r OFFSET 0) m`;

export async function mergePatches(db, tally, { seed, pairs })
{
	const r = random(seed + 1);
	const rows = [];

	for (let i = 0; i < Math.max(1, pairs / 4); i++)
	{
		const a = document(r, 4);
		const b = r.chance(0.5) ? edited(r, a, 1 + r.below(5)) : document(r, 4);
		const [ta, tb] = [toText(a), toText(b)];
		// half of them any document taken for a patch, half what the library generates
		const patch = r.chance(0.5) ? JSON.parse(tb) : mergePatch.generate(JSON.parse(ta), JSON.parse(tb));

		if (patch !== undefined)
			rows.push([ta, JSON.stringify(patch), JSON.stringify(mergePatch.apply(JSON.parse(ta), patch))]);
	}
	for (const [kind, list] of [['RFC 7396, appendix A', APPENDIX], ['esync_merge_patch beside json-merge-patch', rows]])
	{
		const got = await db.query(COMPARE, [0, 1, 2].map(i => list.map(row => row[i])));

		got.rows.forEach(row =>
			tally.property(kind, row.ok === true && row.binary === true, () => JSON.stringify(list[row.n - 1]).slice(0, 2000)));
	}
	tally.close(['RFC 7396, appendix A', 'esync_merge_patch beside json-merge-patch']);
}
