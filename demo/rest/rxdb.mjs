// RxDB over the REST layer: the options pull and push of replicateRxCollection.
//
//   const device = new Device({ url: 'https://...', id: 'tablet-7', headers: () => ({ Authorization: ... }),
//                               onRejected: (result, event) => ... });
//   replicateRxCollection({ collection, replicationIdentifier: 'esync-blocks', ...device.replicate(collection, { table: 'blocks' }) });
//
// Merging is the server's: an event says what its author had seen and what he left, and where the row became something
// else RxDB is given that as the master's document, which its default conflict handler takes.
// One Device for one local database: its collections share one queue, so that parents and children travel together.

const MAX_EVENTS = 500;		// of a batch, and its bytes, until the server says otherwise
const MAX_BYTES = 1048576;
const GATHERING_MS = 10;	// how long the first event of a batch waits for those of other collections

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

// An id that is the same for the same content: what is sent twice is one event.
async function idOf(content)
{
	const hash = new Uint8Array(await crypto.subtle.digest('SHA-256',
		new TextEncoder().encode(JSON.stringify(content)))).slice(0, 16);

	hash[6] = hash[6] & 0x0f | 0x80;
	hash[8] = hash[8] & 0x3f | 0x80;
	return [...hash].map(b => b.toString(16).padStart(2, '0')).join('').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

// A time of RxDB, in hundredths of a millisecond.
function isoOf(hundredths)
{
	return new Date(Math.floor(hundredths / 100)).toISOString().replace('Z', String(hundredths % 100).padStart(2, '0') + 'Z');
}

export class Device
{
	constructor({ url, id, headers = () => ({}), onRejected = () => {}, tries = 3, retryMs = 1000 })
	{
		Object.assign(this, { url, id, headers, onRejected, tries, retryMs, pending: [], sending: null,
							  maxEvents: MAX_EVENTS, maxBytes: MAX_BYTES });
	}

	// One request; undefined for 404 where that may be, an error for all that RxDB shall try again.
	async request(path, { body, missing = false } = {})
	{
		const response = await fetch(this.url + path, {
			method: body ? 'POST' : 'GET', body: body && JSON.stringify(body),
			headers: { 'Content-Type': 'application/json', 'X-Device-Id': this.id, ...await this.headers() },
		});

		if (response.status === 404 && missing)
			return undefined;
		if (!response.ok)
			throw new Error(`${response.status} of ${path}: ${await response.text()}`);
		return response.json();
	}

	// Queues one event; its result, once that is final.
	submit(event)
	{
		return new Promise((resolve, reject) =>
		{
			this.pending.push({ event, resolve, reject, tries: 0, bytes: new TextEncoder().encode(JSON.stringify(event)).length });
			this.sending ??= this.send().finally(() => { this.sending = null; });
		});
	}

	// Takes the next batch off the queue: well below the limits of the server, but one event at least.
	take()
	{
		let bytes = 0;
		const end = this.pending.findIndex((p, i) => (bytes += p.bytes) > this.maxBytes / 2 && i > 0 || i >= this.maxEvents);

		return this.pending.splice(0, end < 0 ? this.pending.length : end);
	}

	// Sends what is queued.  What could succeed later, as a child before its parent, is tried again beside all that has come.
	async send()
	{
		while (this.pending.length > 0)
		{
			await sleep(this.pending.every(p => p.tries > 0) ? this.retryMs : GATHERING_MS);
			const batch = this.take();

			try
			{
				const answer = await this.request('/sync/submit', { body: {
					device_id: this.id, sent_at: new Date().toISOString(), events: batch.map(p => p.event) } });

				this.maxEvents = answer.next.max_events;
				this.maxBytes = answer.next.max_bytes;
				answer.results.forEach((result, i) => this.settle(batch[i], result));
			}
			catch (e)
			{
				batch.forEach(p => p.reject(e));
			}
		}
	}

	settle(item, result)
	{
		if (result.status === 'rejected' && result.retryable && ++item.tries < this.tries)
			this.pending.push(item);
		else
			item.resolve(result);
	}

	// The options of one collection; `version` names a property that keeps the row's version, `local` those that are no columns.
	replicate(collection, { table, version, local = [], batchSize = 100 })
	{
		const replica = new Replica(this, collection, table, version, local);

		return {
			pull: { batchSize, handler: (checkpoint, limit) => replica.pull(checkpoint, limit) },
			push: { batchSize, handler: rows => Promise.all(rows.map(row => replica.push(row))).then(masters => masters.filter(m => m)) },
		};
	}
}

class Replica
{
	constructor(device, collection, table, version, local)
	{
		const { primaryKey, properties } = collection.schema.jsonSchema;
		const composed = typeof primaryKey === 'object';

		Object.assign(this, { device, collection, table, version, properties });
		this.primary = composed ? primaryKey.key : primaryKey;
		this.keys = composed ? primaryKey.fields : [primaryKey];
		this.columns = Object.keys(properties).filter(name =>
			!name.startsWith('_') && name !== version && !local.includes(name) && !(composed && name === this.primary));
	}

	// A row as the schema has it: a null is a property that is not there, unless the schema knows null.
	toDocument(row, at)
	{
		const document = {};

		for (const name of this.columns)
		{
			const types = [this.properties[name].type].flat();
			const value = row[name] ?? null;

			if (value !== null)
				document[name] = typeof value === 'number' && types[0] === 'string' ? String(value) : value;
			else if (types.includes('null'))
				document[name] = null;
		}
		if (this.version)
			document[this.version] = at;
		if (this.keys[0] !== this.primary)
			document[this.primary] = this.collection.schema.getPrimaryOfDocumentData(document);
		return { ...document, _deleted: false };
	}

	// A document as a row: a property that is not there is null, but at its creation the column's default.
	toRow(document, created)
	{
		return Object.fromEntries(this.columns.filter(name => !created || document[name] !== undefined)
			.map(name => [name, document[name] ?? null]));
	}

	keyOf(document)
	{
		return Object.fromEntries(this.keys.map(name => [name, document[name]]));
	}

	equal(a, b)
	{
		return !a._deleted === !b._deleted && JSON.stringify(this.toRow(a)) === JSON.stringify(this.toRow(b));
	}

	// The server's row, deleted ones included; undefined: it knows none, or does not show it.
	checkout(document)
	{
		const key = this.keys.length > 1 ? JSON.stringify(this.keyOf(document)) : String(document[this.keys[0]]);

		return this.device.request(`/${encodeURIComponent(this.table)}/${encodeURIComponent(key)}`, { missing: true });
	}

	// When the document was saved here: a number that RxDB never gives twice, and so the seq, too.  It tells that of the
	// last state alone: where the document was edited again since, the moment just before that.
	async savedAt(document)
	{
		const [stored] = await this.collection.storageInstance.findDocumentsById([document[this.primary]], true);
		const at = Math.round((stored?._meta.lwt ?? Date.now()) * 100);

		return !stored || this.equal(stored, document) ? at : at - 1;
	}

	// What was done to one document, as an event; null: there is nothing to tell.
	async event({ assumedMasterState: base, newDocumentState: document })
	{
		const savedAt = await this.savedAt(document);
		const known = base && !base._deleted;
		const event = { seq: savedAt, table: this.table, key: this.keyOf(document),
						op: document._deleted ? 'delete' : base ? 'save' : 'create', submit_timestamp: isoOf(savedAt) };

		if (!document._deleted)
			event.document = this.toRow(document, !known);
		if (known)
			event.base = this.toRow(base);
		if (base?.[this.version] !== undefined)
			event.base_version = base[this.version];
		else if (!known && (base || document._deleted))
		{
			// deleted and made again, or made and deleted before it was ever acknowledged
			const there = await this.checkout(document);

			if (document._deleted && (!there || there.deleted))
				return null;
			event.base_version = base && there?.deleted ? there.version : 0;
		}
		return { id: await idOf([this.device.id, event]), ...event };
	}

	// Hands one document in; what the server has instead, if that is something else.
	async push(row)
	{
		const sent = row.newDocumentState;
		const event = await this.event(row);
		const result = event ? await this.device.submit(event) : { status: 'accepted' };
		let now = result;

		if (result.status === 'rejected')
		{
			// the server keeps the edit; here the row becomes what it is there
			this.device.onRejected(result, event);
			now = await this.checkout(sent) ?? { deleted: true };
		}
		else if (!result.row && !result.deleted)
			return null;
		const master = now.deleted || !now.row ? { ...sent, _deleted: true } : this.toDocument(now.row, now.version);

		return this.equal(master, sent) ? null : master;
	}

	// Documents that changed since the checkpoint.  RxDB takes fewer than it asked for as the end, so pages are filled.
	async pull(checkpoint, limit)
	{
		const documents = new Map();
		let page = { cursor: checkpoint?.cursor };

		do
		{
			page = await this.page(page.cursor, limit - documents.size);
			if (page.reset)
				return this.afresh();
			await this.collect(page, documents);
		} while (page.has_more && documents.size < limit);
		return { documents: [...documents.values()], checkpoint: { cursor: page.cursor } };
	}

	page(cursor, limit)
	{
		return this.device.request('/sync/changes?' + new URLSearchParams(
			{ tables: this.table, max_rows: limit, rows: true, ...cursor && { cursor } }));
	}

	// Adds the changes of a page.  A deletion has no row; what is not here either need not be deleted.
	async collect(page, documents)
	{
		const changes = page.changes.map(change =>
			[change, change.deleted ? this.toDocument({ ...change.set, ...change.key }) : this.toDocument(change.set,
				change.version)]);
		const gone = changes.filter(([change]) => change.deleted).map(([, document]) => document[this.primary]);
		const here = new Map((await this.collection.storageInstance.findDocumentsById(gone, true))
			.map(document => [document[this.primary], document]));

		for (const [change, document] of changes)
		{
			const id = document[this.primary];
			const held = documents.get(id) ?? here.get(id);

			if (!change.deleted)
				documents.set(id, document);
			else if (held)
				documents.set(id, { ...this.toDocument(held, change.version), _deleted: true });
		}
	}

	// The server can no longer tell what changed since the cursor: everything again, and what is not among it is gone.  Where
	// that happens on the way, too, what came so far is no whole; RxDB tries again later, from its checkpoint.
	async afresh()
	{
		const documents = new Map();
		let page = {};

		do
		{
			page = await this.page(page.cursor, MAX_EVENTS);
			if (page.reset)
				throw new Error(`reset (${page.reason}) while everything was pulled`);
			await this.collect(page, documents);
		} while (page.has_more);
		for (const document of await this.collection.find().exec())
			if (!documents.has(document.primary))
				documents.set(document.primary, { ...this.toDocument(document.toJSON()), _deleted: true });
		return { documents: [...documents.values()], checkpoint: { cursor: page.cursor } };
	}
}
