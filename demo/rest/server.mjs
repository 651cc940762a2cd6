// A REST layer over esync: node's http, and pg.
//
//   JWT_SECRET=... node server.mjs --listen 127.0.0.1:3000 --anon-role web_anon
//
// --listen takes host:port or the path of a unix socket; the database is that of PGHOST, PGDATABASE, PGUSER and so on.
// Each request is one transaction, set up as PostgREST sets it up: the role of the token (else --anon-role, else 401),
// request.jwt.claims, request.headers with lower-case names, request.method, request.path.

import http from 'node:http';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { routes } from './routes.mjs';
import { Refusal, ofError, ofResult } from './status.mjs';
import { claimsOf, unauthorized } from './token.mjs';

const ORIGIN = 'http://localhost';	// of paths; no request is made to it
const SETUP = `SELECT set_config('request.jwt.claims', $1, true), set_config('request.headers', $2, true),
	set_config('request.method', $3, true), set_config('request.path', $4, true), set_config('role', $5, true)`;

// The body as text; what is larger than the limit is refused without being read.
async function bodyOf(request, limit)
{
	const parts = [];
	let size = 0;

	for await (const part of request)
	{
		size += part.length;
		if (size > limit)
			throw new Refusal(413, 'too_large', `the body has more than ${limit} bytes`, { Connection: 'close' });
		parts.push(part);
	}
	if (size > 0 && !/^application\/json\b/.test(request.headers['content-type'] ?? ''))
		throw new Refusal(415, 'unsupported_media_type', 'the body must be application/json');
	return Buffer.concat(parts).toString();
}

function urlOf(request)
{
	try
	{
		return new URL(request.url, ORIGIN);
	}
	catch
	{
		throw new Refusal(400, 'invalid', 'the path is not well formed');
	}
}

// The call that answers a request, and the parts of the path that are its arguments.
function routeOf(method, path)
{
	const fitting = routes.map(route => ({ route, parts: route.pattern.exec(path) })).filter(f => f.parts);
	const found = fitting.find(f => f.route.method === method);

	if (fitting.length === 0)
		throw new Refusal(404, 'not_found', `there is no ${path}`);
	if (!found)
		throw new Refusal(405, 'method_not_allowed', `${method} is not for ${path}`,
						  { Allow: [...new Set(fitting.map(f => f.route.method))].join(', ') });
	try
	{
		return { call: found.route.call, parts: found.parts.slice(1).map(decodeURIComponent) };
	}
	catch
	{
		throw new Refusal(400, 'invalid', 'the path is not well encoded');
	}
}

// The status and text of what a statement answered.
async function answerOf(db, { kind, text, values })
{
	const { body } = (await db.query(text, values)).rows[0];

	if (kind === 'none')
		return { status: 204 };
	if (kind === 'value' && body === null)
		throw new Refusal(404, 'not_found', 'there is no such row');
	if (kind === 'rpc')
		// a function of the user's own may say the status, as under PostgREST
		return { status: Number((await db.query("SELECT current_setting('response.status', true) AS status")).rows[0].status ||
			200), body };
	return { status: kind === 'result' ? ofResult(JSON.parse(body)) : 200, body };
}

// The role of a request, which is never the login's own.
function roleOf(claims, anonRole)
{
	const role = claims.role ?? anonRole;

	if (role === null)
		throw unauthorized('a token with a role is needed');
	if (typeof role !== 'string' || role === '' || role === 'none')
		throw new Refusal(403, 'denied', 'the role of the token is none');
	return role;
}

// One request, one transaction; a GET cannot write.
async function serve(pool, options, request)
{
	const url = urlOf(request);
	const { call, parts } = routeOf(request.method, url.pathname);
	const claims = claimsOf(request.headers.authorization, options.secret);
	const role = roleOf(claims, options.anonRole);
	const body = await bodyOf(request, options.maxBody);
	const db = await pool.connect();

	try
	{
		await db.query(request.method === 'GET' ? 'BEGIN READ ONLY' : 'BEGIN');
		await db.query(SETUP, [JSON.stringify(claims), JSON.stringify(request.headers), request.method, url.pathname,
							   role]);
		const statement = await call({ db, url, body, claims, headers: request.headers, schemas: options.schemas }, ...parts);
		const answer = await answerOf(db, statement);

		await db.query('COMMIT');
		db.release();
		return answer;
	}
	catch (e)
	{
		// a connection that cannot even roll back is not used again
		await db.query('ROLLBACK').then(() => db.release(), broken => db.release(broken));
		throw e;
	}
}

// An error as PostgREST tells it.
function told(e)
{
	const status = ofError(e);
	const headers = status === 503 ? { 'Retry-After': '1' } : e.headers;

	return { status, headers, body: JSON.stringify({ code: e.code ?? null, message: e.message, details: e.detail ?? null,
		hint: e.hint ?? null }) };
}

// An http.Server that is not listening yet; its stop() ends what is under way, then the connections to the database.
export function createServer({ database = {}, secret, anonRole = null, schemas = ['public'], maxBody = 2 * 1024 * 1024,
							   log = console.error } = {})
{
	const pool = new pg.Pool({ max: 10, connectionTimeoutMillis: 10000, statement_timeout: 30000, options: '-c timezone=UTC',
		...database });
	const server = http.createServer(async (request, response) =>
	{
		const { status, body, headers } = await serve(pool, { secret, anonRole, schemas, maxBody }, request).catch(told);

		response.writeHead(status, body === undefined ? headers : { 'Content-Type': 'application/json; charset=utf-8',
			...headers });
		response.end(body);
	});

	// a connection that breaks fails the request that uses it, and is replaced when the next one is asked for
	pool.on('connect', db => db.on('error', e => log(`connection lost: ${e.message}`)));
	pool.on('error', () => {});
	server.stop = async () =>
	{
		const closed = new Promise(resolve => server.close(resolve));

		server.closeIdleConnections();
		await closed;
		await pool.end();
	};
	return server;
}

function main()
{
	const { values } = parseArgs({ options: {
		listen: { type: 'string', default: '127.0.0.1:3000' }, 'anon-role': { type: 'string' },
		schema: { type: 'string', default: 'public' }, 'max-body': { type: 'string', default: '2097152' },
	} });
	const server = createServer({ secret: process.env.JWT_SECRET, anonRole: values['anon-role'] ?? null,
								  schemas: values.schema.split(','), maxBody: Number(values['max-body']) });
	const [, host, port] = /^(.*):(\d+)$/.exec(values.listen) ?? [];
	const where = port ? { host, port: Number(port) } : { path: values.listen };

	server.on('error', e =>
	{
		console.error(e.message);
		process.exit(1);
	});
	server.listen(where, () =>
		console.log(`listening on ${port ? `http://${server.address().address}:${server.address().port}` : values.listen}`));
	for (const signal of ['SIGTERM', 'SIGINT'])
		process.once(signal, () => server.stop());
}

if (process.argv[1] === fileURLToPath(import.meta.url))
	main();
