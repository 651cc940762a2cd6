// Three devices and an office, at random: edits, creations, deletions, syncs that break off before or after the server
// has heard, pages of a few documents, decisions.  When all have come back all are equal.

import { random as numbers } from '../json/generate.mjs';
import { Client, difference, tableState } from './client.mjs';

const STEPS = 200;
const FIELDS = {
	description: r => `d${r.below(4)}`, vSetPressure: r => 1 + r.below(4),
		remarks: r => r.below(4) === 0 ? undefined : `r${r.below(4)}`,
	isSealed: r => r.chance(0.5), vDrawings: r => r.below(3) === 0 ? undefined : [`x${r.below(3)}`],
		vDocuments: r => ({ a: { b: r.below(3) } }),
};
const PRODUCTION_FIELDS = { volume: r => r.below(5), note: r => r.below(3) === 0 ? null : `n${r.below(3)}` };

const uuid = (kind, n) => `${kind}0000000-0000-4000-8000-${String(n).padStart(12, '0')}`;

class Story
{
	constructor(world, r)
	{
		Object.assign(this, { world, r, made: 0, clients: [], told: [] });
	}

	async open()
	{
		for (const [i, user] of ['anna', 'ben', 'dora'].entries())
		{
			const client = await Client.open(this.world, user, `random-${i}`, { batchSize: this.r.pick([3, 20, 100]) });
			const request = client.device.request;

			// a part of the requests is lost, on the way there or on the way back
			client.faults = 0;
			client.device.request = async (path, options) =>
			{
				const fault = client.faults > 0 && this.r.chance(0.3) ? this.r.pick(['before', 'after']) : null;

				if (fault)
					client.faults--;
				if (fault === 'before')
					throw new Error('not sent');
				const answer = await request.call(client.device, path, options);

				if (fault === 'after')
					throw new Error('the answer is lost');
				return answer;
			};
			this.clients.push(client);
			await client.sync();
		}
	}

	// One step of one device.
	async step()
	{
		const { r } = this;
		const client = r.pick(this.clients);
		const table = r.pick(['blocks', 'blocks', 'productions']);
		const documents = await client[table].find().exec();
		const kind = r.below(100);

		if (kind < 55 && documents.length > 0)
			await this.edit(r.pick(documents), table === 'blocks' ? FIELDS : PRODUCTION_FIELDS);
		else if (kind < 67)
			await this.create(client, table);
		else if (kind < 73 && documents.length > 3)
			await r.pick(documents).remove();
		else if (kind < 80)
			await this.office();
		else
		{
			client.faults = r.below(4);
			await client.once(r.chance(0.7) ? ['blocks', 'productions'] : [table]);
		}
	}

	edit(document, fields)
	{
		return document.incrementalModify(data =>
		{
			for (let i = 0; i <= this.r.below(3); i++)
			{
				const name = this.r.pick(Object.keys(fields));
				const value = fields[name](this.r);

				if (value === undefined)
					delete data[name];
				else
					data[name] = value;
			}
			return data;
		});
	}

	async create(client, table)
	{
		const n = ++this.made;

		if (table === 'blocks')
			await client.blocks.insert({ block_id: uuid('d', n), vTagNo: `RND-${n}`, isSealed: true });
		else
		{
			const block = this.r.pick(await client.blocks.find().exec());

			if (block)
				await client.productions.insert({ production_id: uuid('e', n), block_id: block.block_id, product_id: 1,
					produced_on: '2025-11-20', volume: n });
		}
	}

	// Plain SQL, deletions with their cascade, and decisions.
	office()
	{
		const n = this.r.below(1000);
		const one = `(SELECT block_id FROM blocks ORDER BY "vTagNo" OFFSET ${n} % (SELECT count(*) FROM blocks) LIMIT 1)`;

		return this.world.db.query(this.r.pick([
			`UPDATE blocks SET remarks = 'office ${n}' WHERE block_id = ${one}`,
			'UPDATE productions SET volume = volume + 1',
			`DELETE FROM blocks WHERE block_id = ${one} AND (SELECT count(*) > 4 FROM blocks)`,
			"SELECT esync_resolve_all('blocks', 'last_write_wins', 'vSetPressure')",
			"SELECT esync_touch('blocks', block_id::text) FROM blocks"]));
	}

	// All come back; what one brings the others take with the next round.
	async end()
	{
		for (const client of this.clients)
			client.faults = 0;
		for (let round = 0; round < 3; round++)
			for (const client of this.clients)
				await client.once();
	}
}

export async function random(world, tally, { seed })
{
	const story = new Story(world, numbers(seed));

	await story.open();
	for (let i = 0; i < STEPS; i++)
		await story.step();
	await story.end();
	for (const table of ['blocks', 'productions'])
		for (const [i, client] of story.clients.entries())
		{
			const wrong = difference(await client.state(table), await tableState(world.db, table));

			tally.test(`seed ${seed}: device ${i} holds the ${table}`, wrong === null, `device <, table >\n\t${wrong}`);
		}
	const { rows: problems } = await world.db.query("SELECT * FROM esync_verify('blocks') UNION ALL SELECT * FROM esync_verify('productions')");

	tally.test(`seed ${seed}: tables and streams agree`, problems.length === 0, JSON.stringify(problems));
	const { rows: [counts] } = await world.db.query(`SELECT (SELECT count(*)::int FROM esync.event WHERE device_id ~ '^random-') AS events,
		(SELECT count(*)::int FROM esync_conflicts(status => 'all')) AS conflicts, (SELECT count(*)::int FROM esync_rejected()) AS rejected,
		(SELECT sum(duplicates)::int FROM esync_devices()) AS repeats`);

	tally.test(`seed ${seed}: there was something to merge`, counts.events > 20 && counts.conflicts > 0,
		JSON.stringify(counts));
	tally.test(`seed ${seed}: no device is in conflict with itself`, await world.value(`SELECT count(*) = 0 FROM esync_conflicts(status => 'all')
		WHERE (SELECT count(DISTINCT coalesce(c ->> 'device_id', '')) < 2 FROM jsonb_array_elements(contenders) AS c)`));
	tally.test(`seed ${seed}: what was rejected was told`, story.clients.every(c => c.rejected.every(r => r.result.rejected_id > 0)));
	console.log(`  random, seed ${seed}: ${JSON.stringify(counts)}`);
	for (const client of story.clients)
		await client.close();
}
