// Which request is which call: the table "Endpoints" of docs/rest.md.
//
// Documents and batches go to PostgreSQL as the text that came in, and its answers go out as the text that it made,
// so that no number passes through JavaScript.  A route gives { text, values } of one statement with one column; `kind` says
// what the answer is: 'value' (null is 404), 'result' (its code gives the status), 'rows', 'none'.

import { Refusal } from './status.mjs';

const quoted = name => `"${name.replaceAll('"', '""')}"`;

// A table as a path names it, "blocks" or "public.blocks": what ::regclass reads.
const table = name => name.split('.').map(quoted).join('.');

const value = (text, ...values) => ({ kind: 'value', text: `SELECT (${text})::text AS body`, values });
const result = (text, ...values) => ({ kind: 'result', text: `SELECT (${text})::text AS body`, values });
const none = (text, ...values) => ({ kind: 'none', text: `SELECT ${text} AS body`, values });
const rows = (text, ...values) => ({ kind: 'rows', text: `SELECT coalesce(json_agg(f), '[]')::text AS body FROM ${text} AS f`,
	values });

// The body as an object whose members are among those named; what it says goes to SQL as text.
function object(body, members)
{
	let parsed;

	try
	{
		parsed = JSON.parse(body);
	}
	catch (e)
	{
		throw new Refusal(400, 'invalid', `the body is no JSON: ${e.message}`);
	}
	if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed))
		throw new Refusal(400, 'invalid', 'the body is no JSON object');
	for (const name of members ? Object.keys(parsed) : [])
		if (!members.includes(name))
			throw new Refusal(400, 'invalid', `unknown member "${name}": there are ${members.join(', ')}`);
	return parsed;
}

// The query's members among those named; an unknown one is refused.
function query(url, ...members)
{
	for (const name of url.searchParams.keys())
		if (!members.includes(name))
			throw new Refusal(400, 'invalid', `unknown parameter "${name}"${members.length ? `: there are ${members.join(', ')}` : ''}`);
	return Object.fromEntries(members.map(name => [name, url.searchParams.get(name)]));
}

// The key of a table: its columns with their types, in key order; none where the table is not tracked.
const KEY = `
SELECT k.name, format_type(a.atttypid, a.atttypmod) AS type
FROM unnest(esync.key_columns($1::regclass)) WITH ORDINALITY AS k (name, place)
	JOIN pg_attribute a ON a.attrelid = $1::regclass AND a.attname = k.name
ORDER BY k.place`;

// A key of several columns is a JSON array or object with a value for each; PostgreSQL reads the values.
function checkKey(key, columns)
{
	let parsed;

	try
	{
		parsed = JSON.parse(key);
	}
	catch
	{
		parsed = null;
	}
	if (Array.isArray(parsed) ? parsed.length !== columns.length :
		parsed === null || typeof parsed !== 'object' || !columns.every(c => Object.hasOwn(parsed, c.name)))
		throw new Refusal(400, 'invalid', `the key is no JSON array or object of ${columns.map(c => `"${c.name}"`).join(', ')}`);
}

// The key of a path as an object of its columns, as text.
async function keyOf(db, key, columns)
{
	if (columns.length > 1)
		checkKey(key, columns);
	const values = columns.map((c, i) => columns.length === 1 ? 'to_jsonb($1::text)' :
		`coalesce($1::jsonb -> ${i}, $1::jsonb -> $${i + 2}::text)`);
	const members = columns.map((c, i) => `$${i + 2}::text, ${values[i]}`);

	return (await db.query(`SELECT jsonb_build_object(${members.join(', ')})::text AS key`,
						   [key, ...columns.map(c => c.name)])).rows[0].key;
}

