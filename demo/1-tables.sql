-- The tables of a valve workshop, as any application might have them.
SET TIME ZONE 'UTC';
SET client_min_messages = warning;
\pset footer off
\pset null ''
\pset linestyle ascii
\pset border 1

\echo
\echo '== The tables ==============================================================================='
\echo
\echo 'blocks holds pressure safety valves: 50 columns.  productions belong to a block by foreign key,'
\echo 'and to a product.  rates and lookups are plain look-up tables.'
\echo

CREATE TABLE products (
	product_id		integer PRIMARY KEY,
	name			text NOT NULL,
	density			numeric,
	unit			text NOT NULL DEFAULT 'm3'
);

CREATE TABLE blocks (
	block_id				uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	"vTagNo"				text NOT NULL UNIQUE,
	description				text,
	"vManufacturer"			text,
	"vModelNo"				text,
	"vSerialNo"				text,
	"vType"					text CHECK ("vType" IN ('conventional', 'balanced bellows', 'pilot')),
	"vServiceFluid"			text,
	"vFluidPhase"			text,
	"vSetPressure"			numeric(8,2) CHECK ("vSetPressure" > 0),
	"vPressureUnit"			text NOT NULL DEFAULT 'bar(g)',
	"vBackPressure"			numeric(8,2),
	"vOverpressurePct"		numeric(5,2),
	"vBlowdownPct"			numeric(5,2),
	"vDesignPressure"		numeric(8,2),
	"vDesignTemperature"	numeric(6,1),
	"vReliefTemperature"	numeric(6,1),
	"vRequiredCapacity"		numeric,
	"vRatedCapacity"		numeric,
	"vCapacityUnit"			text DEFAULT 'kg/h',
	"vDischargeCoefficient" double precision,
	"vOrificeDesignation"	"char",
	"vOrificeArea"			numeric(8,1),
	"vInletSize"			text,
	"vInletRating"			smallint,
	"vInletFacing"			text,
	"vOutletSize"			text,
	"vOutletRating"			smallint,
	"vOutletFacing"			text,
	"vHeight"				integer,
	"vWidth"				integer,
	"vWeight"				real,
	"vBodyMaterial"			text,
	"vTrimMaterial"			text,
	"vSpringMaterial"		text,
	"vBellowsMaterial"		text,
	"vSeatMaterial"			text,
	"hasBellows"			boolean NOT NULL DEFAULT false,
	"hasLiftingLever"		boolean NOT NULL DEFAULT false,
	"isSealed"				boolean NOT NULL DEFAULT true,
	"vManufactureDate"		date,
	"vInstallDate"			date,
	"vLastTestDate"			date,
	"vNextTestDate"			date,
	"vTestInterval"			interval,
	"vLeakageClass"			text,
	"vDrawings"				text[],
	"vDocuments"			jsonb,
	remarks					text,
	"isActive"				boolean NOT NULL DEFAULT true
);

CREATE TABLE productions (
	production_id	uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	block_id		uuid NOT NULL REFERENCES blocks ON DELETE CASCADE,
	product_id		integer NOT NULL REFERENCES products,
	produced_on		date NOT NULL,
	volume			numeric NOT NULL,
	note			text
);

CREATE TABLE rates (currency char(3), valid_from date, rate numeric NOT NULL, PRIMARY KEY (currency, valid_from));
CREATE TABLE lookups (kind text, code text, label text NOT NULL, PRIMARY KEY (kind, code));

\echo '=> CREATE EXTENSION esync;'
\echo '=> SELECT esync_enable(''blocks''), esync_enable(''productions''), esync_enable(''products'');'
\echo
CREATE EXTENSION esync;
SELECT esync_enable('blocks'), esync_enable('productions'), esync_enable('products') \g /dev/null
\echo 'Three tables are tracked from now on; rates and lookups are left alone.  Nothing changes for the'
\echo 'application: it goes on issuing SQL.'
