// The roles of the layer's tests, in the server once: web logs in and becomes the role of the token.

export const ROLES = `DO $$ BEGIN
	CREATE ROLE web_user; CREATE ROLE web_reader; CREATE ROLE web_anon; CREATE ROLE web LOGIN NOINHERIT;
	GRANT web_user, web_reader, web_anon TO web;
EXCEPTION WHEN duplicate_object THEN NULL; END $$`;
