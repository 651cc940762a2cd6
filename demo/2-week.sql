-- Five days of work.  Each transaction says who works on which device, when that
-- device took its copy of the row (branch), which version that was (base) and when
-- its user saved (submit).
SELECT date_trunc('day', now()) - interval '5 days' AS day1,
       date_trunc('day', now()) - interval '4 days' AS day2,
       date_trunc('day', now()) - interval '3 days' AS day3,
       date_trunc('day', now()) - interval '2 days' AS day4,
       date_trunc('day', now()) - interval '1 day'  AS day5 \gset
\set psv_101 'a1010000-0000-4000-8000-000000000101'
\set psv_102 'a1020000-0000-4000-8000-000000000102'

\echo
\echo '== The work ================================================================================='
\echo
\echo 'Three people: carla in the office, anna and ben with tablets.  What anna does on the second day:'
\echo
\echo '   BEGIN;'
\echo '   SELECT esync_context(user_id => ''anna'', device_id => ''tablet-7'', base_version => 1,'
\echo '                        branch_timestamp => ''... 06:30'', submit_timestamp => ''... 10:15'');'
\echo '   UPDATE blocks SET "vSetPressure" = 139 WHERE "vTagNo" = ''PSV-101'';'
\echo '   COMMIT;'
\echo

\o /dev/null

-- day 1: the office enters products, look-ups and two valves
BEGIN;
SELECT esync_context(user_id => 'carla', device_id => 'office',
	branch_timestamp => :'day1',
	submit_timestamp => timestamptz :'day1' + '08:00');
INSERT INTO products VALUES (1, 'Natural gas', 0.79), (2, 'Condensate', 740);
INSERT INTO lookups VALUES ('leakage', 'API527-A', 'API 527, metal seated'),
	('leakage', 'API527-S', 'API 527, soft seated');
INSERT INTO rates VALUES ('EUR', current_date - 30, 1), ('USD', current_date - 30, 1.09);
INSERT INTO blocks (block_id, "vTagNo", description, "vManufacturer", "vModelNo", "vSerialNo", "vType",
	"vServiceFluid", "vFluidPhase", "vSetPressure", "vBackPressure", "vOverpressurePct", "vBlowdownPct", "vDesignPressure",
	"vDesignTemperature", "vReliefTemperature", "vRequiredCapacity", "vRatedCapacity", "vDischargeCoefficient",
	"vOrificeDesignation", "vOrificeArea", "vInletSize", "vInletRating", "vInletFacing", "vOutletSize",
	"vOutletRating", "vOutletFacing", "vHeight", "vWidth", "vWeight", "vBodyMaterial", "vTrimMaterial",
	"vSpringMaterial", "vBellowsMaterial", "vSeatMaterial", "hasBellows", "hasLiftingLever", "vManufactureDate",
	"vInstallDate", "vLastTestDate", "vNextTestDate", "vTestInterval", "vLeakageClass", "vDrawings", "vDocuments")
VALUES
	(:'psv_101', 'PSV-101', 'Main safety valve, separator V-100', 'Leser', '5264', '11184523', 'balanced bellows',
	'Natural gas', 'gas', 137.00, 3.50, 10, 7, 150.00, 120.0, 85.5, 18500, 21340, 0.801,
	'L', 1841.0, 'DN 80', 2500, 'RTJ', 'DN 100', 300, 'RF', 640, 420, 96.5, '1.0619', '1.4404',
	'1.8159', '1.4571', '1.4404', true, true, '2019-03-11', '2019-06-02', '2024-05-20', '2026-05-20', '2 years',
	'API527-A', '{P-100-21,P-100-22}',
	'{"certificate": {"no": "3.1-8841", "date": "2019-03-15"}, "manuals": ["LWN 432.01"]}'),
	(:'psv_102', 'PSV-102', 'Safety valve, test separator V-110', 'Crosby', 'JOS-E', '77120', 'conventional',
	'Natural gas', 'gas', 98.50, 1.20, 10, 7, 110.00, 90.0, 60.0, 4200, 4975, 0.865,
	'J', 830.3, 'DN 50', 1500, 'RTJ', 'DN 80', 300, 'RF', 510, 330, 52.0, '1.0619', '1.4021',
	'1.8159', NULL, 'PTFE', false, false, '2011-10-05', '2012-01-20', '2023-02-14', '2025-02-14', '2 years',
	'API527-S', '{P-110-07}',
	'{"certificate": {"no": "3.1-1207", "date": "2011-10-09"}, "manuals": []}');
