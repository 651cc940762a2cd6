// What the conformance suite leaves out, with the SQLSTATE of each refusal.
// Expected documents are compared as text: scale and member order count.

import { patchBothWays } from './conformance.mjs';

// name, document, patch, and the result or { code }
const no = code => ({ code });
const rows = [
	// pointers
	['~0 and ~1 in one pass', '{"~1":1,"/":2}', '[{"op":"remove","path":"/~01"}]', '{"/": 2}'],
	['~ before another character', '{"~2":1}', '[{"op":"remove","path":"/~2"}]', no('22P02')],
	['~ at the end', '{"a~":1}', '[{"op":"remove","path":"/a~"}]', no('22P02')],
	['no slash in front', '{"a":1}', '[{"op":"remove","path":"a"}]', no('22P02')],
	['indices as members', '{"-":1,"0":2,"01":3}',
		'[{"op":"replace","path":"/-","value":7},{"op":"replace","path":"/0","value":8},{"op":"replace","path":"/01","value":9}]',
		'{"-": 7, "0": 8, "01": 9}'],
	['keys beyond the BMP', '{"😀":{"é":1}}', '[{"op":"replace","path":"/😀/é","value":"𝄞"}]', '{"😀": {"é": "𝄞"}}'],
	['escaped and plain are one key', '{"\\ud83d\\ude00":1}', '[{"op":"remove","path":"/😀"}]', '{}'],
	// indices
	...['01', '+1', '-1', '1e0', ' 1', '1 ', '1.0', '', '２', '2147483648', '4294967297', '18446744073709551617'].map(i =>
		[`index "${i}"`, '[5,6,7]', `[{"op":"replace","path":"/${i}","value":0}]`, no('22033')]),
	['index = length in replace', '[1]', '[{"op":"replace","path":"/1","value":0}]', no('22033')],
	['index > length in add', '[1]', '[{"op":"add","path":"/2","value":0}]', no('22033')],
	...['remove', 'replace'].map(op =>
		[`- in ${op}`, '[1]', `[{"op":"${op}","path":"/-","value":1}]`, no('22033')]),
	// a test of what is not there has failed, whatever the reason
	...['/-', '/01', '/1', '/0/a'].map(path =>
		[`test of ${path}`, '[1]', `[{"op":"test","path":"${path}","value":1}]`, no('YS010')]),
	['- as from', '[1]', '[{"op":"copy","from":"/-","path":"/0"}]', no('22033')],
	['- in the middle', '[[1]]', '[{"op":"add","path":"/-/0","value":1}]', no('22033')],
	['- as the target of move and copy', '[1,2]',
		'[{"op":"move","from":"/0","path":"/-"},{"op":"copy","from":"/0","path":"/-"}]', '[2, 1, 2]'],
	// parents
	['a parent that is missing', '{}', '[{"op":"add","path":"/a/b","value":1}]', no('2203A')],
	['a parent that is a scalar', '{"a":1}', '[{"op":"add","path":"/a/b","value":1}]', no('2203C')],
	['a parent that is null', '{"a":null}', '[{"op":"add","path":"/a/b","value":1}]', no('2203C')],
	['a member of a scalar root', '3', '[{"op":"add","path":"/a","value":1}]', no('2203C')],
	// the root
	['the root becomes a scalar and an object again', '[1]',
		'[{"op":"replace","path":"","value":3},{"op":"test","path":"","value":3.0},{"op":"add","path":"","value":{"a":[]}},{"op":"add","path":"/a/-","value":null}]',
		'{"a": [null]}'],
	['the root copied into itself', '{"a":1}', '[{"op":"copy","from":"","path":"/b"}]', '{"a": 1, "b": {"a": 1}}'],
	['a member moved over the root', '{"a":{"b":2}}', '[{"op":"move","from":"/a","path":""}]', '{"b": 2}'],
	['the root moved into itself', '{"a":1}', '[{"op":"move","from":"","path":"/a"}]', no('22023')],
	['a scalar in an array is not the scalar', '["x"]', '[{"op":"test","path":"","value":"x"}]', no('YS010')],
	// move and copy
	['move into its own child', '{"a":{"b":1}}', '[{"op":"move","from":"/a","path":"/a/b"}]', no('22023')],
	['move beside its prefix', '{"key":{"b":1}}', '[{"op":"move","from":"/key/b","path":"/key/bb"}]', '{"key": {"bb": 1}}'],
	['move onto itself needs it', '{"a":1}', '[{"op":"move","from":"/b","path":"/b"}]', no('2203A')],
	['the target index counts after the removal', '[0,1,2,3]', '[{"op":"move","from":"/0","path":"/3"}]', '[1, 2, 3, 0]'],
	['the target index beyond the shortened array', '[0,1]', '[{"op":"move","from":"/0","path":"/2"}]', no('22033')],
	['copy into its own child is deep', '{"a":{"b":1}}',
		'[{"op":"copy","from":"/a","path":"/a/c"},{"op":"replace","path":"/a/b","value":2}]', '{"a": {"b": 2, "c": {"b": 1}}}'],
	['a copy does not follow its source', '{"a":[1]}',
		'[{"op":"copy","from":"/a","path":"/b"},{"op":"add","path":"/a/-","value":2},{"op":"add","path":"/b/0","value":0}]',
		'{"a": [1, 2], "b": [0, 1]}'],
	// values
	['numbers are compared as numbers', '{"a":[1,1.0,1.00,100]}', '[{"op":"test","path":"/a","value":[1e0,1,1.000,1e2]}]',
		'{"a": [1, 1.0, 1.00, 100]}'],
	['the scale of an added number is kept', '{}', '[{"op":"add","path":"/a","value":1.50}]', '{"a": 1.50}'],
	['null is not missing', '{}', '[{"op":"test","path":"/a","value":null}]', no('YS010')],
	['null is not false', '{"a":null}', '[{"op":"test","path":"/a","value":false}]', no('YS010')],
	['array order counts', '{"a":[1,2]}', '[{"op":"test","path":"/a","value":[2,1]}]', no('YS010')],
	...['add', 'replace', 'test'].map(op =>
		[`${op} without value, the target null`, '{"a":null}', `[{"op":"${op}","path":"/a"}]`, no('22023')]),
	['an added null is a value', '{}', '[{"op":"add","path":"/a","value":null}]', '{"a": null}'],
	// patches
	...['{}', '"add"', 'null', '[1]', '[[]]', '[{}]', '[{"op":null,"path":""}]', '[{"op":"add","value":1}]',
		'[{"op":"add","path":null,"value":1}]', '[{"op":"add","path":["a"],"value":1}]', '[{"op":"copy","from":1,"path":"/b"}]',
		'[{"op":"ADD","path":"/a","value":1}]', '[{"Op":"add","path":"/a","value":1}]', '[{"op":"test ","path":"/a","value":1}]',
	].map(p => [`malformed: ${p}`, '{"a":1}', p, no('22023')]),
	['the last operation fails: nothing is done', '{"a":1}',
		'[{"op":"replace","path":"/a","value":2},{"op":"add","path":"/b","value":3},{"op":"remove","path":"/c"}]', no('2203A')],
];

