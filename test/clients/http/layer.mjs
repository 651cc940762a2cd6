// The layer itself: paths, methods, bodies, /rpc, errors of the server, start and end.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { claimsOf } from '../../../demo/rest/token.mjs';
import { check } from './world.mjs';

const SERVER = fileURLToPath(new URL('../../../demo/rest/server.mjs', import.meta.url));
const TOKEN = fileURLToPath(new URL('../../../demo/rest/token.mjs', import.meta.url));

async function requests(world, tally)
{
	const { anna } = world;

	check(tally, 'a path that is none', await anna('GET', '/'), 404, { code: 'not_found' });
	check(tally, 'a path that is no path', await anna('GET', '//'), 400, { code: 'invalid' });
	check(tally, 'a path that goes on', await anna('GET', '/blocks/17/history/remarks/1'), 404, { code: 'not_found' });
	const wrong = await anna('PATCH', '/blocks/17', {});

	check(tally, 'a method that is not for the path', wrong, 405);
	tally.test('names those that are', wrong.headers.allow === 'GET, PUT, DELETE', wrong.headers.allow);
	check(tally, 'a path that is not well encoded', await anna('GET', '/blocks/%zz'), 400, { code: 'invalid' });
	check(tally, 'another type than JSON', await anna('PUT', '/blocks/17', 'remarks=x', { 'Content-Type': 'text/plain' }), 415);
	check(tally, 'a body beyond the limit', await anna('PUT', '/blocks/17', { remarks: 'x'.repeat(200000) }), 413,
		{ code: 'too_large' });
	check(tally, 'names are no SQL', await anna('GET', '/' + encodeURIComponent('blocks" WHERE true --') + '/17'), 404,
		{ code: '42P01' });
	check(tally, 'a table with its schema', await anna('GET', '/public.blocks/17'), 200, { version: 1 });
	await world.db.query('CREATE TABLE "Odd ""Table" (id text PRIMARY KEY, v int); GRANT ALL ON "Odd ""Table" TO web_user');
	await world.db.query(`SELECT esync_enable('"Odd ""Table"')`);
	check(tally, 'a name that needs quotes', await anna('PUT',
		`/${encodeURIComponent('Odd "Table')}/${encodeURIComponent("it's/one?")}`, { v: 1 }), 200, { version: 1 });
	tally.test('and a key that needs encoding', await world.value(`SELECT id = 'it''s/one?' FROM "Odd ""Table"`));
}

async function rpc(world, tally)
{
	const { anna, db } = world;

	check(tally, 'POST /rpc of a function with jsonb', await anna('POST', '/rpc/esync_save',
		{ tbl: 'blocks', document: { block_id: 17, remarks: 'rpc' }, base_version: 1 }), 200,
		  { status: 'accepted', version: 2 });
	const history = await anna('POST', '/rpc/field_history', { tbl: 'blocks', key: '17', field: 'remarks' });

	tally.test('of rows', history.status === 200 && history.body.length === 2 && history.body[0].value === 'rpc', history.text);
	check(tally, 'of an array', await anna('POST', '/rpc/esync_changes',
		{ tables: ['blocks', 'public.productions'], max_rows: 1 }), 200, { reset: false });
	tally.test('of a scalar', (await anna('POST', '/rpc/esync_version', { tbl: 'blocks', key: '17' })).body === 2);
	tally.test('of NULL', (await anna('POST', '/rpc/esync_checkout', { tbl: 'blocks', key: '99' })).body === null);
	check(tally, 'of OUT arguments', await anna('POST', '/rpc/esync_try_patch',
		{ doc: { a: 1 }, patch: [{ op: 'remove', path: '/a' }] }), 200, { result: {}, error: null });
	check(tally, 'of void', await anna('POST', '/rpc/esync_context', { user_id: 'anna' }), 204);
	check(tally, 'a result that was rejected', await anna('POST', '/rpc/esync_save',
		{ tbl: 'blocks', document: { block_id: 17, vSetPressure: -1 } }), 200, { code: 'constraint' });
	check(tally, 'no such function', await anna('POST', '/rpc/nothing', {}), 404, { code: 'not_found' });
	check(tally, 'a function of another schema', await anna('POST', '/rpc/pg_sleep', { seconds: 1 }), 404,
		{ code: 'not_found' });
	check(tally, 'no such argument', await anna('POST', '/rpc/esync_version', { tbl: 'blocks', id: '17' }), 404,
		{ code: 'not_found' });
	check(tally, 'a function that the role may not call', await anna('POST', '/rpc/esync_enable', { tbl: 'blocks' }), 403,
		{ code: '42501' });
	// the functions of docs/rest.md that say a status
	await db.query(`
CREATE FUNCTION http_status(result jsonb) RETURNS int LANGUAGE sql IMMUTABLE AS $$
SELECT CASE WHEN result ->> 'status' <> 'rejected' THEN 200 ELSE CASE result ->> 'code'
	WHEN 'denied' THEN 403 WHEN 'not_found' THEN 404 WHEN 'too_large' THEN 413
	WHEN 'conflict' THEN 409 WHEN 'stale' THEN 409 WHEN 'id_reused' THEN 409
	WHEN 'constraint' THEN 422 WHEN 'fk' THEN 422 WHEN 'depends_on' THEN 422
	ELSE 400 END END $$;
CREATE FUNCTION save_block(document jsonb, id uuid) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE result jsonb := esync_save('blocks', document, client_event_id => id);
BEGIN
	PERFORM set_config('response.status', http_status(result)::text, true);
	RETURN result;
END $$`);
	check(tally, 'a function says the status', await anna('POST', '/rpc/save_block',
		{ document: { block_id: 17, vSetPressure: -5 }, id: null }, { 'X-Base-Version': '1' }), 422, { code: 'constraint' });
	check(tally, 'for its own request alone', await anna('POST', '/rpc/esync_version', { tbl: 'blocks', key: '17' }), 200);
}