COMMIT;

-- day 2: anna adjusts the set pressure, ben tests the valve
BEGIN;
SELECT esync_context(user_id => 'anna', device_id => 'tablet-7',
	base_version => esync_version('blocks', :'psv_101'),
	branch_timestamp => timestamptz :'day2' + '06:30',
	submit_timestamp => timestamptz :'day2' + '10:15');
UPDATE blocks SET "vSetPressure" = 139 WHERE "vTagNo" = 'PSV-101';
COMMIT;
BEGIN;
SELECT esync_context(user_id => 'ben', device_id => 'tablet-9',
	base_version => esync_version('blocks', :'psv_101'),
	branch_timestamp => timestamptz :'day2' + '13:00',
	submit_timestamp => timestamptz :'day2' + '15:40');
UPDATE blocks SET "vLastTestDate" = timestamptz :'day2',
	"vNextTestDate" = timestamptz :'day2' + "vTestInterval", "vTrimMaterial" = '1.4462',
	remarks = 'trim replaced, seat lapped'
WHERE "vTagNo" = 'PSV-101';
INSERT INTO productions (block_id, product_id, produced_on, volume, note) VALUES
	(:'psv_101', 1, timestamptz :'day1', 1240.5, 'first day after the test'),
	(:'psv_101', 2, timestamptz :'day1', 18.2, NULL),
	(:'psv_102', 1, timestamptz :'day1', 310, 'test separator'),
	(:'psv_102', 2, timestamptz :'day1', 4.4, NULL);
COMMIT;

-- day 3: the office attaches ben's report and sets what the new data sheet says;
-- a rate changes, which nobody tracks
BEGIN;
SELECT esync_context(user_id => 'carla', device_id => 'office',
	base_version => esync_version('blocks', :'psv_101'),
	branch_timestamp => timestamptz :'day3' + '09:00',
	submit_timestamp => timestamptz :'day3' + '09:20');
UPDATE blocks SET "vSetPressure" = 140, "vDocuments" = jsonb_set("vDocuments", '{report}', '"T-2210"')
WHERE "vTagNo" = 'PSV-101';
UPDATE products SET density = 0.81 WHERE product_id = 1;
UPDATE rates SET rate = 1.1 WHERE currency = 'USD';
COMMIT;

-- day 4: anna calibrates again; her second UPDATE changes nothing, and is no event
BEGIN;
SELECT esync_context(user_id => 'anna', device_id => 'tablet-7',
	base_version => esync_version('blocks', :'psv_101'),
	branch_timestamp => timestamptz :'day4' + '06:45',
	submit_timestamp => timestamptz :'day4' + '11:05');
UPDATE blocks SET "vSetPressure" = 138.5, "isSealed" = true, remarks = 'recalibrated and sealed'
WHERE "vTagNo" = 'PSV-101';
UPDATE blocks SET "vSetPressure" = "vSetPressure" WHERE "vTagNo" = 'PSV-101';
UPDATE productions SET volume = 1238.0 WHERE block_id = :'psv_101' AND product_id = 1;
COMMIT;

-- day 5: ben scraps the other valve; its productions go with it
BEGIN;
SELECT esync_context(user_id => 'ben', device_id => 'tablet-9',
	base_version => esync_version('blocks', :'psv_102'),
	branch_timestamp => timestamptz :'day5' + '07:00',
	submit_timestamp => timestamptz :'day5' + '16:30');
DELETE FROM blocks WHERE "vTagNo" = 'PSV-102';
COMMIT;

\o
