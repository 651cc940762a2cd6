// demo/rest/listen.mjs: prints each event, wakes up by NOTIFY, and loses nothing when it is killed.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const LISTENER = fileURLToPath(new URL('../../../demo/rest/listen.mjs', import.meta.url));

class Listener
{
	constructor({ where }, seen)
	{
		this.child = spawn(process.execPath, [LISTENER, 'tests'], { stdio: ['ignore', 'pipe', 'inherit'],
			env: { ...process.env, PGHOST: where.host, PGPORT: where.port, PGUSER: 'postgres', PGDATABASE: where.database } });
		// without a place to put them its output is not read, and the listener hangs where it prints
		if (seen)
			createInterface(this.child.stdout).on('line', line => seen.push({ ...JSON.parse(line), line }));
	}

	async kill()
	{
		this.child.kill('SIGKILL');
		await once(this.child, 'exit');
	}
}

async function until(what, seconds = 20)
{
	const end = Date.now() + seconds * 1000;

	while (Date.now() < end)
	{
		if (await what())
			return true;
		await new Promise(resolve => setTimeout(resolve, 50));
	}
	return false;
}

export async function listener(world, tally)
{
	const { db } = world;
	const seen = [];
	const written = async () => (await db.query('SELECT event_id FROM esync.event ORDER BY event_id')).rows.map(r => Number(r.event_id));
	const told = async () => (await written()).every(id => seen.some(c => c.event_id === id));

	await db.query(`ALTER DATABASE ${world.where.database} SET esync.consumer_lease = '1s'`);
	await db.query("SELECT esync_enable('blocks', notify => true), esync_enable('productions', notify => true)");
	let one = new Listener(world, seen);

	tally.test('the listener prints what was there', await until(told), JSON.stringify(seen));
	const before = Date.now();

	await db.query("UPDATE blocks SET remarks = 'as it comes' WHERE block_id = 17");
	tally.test('and what comes, as it comes', await until(() => seen.some(c => c.set.remarks === 'as it comes'), 4) &&
		Date.now() - before < 4000,
			   `${Date.now() - before} ms`);
	const [key, digits] = ['9007199254740993', '12345678901234567890.1234567890'];

	await db.query(`CREATE TABLE long_numbers (id bigint PRIMARY KEY, v numeric);
		SELECT esync_enable('long_numbers', notify => true); INSERT INTO long_numbers VALUES (${key}, ${digits})`);
	await until(() => seen.some(c => c.table === 'public.long_numbers'));
	const long = seen.find(c => c.table === 'public.long_numbers')?.line ?? '';

	tally.test('numbers are printed as they are', long.includes(`"key": {"id": ${key}}`) && long.includes(`"v": ${digits}`), long);
	await one.kill();

	// stuck between poll and acknowledgement: more is to be printed than a pipe holds
	const count = seen.length;

	await db.query("INSERT INTO blocks (description) SELECT repeat('x', 2000) FROM generate_series(1, 400)");
	one = new Listener(world, null);
	tally.test('a listener that is stuck has polled', await until(async () => await world.value(
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%esync_poll%' AND state = 'idle' AND pid <> pg_backend_pid()")));
	await one.kill();
	one = new Listener(world, seen);
	tally.test('after kill -9 all of it comes', await until(told), `${seen.length} of ${(await written()).length}`);
	tally.test('none of which had been printed', seen.length >= count + 400, String(seen.length));

	// killed at any moment while rows are written
	for (let i = 0; i < 6; i++)
	{
		await db.query('UPDATE blocks SET remarks = $1 WHERE block_id % 3 = $2', [`round ${i}`, i % 3]);
		await new Promise(resolve => setTimeout(resolve, 20 + 60 * i));
		await one.kill();
		one = new Listener(world, seen);
		await db.query('INSERT INTO productions (block_id, volume) SELECT 17, n FROM generate_series(1, 5) AS n');
	}
	tally.test('killed again and again it tells all', await until(told, 30),
		`${new Set(seen.map(c => c.event_id)).size} of ${(await written()).length}`);
	const first = new Map();

	for (const change of seen)
		if (!first.has(change.event_id))
			first.set(change.event_id, change);
	const held = {};
	const inverted = [...first.values()].filter(c =>
	{
		const row = `${c.table} ${c.aggregate_id}`;
		const wrong = c.version <= (held[row] ?? 0);

		held[row] = c.version;
		return wrong;
	});

	tally.test('each row in the order of its versions', inverted.length === 0, JSON.stringify(inverted.slice(0, 3)));
	const nowhere = spawnSync(process.execPath, [LISTENER, 'tests'], { encoding: 'utf8',
		env: { ...process.env, PGHOST: world.where.host, PGPORT: world.where.port, PGUSER: 'postgres', PGDATABASE: 'no_such' } });

	tally.test('without its database it says so in one line', nowhere.status === 1 && nowhere.stdout === '' &&
		nowhere.stderr === 'database "no_such" does not exist\n', `${nowhere.status} ${nowhere.stderr}`);
	console.log(`  listener: ${first.size} events, ${seen.length - first.size} of them repeated`);
	await one.kill();
}
