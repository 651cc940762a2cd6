// Who asks, and what he may: tokens, roles, row policies, tenants.

import { createHmac } from 'node:crypto';
import { createServer } from '../../../demo/rest/server.mjs';
import { makeToken } from '../../../demo/rest/token.mjs';
import { SECRET, check } from './world.mjs';

async function tokens(world, tally)
{
	const get = token => world.request('GET', '/blocks/17', undefined, { Authorization: token });
	const forged = claims =>
	{
		const text = [{ alg: 'none' }, claims].map(p => Buffer.from(JSON.stringify(p)).toString('base64url')).join('.');

		return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`;
	};
	const claims = { sub: 'anna', role: 'web_user' };
	const now = Math.floor(Date.now() / 1000);

	check(tally, 'a token', await get(`Bearer ${makeToken(claims, SECRET)}`), 200);
	check(tally, 'one that holds an hour', await get(`Bearer ${makeToken({ ...claims, nbf: now - 10, exp: now + 3600 }, SECRET)}`), 200);
	for (const [name, token] of [['of another secret', makeToken(claims, 'guessed')],
		['that has expired', makeToken({ ...claims, exp: now - 1 }, SECRET)],
		['that does not hold yet', makeToken({ ...claims, nbf: now + 60 }, SECRET)], ['of another algorithm', forged(claims)],
		['whose claims are no object', makeToken('anna', SECRET)], ['of two parts', 'a.b'], ['that is none', '...']])
	{
		const answer = await get(`Bearer ${token}`);

		check(tally, `a token ${name}`, answer, 401, { code: 'unauthorized' });
		tally.test(`a token ${name}: WWW-Authenticate`, answer.headers['www-authenticate'] === 'Bearer');
	}
	check(tally, 'another kind of authorization', await get('Basic YTpi'), 401);
	check(tally, 'nobody may not read', await world.request('GET', '/blocks/17'), 403, { code: '42501' });
	check(tally, 'a role that the login is no member of', await get(`Bearer ${makeToken({ role: 'postgres' }, SECRET)}`), 403,
		{ code: '42501' });
}

async function roles(world, tally)
{
	const { anna, reader } = world;

	check(tally, 'a reader reads', await reader('GET', '/blocks/17'), 200);
	check(tally, 'a reader does not write', await reader('PUT', '/blocks/17', { remarks: 'x' }), 403,
		{ status: 'rejected', code: 'denied' });
	check(tally, 'nor decide', await reader('POST', '/blocks/17/resolve', { choices: { remarks: { value: 'x' } } }), 403,
		{ code: '42501' });
	tally.test('the role is that of the token', await world.value("SELECT esync_state('blocks', 17) ->> 'remarks' IS NULL"));
	await anna('PUT', '/blocks/17', { remarks: 'mine' }, { 'X-User-Id': 'ben' });
	tally.test('the user is that of the token', await world.value(
		"SELECT user_id = 'anna' AND db_role = 'web_user' FROM esync.event WHERE event_id = (SELECT max(event_id) FROM esync_history('blocks', 17))"));
	// what one request set up is not there in the next one of its connection
	const seen = [];

	for (let i = 0; i < 20; i++)
		seen.push((await (i % 2 ? world.request('GET', '/blocks/17') : anna('GET', '/blocks/17'))).status);
	tally.test('a role ends with its request', seen.every((status, i) => status === (i % 2 ? 403 : 200)), seen.join());
}

// A request is never that of the login.
async function login(world, tally)
{
	const closed = createServer({ database: world.where, secret: SECRET });

	await new Promise(resolve => closed.listen(0, '127.0.0.1', resolve));
	const ask = claims => world.request('POST', '/rpc/esync_devices', {}, claims &&
		{ Authorization: `Bearer ${makeToken(claims, SECRET)}` }, { host: '127.0.0.1', port: closed.address().port });

	for (const claims of [undefined, {}, { sub: 'anna' }, { sub: 'anna', role: null }])
	{
		const answer = await ask(claims);

		check(tally, `${JSON.stringify(claims)} where nobody is served`, answer, 401, { code: 'unauthorized' });
		tally.test('says how to ask', answer.headers['www-authenticate'] === 'Bearer');
	}
	for (const role of ['none', '', 7, {}])
		check(tally, `${JSON.stringify(role)} for a role`, await ask({ sub: 'anna', role }), 403, { code: 'denied' });
	check(tally, 'a role where nobody is served', await ask({ sub: 'anna', role: 'web_user' }), 200);
	await closed.stop();
}

// A body cannot sign for somebody else, whichever function it is for.
async function users(world, tally)
{
	const { anna, db } = world;
	const nobody = (path, body) => world.as({ role: 'web_user' })('POST', path, body);
	const calls = context => [['esync_save', { tbl: 'blocks', document: { block_id: 17, remarks: 'signed' }, context }],
		['esync_delete', { tbl: 'blocks', key: '99', context }], ['esync_submit', { batch: { events: [] }, context }]];

	for (const [name, body] of calls({ user_id: 'boss' }))
	{
		check(tally, `${name} as another user`, await anna('POST', `/rpc/${name}`, body), 403, { code: 'denied' });
		check(tally, `${name} as a user, without a name`, await nobody(`/rpc/${name}`, body), 403, { code: 'denied' });
	}
	for (const context of [{ user_id: 'anna', device_id: 'tablet-7' }, { device_id: 'tablet-7' }, { user_id: null }, null])
		for (const [name, body] of calls(context))
			check(tally, `${name} as ${JSON.stringify(context)}`, await anna('POST', `/rpc/${name}`, body), 200);
	tally.test('a context in a string is none', (await anna('POST', '/rpc/esync_save',
		{ tbl: 'blocks', document: { block_id: 17, remarks: 'text' }, context: '{"user_id": "boss"}' })).status === 400);
	// what esync_context says ends with its request
	await anna('POST', '/rpc/esync_context', { user_id: 'boss' });
	await anna('PUT', '/blocks/17', { remarks: 'after a context' });
	// the recipe of docs/rest.md for a layer that passes every argument on: a schema of wrappers without context
	await db.query(`CREATE SCHEMA api; GRANT USAGE ON SCHEMA api TO web_user;
		CREATE FUNCTION api.save_block(document jsonb, id uuid) RETURNS jsonb LANGUAGE sql
		AS $$ SELECT public.esync_save('public.blocks', document, client_event_id => id) $$`);
	const narrow = createServer({ database: world.where, secret: SECRET, schemas: ['api'] });

	await new Promise(resolve => narrow.listen(0, '127.0.0.1', resolve));
	const ask = (path, body) => world.request('POST', path, body,
		{ Authorization: `Bearer ${makeToken({ sub: 'anna', role: 'web_user' }, SECRET)}` },
		{ host: '127.0.0.1', port: narrow.address().port });

	for (const [name, body] of calls({ user_id: 'anna' }))
		check(tally, `${name} of a schema that is not exposed`, await ask(`/rpc/${name}`, body), 404, { code: 'not_found' });
	check(tally, 'a wrapper without context', await ask('/rpc/save_block',
		{ document: { block_id: 17, remarks: 'wrapped' }, id: null }), 200, { status: 'accepted' });
	await narrow.stop();
	const by = await world.value("SELECT string_agg(DISTINCT user_id, ' ') FROM esync_history('blocks', 17) WHERE version > 1");

	tally.test('all of it is of the user of the token', by === 'anna', by);
}

async function tenants(world, tally)
{
	const a = world.as({ sub: 'anna', role: 'web_user', tenant: 'a' });
	const b = world.as({ sub: 'ben', role: 'web_user', tenant: 'b' });

	await world.db.query(`CREATE TABLE sites (id int PRIMARY KEY, tenant text NOT NULL, name text);
		ALTER TABLE sites ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON sites USING (tenant = current_setting('request.jwt.claims')::jsonb ->> 'tenant');
		GRANT SELECT, INSERT, UPDATE, DELETE ON sites TO web_user;
		SELECT esync_enable('sites', tenant => 'tenant')`);
	check(tally, 'a row of the tenant', await a('PUT', '/sites/1', { tenant: 'a', name: 'Basel' }), 200,
		{ status: 'accepted' });
	check(tally, 'a row of another tenant', await a('PUT', '/sites/2', { tenant: 'b', name: 'Bern' }), 403, { code: 'denied' });
	check(tally, "another's row is not there", await b('GET', '/sites/1'), 404);
	await b('PUT', '/sites/2', { tenant: 'b', name: 'Bern' });
	const changes = async (who, query) => (await who('GET', `/sync/changes?tables=sites${query ?? ''}`)).body;
	const ofA = await changes(a);

	tally.test("changes of the token's tenant alone", ofA.changes?.map(c => c.aggregate_id).join() === '1',
		JSON.stringify(ofA));
	check(tally, "another's tenant in the query", await a('GET', '/sync/changes?tenant=b'), 403, { code: 'denied' });
	for (const tenant of [null, '', 7, ['b'], {}])
		for (const query of ['', '&tenant=b'])
			check(tally, `${JSON.stringify(tenant)} for a tenant${query}`, await world.as({ sub: 'eve', role: 'web_user', tenant })('GET',
				`/sync/changes?tables=sites${query}`), 403, { code: 'denied' });
	// the README's row policy bounds the paths that the filter does not
	await world.db.query("UPDATE sites SET name = 'Berne' WHERE id = 2");
	for (const [method, path, body, hidden] of [['GET', '/sites/2', undefined, 404], ['GET', '/sites/2/history', undefined, 404],
		['POST', '/rpc/esync_changes', { tenant: 'b', rows: true }, 200], ['POST', '/rpc/esync_changes', { rows: true }, 200]])
	{
		const [his, hers] = [await b(method, path, body), await a(method, path, body)];

		tally.test(`a policy bounds ${method} ${path} ${JSON.stringify(body)}`, his.status === 200 && his.text.includes('Berne') &&
			hers.status === hidden && !hers.text.includes('Bern'), `${hers.status} ${hers.text.slice(0, 500)}`);
	}
	await world.db.query("UPDATE sites SET tenant = 'b' WHERE id = 1");
	const left = (await a('GET', `/sync/changes?tables=sites&cursor=${ofA.cursor}`)).body;

	tally.test('a row that leaves the tenant arrives as deleted', left.changes?.length === 1 &&
		left.changes[0].deleted === true &&
			   left.changes[0].aggregate_id === '1' && !JSON.stringify(left.changes).includes('Basel'), JSON.stringify(left));
}

export async function trust(world, tally)
{
	await tokens(world, tally);
	await roles(world, tally);
	await login(world, tally);
	await users(world, tally);
	await tenants(world, tally);
}
