-- tables.sql: the rows that are fed to every contestant.
-- Variables: n (rows), dir (a directory that the server may write).

-- A safety valve: 50 columns of mixed types, about 1.2 kB as JSON, random uuid key.
CREATE TABLE source50 (
	id uuid PRIMARY KEY,
	tag text, descr text, maker text, model text, serial_no text, site text, area text,
	unit text, medium text, body text, seat text, inspector text, status text, remark text,
	year_built int, inlet int, outlet int, rating int, spring int, seal int, stroke int,
	cycles int, priority int,
	asset bigint, order_no bigint, drawing bigint,
	set_pressure numeric(10,2), back_pressure numeric(10,2), cold_pressure numeric(10,2),
	over_pressure numeric(6,3), blowdown numeric(6,3), capacity numeric(12,1),
	orifice numeric(10,4), weight numeric(8,2), price numeric(12,2),
	temp_min float8, temp_max float8, flow float8, leak_rate float8, lat float8, lon float8,
	active bool, certified bool, bellows bool, lever bool,
	tested date, next_test date,
	created timestamptz, updated timestamptz
);
COMMENT ON TABLE source50 IS 'source rows of 50 columns';

INSERT INTO source50
SELECT md5('bench' || i)::uuid,
	'PSV-' || i, 'Safety valve on line ' || i % 977, (ARRAY['Leser','Crosby','Goetze'])[1 + i % 3],
	'526-' || i % 40, md5(i::text), 'Plant ' || i % 12, 'A' || i % 90, 'U' || i % 300,
	(ARRAY['steam','water','nitrogen'])[1 + i % 3], '1.0619', '1.4404',
	(ARRAY['A. Meier','B. Novak'])[1 + i % 2], 'in service', 'checked in round ' || i % 7,
	1990 + i % 30, 25 + i % 4, 40 + i % 4, 150 * (1 + i % 3), i % 5000, i % 800, i % 30,
	i % 100000, i % 5,
	4000000000 + i, 7000000000 + i * 3, 900000 + i,
	(i % 20000) / 100.0, (i % 500) / 100.0, (i % 19000) / 100.0, 10.0, 7.5, i * 1.5,
	(i % 3000) / 7.0, (i % 9000) / 11.0, i * 1.25,
	-29.5, 120 + i / 1000.0, i / 3.0, i / 7e6, 48 + i / 99999.0, 11 + i / 77777.0,
	i % 9 <> 0, true, i % 2 = 0, NULLIF(i % 3, 0) = 1,
	date '2020-01-01' + i % 1500, date '2025-01-01' + i % 700,
	timestamptz '2020-01-01 08:00:00.123456+00' + i * interval '61 s',
	timestamptz '2024-01-01 09:30:00.654321+00' + i * interval '37 s'
FROM generate_series(1, :n) i;

CREATE TABLE source6 (
	id		uuid PRIMARY KEY,
	name	text,
	qty		int,
	price	numeric(10,2),
	active	bool,
	changed	timestamptz
);
COMMENT ON TABLE source6 IS 'source rows of 6 columns';

INSERT INTO source6
SELECT md5('bench' || i)::uuid, 'Part ' || i, i % 1000, (i % 9999) / 100.0, i % 9 <> 0,
	timestamptz '2024-01-01 09:30:00.654321+00' + i * interval '37 s'
FROM generate_series(1, :n) i;

INSERT INTO bench_source
SELECT w, t, (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
			  FROM pg_attribute WHERE attrelid = t AND attnum > 0),
	   sets, :'dir' || '/source' || w || '.copy'
FROM (VALUES (50, 'source50'::regclass, 'set_pressure = set_pressure + 0.5, cycles = cycles + 1'),
			 (6, 'source6', 'qty = qty + 1, price = price + 0.5')) v (w, t, sets);

VACUUM ANALYZE source50, source6;
COPY source50 TO :'source50_file';
COPY source6 TO :'source6_file';
