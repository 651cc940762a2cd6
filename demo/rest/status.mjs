// The HTTP status of what esync answers: the table "HTTP status" of docs/rest.md.

import pg from 'pg';

const BY_CODE = {
	denied: 403, not_found: 404, too_large: 413, conflict: 409, stale: 409, id_reused: 409,
	constraint: 422, fk: 422, depends_on: 422,
};
const BY_SQLSTATE = {
	42703: 400, 'P0001': 400, 42501: 403, 'YS001': 404, '42P01': 404, 42883: 404, 42704: 404, 'P0002': 404,
	'YS004': 409, 'YS005': 409, 55000: 409, '55P03': 409, '0A000': 501, 25006: 503, 40001: 503, '40P01': 503,
};
const BY_CLASS = { 22: 400, 23: 422, '08': 503, 53: 503, 57: 503, 58: 503 };

// Of one element of "results", as save, delete and retry answer it.
export function ofResult(result)
{
	return result.status === 'rejected' ? BY_CODE[result.code] ?? 400 : 200;
}

// Of an error: one of this layer, one of the server, one of the way to the server; a fault of this layer is none of them.
export function ofError(e)
{
	if (e instanceof Refusal)
		return e.status;
	if (e instanceof pg.DatabaseError)
		return BY_SQLSTATE[e.code] ?? BY_CLASS[e.code.slice(0, 2)] ?? 500;
	return e.constructor === Error || e.code ? 503 : 500;
}

// What this layer itself refuses; code is a word, where PostgreSQL's is an SQLSTATE.
export class Refusal extends Error
{
	constructor(status, code, message, headers = {})
	{
		super(message);
		Object.assign(this, { status, code, headers });
	}
}
