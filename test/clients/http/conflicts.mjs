// History, conflicts, decisions and undo.

import { check } from './world.mjs';

async function clash({ anna, ben }, pressure, remarks)
{
	const base = (await anna('GET', '/blocks/17')).body.version;
	const headers = hour => ({ 'X-Base-Version': String(base),
		'X-Submit-Timestamp': new Date(Date.now() - hour * 3600000).toISOString() });

	await anna('PUT', '/blocks/17', { vSetPressure: pressure, remarks: `${remarks} of anna` }, headers(2));
	return (await ben('PUT', '/blocks/17', { vSetPressure: pressure + 1, remarks: `${remarks} of ben` }, headers(1))).body;
}

async function histories(world, tally)
{
	const { anna } = world;
	const page = check(tally, 'GET /blocks/:id/history', await anna('GET', '/blocks/17/history'), 200,
		{ table: 'public.blocks', version: 3, deleted: false, drift: [] });
	const field = page.fields.find(f => f.field === 'vSetPressure');

	tally.test('has each field with its history, its events and its conflicts',
			   field.current_value === 142 && field.history.length === 3 && page.timeline.length === 3 &&
				page.conflicts.length === 2,
			   JSON.stringify(page));
	const track = await anna('GET', '/blocks/17/history/vSetPressure');

	const bars = track.body.map(h => `${h.user_id} ${h.value} ${h.status}`).join();

	tally.test('GET /blocks/:id/history/:field', track.status === 200 &&
			   bars === 'ben 142 current,anna 141 conflict,carla 137 superseded', track.text);
	check(tally, 'history of a key that never was', await anna('GET', '/blocks/99/history'), 404);
	check(tally, 'history of a field that is none', await anna('GET', '/blocks/17/history/colour'), 400, { code: '42703' });
	const suggested = await anna('GET', '/blocks/17/suggest/vSetPressure');

	tally.test('GET /blocks/:id/suggest/:field', suggested.status === 200 && suggested.body.length === 3, suggested.text);
}

async function decisions(world, tally)
{
	const { anna, carla } = world;
	const open = (await anna('GET', '/conflicts?table=blocks&key=17&status=open')).body;
	const [pressure] = open.filter(c => c.field === 'vSetPressure');
	const decide = (path, body) => carla('POST', path, body, { 'X-Submit-Timestamp': new Date().toISOString() });

	tally.test('GET /conflicts', open.length === 2 && pressure.contenders.length === 2, JSON.stringify(open));
	tally.test('GET /conflicts of one field', (await anna('GET',
		'/conflicts?field=remarks')).body.map(c => c.field).join() === 'remarks');
	const solved = check(tally, 'POST /conflicts/:id/resolve', await decide(`/conflicts/${pressure.conflict_id}/resolve`,
		{ strategy: 'manual', value: 140.5, expected_version: 3 }), 200, { version: 4, resolved: [pressure.conflict_id] });

	tally.test('the decision is an event of the user', await world.value(
		"SELECT user_id = 'carla' AND event_type = 'Resolved' FROM esync_history('blocks', 17) WHERE event_id = $1",
			solved.event_id));
	const late = check(tally, 'the second decision', await decide(`/conflicts/${pressure.conflict_id}/resolve`,
		{ strategy: 'client_wins', expected_version: 4 }), 409, { code: 'YS004' });

	tally.test('its details are the row as it is now', JSON.parse(late.details).row.vSetPressure === 140.5 &&
		JSON.parse(late.details).version === 4, late.details);
	const [remarks] = open.filter(c => c.field === 'remarks');

	check(tally, 'a strategy that is none', await decide(`/conflicts/${remarks.conflict_id}/resolve`, { strategy: 'dice' }),
		400, { code: '22023' });
	check(tally, 'no strategy', await decide(`/conflicts/${remarks.conflict_id}/resolve`, {}), 400);
	check(tally, 'a member that is none', await decide(`/conflicts/${remarks.conflict_id}/resolve`,
		{ strategy: 'client_wins', values: 1 }), 400, { code: 'invalid' });
	check(tally, 'a conflict that never was', await decide('/conflicts/100000/resolve', { strategy: 'client_wins' }), 404,
		{ code: '42704' });
	check(tally, 'a constraint refuses the decision', await decide('/blocks/17/resolve',
		{ choices: { vSetPressure: { value: -3 } } }), 422, { code: '23514' });
	check(tally, 'manual to null', await decide(`/conflicts/${remarks.conflict_id}/resolve`,
		{ strategy: 'manual', value: null, expected_version: 4 }), 200, { version: 5 });
	tally.test('is a value', await world.value('SELECT remarks IS NULL FROM blocks WHERE block_id = 17'));
	const bens = await world.value("SELECT event_id FROM field_history('blocks', 17, 'vSetPressure') WHERE user_id = 'ben'");

	check(tally, 'POST /blocks/:id/resolve', await decide('/blocks/17/resolve',
		{ choices: { vSetPressure: { event_id: Number(bens) }, description: { value: 'Both' } }, expected_version: 5 }), 200,
			{ version: 6 });
	check(tally, 'of a row that changed meanwhile', await decide('/blocks/17/resolve',
		{ choices: { description: { value: 'Late' } }, expected_version: 5 }), 409, { code: 'YS004' });
	check(tally, 'of a row that never was', await decide('/blocks/99/resolve', { choices: { description: { value: 'x' } } }),
		404);
	const undone = check(tally, 'POST /events/:id/undo', await carla('POST', `/events/${solved.event_id}/undo`), 200);

	tally.test('says what was kept', Object.keys(undone).includes('kept') && Object.keys(undone).includes('undone'),
		JSON.stringify(undone));
	check(tally, 'undo once more', await carla('POST', `/events/${solved.event_id}/undo`), 409, { code: '55000' });
	check(tally, 'undo of what never was', await carla('POST', '/events/100000/undo'), 404, { code: '42704' });
	check(tally, 'undo of what is no number', await carla('POST', '/events/x/undo'), 400, { code: '22P02' });
}

export async function conflicts(world, tally)
{
	const told = await clash(world, 141, 'seen');

	tally.test('two edits clash', told.status === 'conflict' && told.conflicts.length === 2, JSON.stringify(told));
	await histories(world, tally);
	await decisions(world, tally);
}