// Is what a document says of the key the same by the types of the columns?  017 is 17, also where neither fits a double.
async function agrees(db, body, key, columns)
{
	const { rows: [{ other }] } = await db.query(`SELECT array_agg(p.name) AS other FROM unnest($3::text[]) AS p (name)
		WHERE $1::jsonb ? p.name AND $1::jsonb ->> p.name IS DISTINCT FROM $2::jsonb ->> p.name`,
		[body, key, columns.map(c => c.name)]);
	const doubtful = columns.filter(c => other?.includes(c.name));
	const record = doubtful.map(c => `${quoted(c.name)} ${c.type}`).join(', ');

	return doubtful.length === 0 || (await db.query(`SELECT ${doubtful.map(c => `d.${quoted(c.name)} = k.${quoted(c.name)}`)
		.join(' AND ')} AS same FROM jsonb_to_record($1) AS d (${record}), jsonb_to_record($2) AS k (${record})`,
		[body, key])).rows[0].same === true;
}

// A PUT's document with the key of its path, which it need not repeat and must not contradict.
async function save({ db, body, headers }, tbl, path)
{
	object(body);
	const { rows: columns } = await db.query(KEY, [table(tbl)]);
	const key = columns.length > 0 ? await keyOf(db, path, columns) : '{}';

	if (!await agrees(db, body, key, columns))
		throw new Refusal(400, 'invalid', 'the key of the document is not that of the path');
	return result('esync_save($1::text::regclass, $2::jsonb || $3::jsonb, client_event_id => $4)',
		table(tbl), body, key, headers['idempotency-key'] ?? null);
}

// The tenant is the token's where it has one; only without may the query choose.  That narrows this call and is no right:
// what a user may see is for grants and row policies to say.
function changes({ url, claims })
{
	const q = query(url, 'cursor', 'max_rows', 'tables', 'device_id', 'tenant', 'rows');

	if (claims.tenant !== undefined && (typeof claims.tenant !== 'string' || claims.tenant === ''))
		throw new Refusal(403, 'denied', 'the tenant of the token is no text');
	if (claims.tenant !== undefined && q.tenant !== null && q.tenant !== claims.tenant)
		throw new Refusal(403, 'denied', 'the tenant is not that of the token');
	return value('esync_changes($1, coalesce($2, 500), $3::text[]::regclass[], $4, $5, coalesce($6, false))', q.cursor,
		q.max_rows,
		q.tables?.split(',').map(table) ?? null, q.device_id, claims.tenant ?? q.tenant, q.rows);
}

const conflicts = ({ url }) =>
{
	const q = query(url, 'table', 'key', 'status', 'field', 'kind', 'user_id', 'after', 'max_rows');

	return rows("esync_conflicts($1::text::regclass, $2, coalesce($3, 'open'), $4, $5, $6, $7, $8)", q.table && table(q.table),
		q.key, q.status, q.field, q.kind, q.user_id, q.after, q.max_rows);
};

const rejected = ({ url }) =>
{
	const q = query(url, 'table', 'status');

	return rows("esync_rejected($1::text::regclass, coalesce($2, 'open'))", q.table && table(q.table), q.status);
};

const resolve = ({ body }, id) =>
{
	object(body, ['strategy', 'value', 'expected_version']);
	return value("esync_resolve($1, $2::jsonb ->> 'strategy', $2::jsonb -> 'value', ($2::jsonb ->> 'expected_version')::bigint)", id, body);
};

const resolveRow = ({ body }, tbl, key) =>
{
	object(body, ['choices', 'expected_version']);
	return value("esync_resolve_row($1::text::regclass, $2::text, $3::jsonb -> 'choices', ($3::jsonb ->> 'expected_version')::bigint)",
		table(tbl), key, body);
};

