/*
 * pins.c: the settings that the text of a type depends on, and pinning them.
 *
 * Only settings that a value at hand needs and that differ from the pinned
 * value are set, in one nested GUC level.  If an error is thrown meanwhile,
 * the abort of the (sub)transaction puts them back.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/xml.h"

#include "coder.h"

static const struct
{
	uint32		bit;
	const char *name;
	const char *value;
}			pinned_settings[] =
{
	{PIN_DATESTYLE, "datestyle", "ISO"},
	{PIN_INTERVALSTYLE, "intervalstyle", "postgres"},
	{PIN_FLOAT, "extra_float_digits", "1"},
	{PIN_TIMEZONE, "timezone", "UTC"},
	{PIN_BYTEA, "bytea_output", "hex"},
	{PIN_PATH, "search_path", "pg_catalog"},
	{PIN_QUOTE, "quote_all_identifiers", "off"},
	{PIN_MONEY, "lc_monetary", "C"},
	{PIN_XML, "xmloption", "content"},
};

/* Does the session's setting already say what we would set? */
static bool
is_pinned(uint32 bit)
{
	switch (bit)
	{
		case PIN_DATESTYLE:
			return DateStyle == USE_ISO_DATES;
		case PIN_INTERVALSTYLE:
			return IntervalStyle == INTSTYLE_POSTGRES;
		case PIN_FLOAT:
			return extra_float_digits > 0;
		case PIN_TIMEZONE:
			return strcmp(pg_get_timezone_name(session_timezone), "UTC") == 0;
		case PIN_BYTEA:
			return bytea_output == BYTEA_OUTPUT_HEX;
		case PIN_PATH:
			return strcmp(namespace_search_path, "pg_catalog") == 0;
		case PIN_QUOTE:
			return !quote_all_identifiers;
		case PIN_MONEY:
			return strcmp(GetConfigOption("lc_monetary", false, false), "C") == 0;
		default:
			return xmloption == XMLOPTION_CONTENT;
	}
}

/* Sets those of the settings that differ, in a GUC level that esync_pins_end ends. */
void
esync_pins_add(Pins *pins, uint32 settings)
{
	settings &= ~pins->done;
	if (likely(settings == 0))
		return;
	pins->done |= settings;
	for (int i = 0; i < lengthof(pinned_settings); i++)
	{
		if ((settings & pinned_settings[i].bit) == 0 || is_pinned(pinned_settings[i].bit))
			continue;
		if (pins->nestlevel == 0)
			pins->nestlevel = NewGUCNestLevel();
		(void) set_config_option(pinned_settings[i].name, pinned_settings[i].value,
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
}

/* Puts the session's settings back. */
void
esync_pins_end(Pins *pins)
{
	if (unlikely(pins->nestlevel != 0))
		AtEOXact_GUC(true, pins->nestlevel);
}

/*
 * Which settings the output of a type reads.  What is not known here to read
 * none may read any.
 */
uint32
esync_pins_for(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case BPCHAROID:
		case CHAROID:
		case CIDOID:
		case CIDROID:
		case BITOID:
		case INETOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case JSONBOID:
		case JSONOID:
		case JSONPATHOID:
		case MACADDR8OID:
		case MACADDROID:
		case NAMEOID:
		case NUMERICOID:
		case OIDOID:
		case PG_LSNOID:
		case PG_SNAPSHOTOID:
		case REFCURSOROID:
		case TEXTOID:
		case TIDOID:
		case TIMEOID:
		case TIMETZOID:
		case TSQUERYOID:
		case TSVECTOROID:
		case UUIDOID:
		case VARBITOID:
		case VARCHAROID:
		case XID8OID:
		case XIDOID:
			return 0;
		case DATEOID:
		case TIMESTAMPOID:
			return PIN_DATESTYLE;
		case TIMESTAMPTZOID:
			return PIN_DATESTYLE | PIN_TIMEZONE;
		case INTERVALOID:
			return PIN_INTERVALSTYLE;
		case FLOAT4OID:
		case FLOAT8OID:
		case POINTOID:
		case LSEGOID:
		case PATHOID:
		case BOXOID:
		case POLYGONOID:
		case LINEOID:
		case CIRCLEOID:
			return PIN_FLOAT;
		case BYTEAOID:
			return PIN_BYTEA;
		case MONEYOID:
			return PIN_MONEY;
		case XMLOID:
			return PIN_XML;
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGNAMESPACEOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGPROCEDUREOID:
		case REGPROCOID:
		case REGROLEOID:
		case REGTYPEOID:
			return PIN_PATH | PIN_QUOTE;
		default:
			break;
	}
	switch (get_typtype(type))
	{
		case TYPTYPE_ENUM:
			return 0;
		case TYPTYPE_RANGE:
			return esync_pins_for(getBaseType(get_range_subtype(type)));
		case TYPTYPE_MULTIRANGE:
			return esync_pins_for(get_multirange_range(type));
		default:
			return PIN_ALL;
	}
}