// All of an operation's rules at the sizes where jsonb stores an offset in place of a length.
function strides()
{
	return [31, 32, 33, 63, 64, 65].flatMap(n =>
	{
		const array = Array.from({ length: n }, (_, i) => i % 3 ? i : 's'.repeat(i % 7));
		const object = Object.fromEntries(array.map((v, i) => ['k' + String(i).padStart(3, '0'), v]));
		const list = a => '[' + a.map(v => JSON.stringify(v)).join(', ') + ']';
		const last = n - 1;

		return [
			[`array of ${n}: add, replace, remove`, JSON.stringify(array),
				`[{"op":"add","path":"/${n}","value":1.5},{"op":"replace","path":"/${last}","value":true},{"op":"remove","path":"/0"}]`,
				list([...array.slice(1, last), true, 1.5])],
			[`object of ${n}: add, replace, remove`, JSON.stringify(object),
				`[{"op":"add","path":"/k999","value":1.5},{"op":"replace","path":"/k${String(last).padStart(3, '0')}","value":[]},{"op":"remove","path":"/k000"}]`,
				'{' + [...array.slice(1, last), [], 1.5].map((v, i) =>
					`"k${i === n - 1 ? '999' : String(i + 1).padStart(3, '0')}": ${JSON.stringify(v)}`).join(', ') + '}'],
		];
	});
}

export async function cases(db, tally)
{
	const all = [...rows, ...strides()];

	for (const [name, doc, patch, expected] of all)
	{
		const got = await patchBothWays(db, doc, patch);
		const ok = got.agree && (expected.code ? got.code === expected.code : got.result === expected);

		tally.test(`case: ${name}`, ok, JSON.stringify({ doc, patch, expected, got }));
	}
	console.log(`own cases: ${all.length}`);
}
