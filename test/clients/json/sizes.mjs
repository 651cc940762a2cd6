// Bytes of our patches beside those of three libraries, on documents where they
// differ.  Ours must never be larger than the best of theirs.  A patch of theirs
// that moves elements is shown but does not count: esync_diff makes no moves.

import { createRequire } from 'node:module';
import * as rfc6902 from 'rfc6902';
import * as jsondiffpatch from 'jsondiffpatch';
import * as jsonpatchFormatter from 'jsondiffpatch/formatters/jsonpatch';
import { random } from './generate.mjs';

const require = createRequire(import.meta.url);
const fastJsonPatch = require('fast-json-patch');
const byPlace = jsondiffpatch.create();
const byId = jsondiffpatch.create({ objectHash: (o, i) => o?.id ?? `#${i}` });

const libraries = {
	'fast-json-patch': (a, b) => fastJsonPatch.compare(a, b),
	rfc6902: (a, b) => rfc6902.createPatch(a, b),
	jsondiffpatch: (a, b) => jsonpatchFormatter.format(byPlace.diff(a, b)),
	'jsondiffpatch + id': (a, b) => jsonpatchFormatter.format(byId.diff(a, b)),
};

const person = i => ({ id: i, name: `Person ${i}`, email: `person${i}@example.com`, age: 20 + i % 50,
					   active: i % 3 === 0, tags: [`t${i % 5}`, `u${i % 7}`] });
const people = n => Array.from({ length: n }, (_, i) => person(i + 1));

function form()
{
	return { id: '7c9e6679', title: 'Inspection of the main valve', status: 'open', customer: { name: 'Acme', city: 'Basel', zip: '4051' },
		assignee: { id: 12, name: 'Anna', phones: ['+41 61 000 00 00', '+41 79 000 00 00'] }, pressure: 137, temperature: 21.5, unit: 'bar',
		checks: { seal: true, spring: true, disc: false, nozzle: true }, remarks: 'none so far', signed: false, created: '2025-11-17T06:00:00Z',
		updated: '2025-11-18T06:00:00Z', location: { building: 'B3', floor: 2, room: '2.14', gps: [7.588576, 47.559601] }, version: 17 };
}

function nested()
{
	return { config: Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`section${i}`,
		{ enabled: i % 2 === 0, limits: { min: i, max: i * 10, soft: [i, i + 1] }, labels: { en: `Section ${i}`, de: `Abschnitt ${i}` },
		  servers: [{ host: `a${i}.example.com`, port: 8000 + i }, { host: `b${i}.example.com`, port: 9000 + i }] }])) };
}

function line(points)
{
	return { type: 'Feature', properties: { name: 'track' }, geometry: { type: 'LineString',
		coordinates: Array.from({ length: points }, (_, i) => [Number((7.5 + i / 1000).toFixed(4)), Number((47 + i / 777).toFixed(4))]) } };
}

function changed(value, change)
{
	const copy = structuredClone(value);

	return change(copy) ?? copy;
}

function documents()
{
	const r = random(20);
	const ints = Array.from({ length: 300 }, () => r.below(1000));
	const manifest = name => require(`${name}/package.json`);

	return [
		['form, 4 scalar edits', form(), changed(form(), d =>
			{ d.pressure = 140; d.status = 'done'; d.checks.disc = true; d.assignee.name = 'Ben'; })],
		['nested, keys added and removed', nested(), changed(nested(), d =>
			{ delete d.config.section3.limits; d.config.section5.labels.fr = 'Section cinq'; d.config.section7.servers.splice(0, 1); d.config.extra = { on: true }; })],
		['200 objects, one in front', people(200), [person(0), ...people(200)]],
		['200 objects, 1 deleted, 2 edited', people(200), changed(people(200), d =>
			{ d[150].age = 99; d[180].name = 'Somebody'; d.splice(40, 1); })],
		['100 objects, 1 moved', people(100), changed(people(100), d => { d.splice(70, 0, ...d.splice(20, 1)); })],
		['300 ints, 15 deleted, 15 inserted', ints, changed(ints, d =>
			{ for (let i = 0; i < 15; i++) { d.splice(r.below(d.length), 1); d.splice(r.below(d.length), 0, 1000 + i); } })],
		['100 objects reversed', people(100), people(100).reverse()],
		['GeoJSON, 400 points, 1 inserted, 1 edited', line(400), changed(line(400), d =>
			{ d.geometry.coordinates[300][1] = 1.5; d.geometry.coordinates.splice(100, 0, [1.25, 2.5]); })],
		['50 objects, all different', people(50), people(100).slice(50).map(p => ({ ...p, age: p.age + 1, active: !p.active, tags: [p.name] }))],
		['manifest semver 5.7.2 to 6.3.1', manifest('semver5'), manifest('semver6')],
		['manifest semver 6.3.1 to 7.6.3', manifest('semver6'), manifest('semver7')],
		['manifest uuid 3.4.0 to 7.0.3', manifest('uuid3'), manifest('uuid7')],
		['manifest uuid 7.0.3 to 8.3.2', manifest('uuid7'), manifest('uuid8')],
		['manifest uuid 8.3.2 to 9.0.1', manifest('uuid8'), manifest('uuid9')],
	];
}

const bytes = patch => Buffer.byteLength(JSON.stringify(patch));

export async function sizes(db, tally)
{
	console.log('operations / bytes of patches:');
	for (const [name, a, b] of documents())
	{
		const { rows } = await db.query('SELECT p::text, esync_patch($1, p) = $2 AS law FROM esync_diff($1::jsonb, $2::jsonb) p',
										[JSON.stringify(a), JSON.stringify(b)]);
		const ours = JSON.parse(rows[0].p);
		let best = Infinity;
		let told = '';

		for (const library in libraries)
		{
			const patch = libraries[library](a, b);
			const moves = patch.some(op => op.op === 'move' || op.op === 'copy');

			if (!moves)
				best = Math.min(best, bytes(patch));
			told += `, ${library} ${patch.length} / ${bytes(patch)}${moves ? ' (moves)' : ''}`;
		}
		console.log(`  ${name}: esync ${ours.length} / ${bytes(ours)}${told}`);
		tally.test(`size: ${name}`, rows[0].law && bytes(ours) <= best, `${bytes(ours)} bytes, best ${best}: ${rows[0].p.slice(0, 1500)}`);
	}
}
