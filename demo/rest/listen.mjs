// Prints what changes, as it changes: one line an event, at least once each.  Killed at any moment and started again it
// goes on: what was polled and not acknowledged comes again once the lease is over (esync.consumer_lease).
//   node listen.mjs CONSUMER        the database is that of PGHOST, PGDATABASE and so on

import pg from 'pg';

const POLL_MS = 5000;		// tables without the option notify are looked at so often
// changes as the text that PostgreSQL made, so that no number passes through JavaScript
const POLL = `SELECT page ->> 'cursor' AS cursor, page ->> 'reason' AS reason, (page -> 'reset')::boolean AS reset,
	(page -> 'has_more')::boolean AS has_more, ARRAY(SELECT c.change::text
		FROM jsonb_array_elements(page -> 'changes') WITH ORDINALITY AS c (change, n) ORDER BY c.n) AS changes
	FROM esync_poll($1) AS page`;
const consumer = process.argv[2] ?? 'demo';
const db = new pg.Client();
let wake = () => {};

// the end, in one line; an error of several addresses has no message of its own
function fail(e)
{
	console.error(e.message || e.code);
	process.exit(1);
}

process.stdout.on('error', fail);		// whoever read it has gone
await db.connect().catch(fail);
db.on('notification', () => wake());
db.on('error', fail);
await db.query('LISTEN esync');
for (;;)
{
	// made before the poll, so that a notification that comes during it is heard
	const woken = new Promise(resolve => { wake = resolve; setTimeout(resolve, POLL_MS); });
	const page = await db.query(POLL, [consumer]).then(r => r.rows[0], e =>
	{
		if (e.code === '55P03')		// what another one polled, or this one before it was killed, is not acknowledged yet
			return { changes: [] };
		fail(e);
	});

	// acknowledged when it is out of this process, not before
	for (const change of page.changes)
		await new Promise(resolve => process.stdout.write(change + '\n', resolve));
	if (page.reset)
		console.error(`reset (${page.reason}): all that is retained comes again`);
	if (page.changes.length > 0 || page.reset)
		await db.query('SELECT esync_ack($1, $2)', [consumer, page.cursor]);
	if (!page.has_more)
		await woken;
}