// Each class of errors of the server has its status.
async function errors({ anna }, tally)
{
	for (const [state, status] of Object.entries({ 22012: 400, '22P02': 400, 42703: 400, P0001: 400, 42501: 403, YS001: 404,
		42704: 404, P0002: 404, 42883: 404,
		YS004: 409, YS005: 409, 55000: 409, '55P03': 409, 23505: 422, 23503: 422, '0A000': 501, 40001: 503, '40P01': 503,
			53300: 503, 57014: 503, '58P01': 503,
		XX000: 500, 42601: 500 }))
	{
		const answer = await anna('POST', '/rpc/fails', { state });

		check(tally, `SQLSTATE ${state}`, answer, status, { code: state, message: 'as told', details: 'd', hint: 'h' });
		if (status === 503)
			tally.test(`SQLSTATE ${state}: Retry-After`, answer.headers['retry-after'] === '1');
	}
}

// A broken connection is one failed request, not a broken layer.
async function broken({ anna, db, logged }, tally)
{
	const slow = anna('POST', '/rpc/wait', {});

	await new Promise(resolve => setTimeout(resolve, 300));
	await db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'web' AND datname = current_database()");
	check(tally, 'a connection that is lost', await slow, 503);
	tally.test('is logged', logged.some(message => message.startsWith('connection lost: ')), logged.join());
	check(tally, 'the next request', await anna('GET', '/blocks/17'), 200);
}

// The program: on a unix socket, ended by SIGTERM while a request is under way.
async function program({ where, request }, tally)
{
	const socket = path.join(where.host, 'rest.sock');
	const child = spawn(process.execPath, [SERVER, '--listen', socket, '--anon-role', 'web_user'], {
		stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, PGHOST: where.host, PGPORT: where.port, PGUSER: 'web',
			PGDATABASE: where.database } });

	tally.test('the program says where it listens', (await once(createInterface(child.stdout),
		'line'))[0] === `listening on ${socket}`);
	check(tally, 'a request over a unix socket', await request('GET', '/blocks/17', undefined, {}, { socketPath: socket }),
		200);
	check(tally, 'a token where no secret is', await request('GET', '/blocks/17', undefined, { Authorization: 'Bearer a.b.c' },
		{ socketPath: socket }), 401);
	const slow = request('POST', '/rpc/wait', {}, {}, { socketPath: socket });

	await new Promise(resolve => setTimeout(resolve, 300));
	child.kill('SIGTERM');
	check(tally, 'SIGTERM lets a request end', await slow, 204);
	const [code, signal] = await once(child, 'exit');

	tally.test('and the program ends well', code === 0 && signal === null, `${code} ${signal}`);
	await request('GET', '/blocks/17', undefined, {}, { socketPath: socket }).then(
		() => tally.test('nobody listens any more', false), e => tally.test('nobody listens any more',
			['ENOENT', 'ECONNREFUSED'].includes(e.code), e.code));
}

// What keeps the program from listening is one line, and its end.
async function refusal({ where }, tally)
{
	const run = listen => spawnSync(process.execPath, [SERVER, '--listen', listen], { encoding: 'utf8',
		env: { ...process.env, PGHOST: where.host } });
	const { status, stdout, stderr } = run(path.join(where.host, 'nowhere', 'rest.sock'));

	tally.test('a place where it cannot listen', status === 1 && stdout === '' && /^listen EACCES|^listen ENOENT/.test(stderr) &&
		stderr.split('\n').length === 2, `${status} ${stdout}${stderr}`);
}

// A token needs a secret and claims; without them the program says so in one line.
async function tokens(tally)
{
	const run = (args, secret) => spawnSync(process.execPath, [TOKEN, ...args], { encoding: 'utf8',
		env: { ...process.env, JWT_SECRET: secret } });

	for (const [name, args, secret, told] of [['no secret', ['{"sub": "anna"}'], '', 'JWT_SECRET is not set\n'],
		['no claims', [], 's', /^usage: .*\n$/], ['claims that are no JSON', ['anna'], 's', /^the claims are no JSON object: .*\n$/],
		['claims that are no object', ['[1]'], 's', /^the claims are no JSON object: .*\n$/]])
	{
		const { status, stdout, stderr } = run(args, secret);

		tally.test(`token.mjs with ${name}`, status === 1 && stdout === '' && (stderr === told || told.test?.(stderr)),
			`${status} ${stdout}${stderr}`);
	}
	const { status, stdout } = run(['{"sub": "anna"}'], 's');

	tally.test('token.mjs prints a token', status === 0 && claimsOf(`Bearer ${stdout.trim()}`, 's').sub === 'anna', stdout);
}

export async function layer(world, tally)
{
	await world.db.query(`CREATE FUNCTION wait() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(1)';
		CREATE FUNCTION fails(state text) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN RAISE EXCEPTION USING MESSAGE = 'as told', ERRCODE = state, DETAIL = 'd', HINT = 'h'; END $$`);
	for (const part of [requests, rpc, errors, broken, program, refusal])
		await part(world, tally);
	await tokens(tally);
}
