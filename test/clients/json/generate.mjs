// Random pairs of documents from a small alphabet, so that keys and values meet.
// A document is a tree of Map, Array and JSON text of scalars: text keeps 1.0 and
// 1.00 apart, which numbers of JavaScript do not.

const KEYS = ['a', 'b', '', '/', '~', '0', '1', '01', '-', 'aa', 'a/b', 'm~n', '~1', '~01', 'é', '😀', 'k'.repeat(200)];
const SCALARS = ['null', 'true', 'false', '0', '1', '1.0', '1.00', '-1', '-0.5', '100000000000000000000', '""', '"a"', '"1"',
				 '"é"', '"e\u0301"', '"😀𝄞"', '"\\"/\\\\~\\n\\u0001"', '"' + 'long '.repeat(30) + '"'];

// mulberry32: 32 bits of state, the same everywhere
export function random(seed)
{
	let a = seed >>> 0;
	const next = () =>
	{
		let t = (a = (a + 0x6D2B79F5) | 0);

		t = Math.imul(t ^ (t >>> 15), t | 1);
		t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
		return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
	};
	const below = n => Math.floor(next() * n);

	return { below, pick: list => list[below(list.length)], chance: p => next() < p };
}

export function toText(node)
{
	if (node instanceof Map)
		return '{' + Array.from(node, ([k, v]) => JSON.stringify(k) + ':' + toText(v)).join(',') + '}';
	return Array.isArray(node) ? '[' + node.map(toText).join(',') + ']' : node;
}

export function fromValue(value)
{
	if (Array.isArray(value))
		return value.map(fromValue);
	if (value !== null && typeof value === 'object')
		return new Map(Object.entries(value).map(([k, v]) => [k, fromValue(v)]));
	return JSON.stringify(value);
}

function clone(node)
{
	if (node instanceof Map)
		return new Map(Array.from(node, ([k, v]) => [k, clone(v)]));
	return Array.isArray(node) ? node.map(clone) : node;
}

export function document(r, depth)
{
	const kind = depth > 0 ? r.below(10) : 0;

	if (kind < 3)
		return r.pick(SCALARS);
	if (kind < 6)
		return Array.from({ length: r.below(6) }, () => document(r, depth - 1));
	return new Map(Array.from({ length: r.below(6) }, () => [r.pick(KEYS), document(r, depth - 1)]));
}

// 31 to 70 elements: the borders at 32 and 64 where jsonb stores offsets
function longArray(r)
{
	const length = 31 + r.below(40);

	switch (r.below(4))
	{
		case 0: return Array.from({ length }, () => r.pick(SCALARS));
		case 1: return Array.from({ length }, () => String(r.below(100)));
		case 2: return Array.from({ length }, (_, i) => new Map([['id', String(i)], ['v', r.pick(SCALARS)]]));
		default: return Array.from({ length }, () => document(r, 1));
	}
}

function wideObject(r)
{
	return new Map(Array.from({ length: 31 + r.below(40) },
							  () => [r.pick(KEYS) + r.below(40), document(r, 1)]));
}

function deep(r)
{
	let node = document(r, 2);

	for (let i = 20 + r.below(60); i > 0; i--)
		node = r.chance(0.5) ? [r.pick(SCALARS), node] : new Map([[r.pick(KEYS), node], ['z', r.pick(SCALARS)]]);
	return node;
}

// All containers of a tree, the root first.
function containers(node, out = [])
{
	if (node instanceof Map || Array.isArray(node))
	{
		out.push(node);
		for (const child of node.values())
			containers(child, out);
	}
	return out;
}

function editArray(r, array)
{
	const i = r.below(array.length + 1);

	switch (r.below(5))
	{
		case 0: array.splice(i, 0, document(r, 2)); break;
		case 1: array.splice(i, 1); break;
		case 2: array[Math.min(i, array.length)] = document(r, 2); break;
		case 3: array.splice(r.below(array.length + 1), 0, ...array.splice(i, 1)); break;
		default:
			if (i < array.length)
				array.splice(r.below(array.length + 1), 0, clone(array[i]));
	}
}

function editObject(r, object)
{
	const key = r.pick([...object.keys(), ...KEYS]);

	switch (r.below(4))
	{
		case 0: object.set(r.pick(KEYS), document(r, 2)); break;
		case 1: object.delete(key); break;
		case 2: object.set(key, document(r, 2)); break;
		default:
			if (object.has(key))
			{
				const value = object.get(key);

				if (r.chance(0.5))
					object.delete(key);
				object.set(r.pick(KEYS), clone(value));
			}
	}
}

// A copy with some edits; sometimes the root changes its type.
export function edited(r, node, edits)
{
	let copy = clone(node);

	if (r.chance(0.02))
		return document(r, 2);
	for (; edits > 0; edits--)
	{
		const places = containers(copy);

		if (places.length === 0)
			return document(r, 2);
		const place = r.pick(places);

		if (Array.isArray(place))
			editArray(r, place);
		else
			editObject(r, place);
	}
	return copy;
}

// One pair, as texts.
export function pair(r)
{
	const kind = r.below(20);
	let a;

	if (kind < 12)
		a = document(r, 4);
	else if (kind < 15)
		a = r.chance(0.5) ? longArray(r) : new Map([['a', longArray(r)], [r.pick(KEYS), document(r, 2)]]);
	else if (kind < 17)
		a = wideObject(r);
	else if (kind < 18)
		a = deep(r);
	else
		return { a: toText(document(r, 3)), b: toText(document(r, 3)) };
	return { a: toText(a), b: toText(edited(r, a, 1 + r.below(6))) };
}
