// Makes the tables of demo/1-tables.sql ready for clients: roles, rights, and events of all rows, so that a first pull finds them.

import pg from 'pg';
import { ROLES } from '../roles.mjs';
import { rows } from './orders.mjs';

const READY = `
GRANT SELECT, INSERT, UPDATE, DELETE ON blocks, productions, rates TO web_user;
SELECT esync_enable('blocks', baseline => true), esync_enable('productions', baseline => true),
	esync_enable('rates')`;

export async function setUp(where)
{
	for (const database of ['rxdb', 'random', 'week'])
	{
		const db = new pg.Client({ ...where, user: 'postgres', database });

		await db.connect();
		await db.query(ROLES);
		await db.query(READY);
		await db.query(rows);
		await db.end();
	}
}