// Method, path, call.  The first that fits is taken, so that the words come before tables; a table of such a name is "public.events".
export const routes = [
	['POST', '/sync/submit', ({ body }) => value('esync_submit($1)', body)],
	['GET', '/sync/changes', changes],
	['GET', '/conflicts', conflicts],
	['POST', '/conflicts/:/resolve', resolve],
	['POST', '/events/:/undo', (_, id) => value('esync_undo($1)', id)],
	['GET', '/rejected', rejected],
	['POST', '/rejected/:/retry', ({ body }, id) => body === '' ? result('esync_retry($1)', id) : result('esync_retry($1, $2)',
		id, body)],
	['DELETE', '/rejected/:', (_, id) => none('esync_discard($1)', id)],
	['GET', '/devices', () => rows('esync_devices()')],
	['GET', '/:/:', (_, tbl, key) => value('esync_checkout($1::text::regclass, $2)', table(tbl), key)],
	['PUT', '/:/:', save],
	['DELETE', '/:/:', ({ headers }, tbl, key) =>
		result('esync_delete($1::text::regclass, $2, client_event_id => $3)', table(tbl), key,
			headers['idempotency-key'] ?? null)],
	['GET', '/:/:/history', (_, tbl, key) => value('esync_row($1::text::regclass, $2)', table(tbl), key)],
	['GET', '/:/:/history/:', (_, tbl, key, field) => rows('field_history($1::text::regclass, $2::text, $3::name)', table(tbl),
		key, field)],
	['GET', '/:/:/suggest/:', (_, tbl, key, field) => rows('esync_suggest($1::text::regclass, $2::text, $3::name)', table(tbl),
		key, field)],
	['POST', '/:/:/resolve', resolveRow],
	['POST', '/rpc/:', rpc],
].map(([method, path, call]) => ({ method, call, pattern: new RegExp(`^${path.replaceAll(':', '([^/]+)')}$`) }));

// Functions of the exposed schemas by this name, each with the names and types of its IN arguments.
const FUNCTIONS = `
SELECT format('%I.%I', n.nspname, p.proname) AS name, p.proretset AS many, p.prorettype = 'void'::regtype AS void,
	p.pronargs - p.pronargdefaults AS needed, a.names, a.types
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace,
	LATERAL (SELECT coalesce(array_agg(p.proargnames[i] ORDER BY i), '{}') AS names,
		coalesce(array_agg(format_type(t.oid, NULL) ORDER BY i), '{}') AS types, bool_or(t.typtype = 'p') AS pseudo
		FROM generate_series(1, p.pronargs) AS i JOIN pg_type t ON t.oid = p.proargtypes[i - 1]) AS a
WHERE p.proname = $1 AND n.nspname = ANY ($2) AND p.prokind = 'f' AND p.provariadic = 0 AND a.pseudo IS NOT TRUE
ORDER BY array_position($2, n.nspname::text), p.pronargs`;

// A user is who the token says.  A context that names another one is refused, and so is one without a token.
function checkUser(context, claims)
{
	const user = context?.user_id ?? claims.sub;

	if (user !== claims.sub)
		throw new Refusal(403, 'denied', 'the user_id of the context is not that of the token');
}

// PostgREST's way to call any function: the members of the body are the named arguments.
async function rpc({ db, body, claims, schemas }, name)
{
	const members = object(body === '' ? '{}' : body);
	const given = Object.keys(members);

	checkUser(members.context, claims);
	const { rows: found } = await db.query(FUNCTIONS, [name, schemas]);
	const fn = found.find(f => given.every(n => f.names.includes(n)) &&
		f.names.slice(0, f.needed).every(n => given.includes(n)));

	if (!fn)
		throw new Refusal(404, 'not_found', `there is no function ${name}(${given.join(', ')})`);
	const types = given.map(n => `${quoted(n)} ${fn.types[fn.names.indexOf(n)]}`).join(', ');
	const call = `${fn.name}(${given.map(n => `${quoted(n)} => r.${quoted(n)}`).join(', ')}) AS f`;
	const from = given.length ? `jsonb_to_record($1::jsonb) AS r (${types}), ${call}` : call;

	return { kind: fn.void ? 'none' : 'rpc', values: given.length ? [body] : [],
			 text: `SELECT ${fn.many ? "coalesce(json_agg(f), '[]')" : fn.void ? '1' : "coalesce(to_json(f), 'null')"}::text AS body FROM ${from}` };
}
