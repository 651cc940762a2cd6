// Who asks: a JSON Web Token signed with HMAC-SHA256, as PostgREST takes it with its jwt-secret.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { Refusal } from './status.mjs';

const encode = part => Buffer.from(JSON.stringify(part)).toString('base64url');
const signature = (text, secret) => createHmac('sha256', secret).update(text).digest();

export const unauthorized = message => new Refusal(401, 'unauthorized', message, { 'WWW-Authenticate': 'Bearer' });

// The claims of a request's token, {} where there is none; one that does not hold is refused.
export function claimsOf(authorization, secret)
{
	const [, token] = /^Bearer +(\S+)$/i.exec(authorization ?? '') ?? [];
	const [head, body, signed] = token?.split('.') ?? [];
	let claims;

	if (authorization === undefined)
		return {};
	if (!secret || signed === undefined)
		throw unauthorized(secret ? 'the Authorization is no "Bearer" with a token' : 'no secret is configured to verify a token with');
	try
	{
		const given = Buffer.from(signed, 'base64url');
		const made = signature(`${head}.${body}`, secret);

		if (JSON.parse(Buffer.from(head, 'base64url')).alg !== 'HS256' || given.length !== made.length ||
			!timingSafeEqual(given, made))
			throw unauthorized('the signature of the token does not hold');
		claims = JSON.parse(Buffer.from(body, 'base64url'));
	}
	catch (e)
	{
		throw e instanceof Refusal ? e : unauthorized('the token is malformed');
	}
	const now = Date.now() / 1000;

	if (claims === null || typeof claims !== 'object' || Array.isArray(claims))
		throw unauthorized('the claims of the token are no object');
	if ((claims.exp !== undefined && !(claims.exp > now)) || (claims.nbf !== undefined && !(claims.nbf <= now)))
		throw unauthorized('the token has expired, or does not hold yet');
	return claims;
}

// A token for tests and trials: node token.mjs '{"sub": "anna"}', with JWT_SECRET in the environment.
export function makeToken(claims, secret)
{
	const text = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`;

	return `${text}.${signature(text, secret).toString('base64url')}`;
}

// The claims of the command line; an error says what they should be.
function claimsGiven(text)
{
	const claims = JSON.parse(text);

	if (claims === null || typeof claims !== 'object' || Array.isArray(claims))
		throw new SyntaxError(text);
	return claims;
}

function main(text, secret)
{
	try
	{
		if (text === undefined)
			throw new Error(`usage: node token.mjs '{"sub": "anna", "role": "technician"}'`);
		if (!secret)
			throw new Error('JWT_SECRET is not set');
		console.log(makeToken(claimsGiven(text), secret));
	}
	catch (e)
	{
		console.error(e instanceof SyntaxError ? `the claims are no JSON object: ${text}` : e.message);
		process.exitCode = 1;
	}
}

if (process.argv[1] === fileURLToPath(import.meta.url))
	main(process.argv[2], process.env.JWT_SECRET);
