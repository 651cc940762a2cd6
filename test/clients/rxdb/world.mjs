// A database and the REST layer in front of it, for clients with RxDB.

import pg from 'pg';
import { createServer } from '../../../demo/rest/server.mjs';
import { makeToken } from '../../../demo/rest/token.mjs';

const SECRET = 'a secret of the tests';

export class World
{
	// In a database that is there, by default as its owner.
	static async open(where)
	{
		const world = new World();

		world.errors = [];
		world.db = new pg.Client({ ...where, user: 'postgres' });
		await world.db.connect();
		world.server = createServer({ database: { ...where, user: 'web' }, secret: SECRET });
		await new Promise(resolve => world.server.listen(0, '127.0.0.1', resolve));
		world.url = `http://127.0.0.1:${world.server.address().port}`;
		return world;
	}

	token(user)
	{
		return { Authorization: `Bearer ${makeToken({ sub: user, role: 'web_user' }, SECRET)}` };
	}

	// One value of one row.
	async value(sql, ...values)
	{
		const { rows } = await this.db.query({ text: sql, values, rowMode: 'array' });

		return rows[0]?.[0];
	}

	async close()
	{
		await this.server.stop();
		await this.db.end();
	}
}

// What waits for what does not come has failed.
export function within(seconds, promise)
{
	const late = new Promise((_, reject) => { setTimeout(() => reject(new Error(`not done after ${seconds} s`)),
		seconds * 1000).unref(); });

	return Promise.race([promise, late]);
}
