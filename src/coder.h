/*
 * coder.h: what encode.c, decode.c, scalar.c and pins.c share and nobody else
 * sees: shapes from inside, and the settings that a type's text depends on.
 */
#ifndef ESYNC_CODER_H
#define ESYNC_CODER_H

#include "access/tupdesc.h"
#include "fmgr.h"

#include "esync.h"

/* settings that the output of some type depends on */
#define PIN_DATESTYLE		0x0001
#define PIN_INTERVALSTYLE	0x0002
#define PIN_FLOAT			0x0004
#define PIN_TIMEZONE		0x0008
#define PIN_BYTEA			0x0010
#define PIN_PATH			0x0020
#define PIN_QUOTE			0x0040
#define PIN_MONEY			0x0080
#define PIN_XML				0x0100
#define PIN_ALL				0x01FF

/* those that decide how text without a zone, or with a two-digit year, is read */
#define PIN_OUTPUT_ONLY		(PIN_DATESTYLE | PIN_TIMEZONE)

/* what has been pinned so far, and in which GUC level; {0, 0} to begin with */
typedef struct Pins
{
	uint32		done;
	int			nestlevel;		/* 0: none opened */
} Pins;

typedef enum CoderKind
{
	CODE_BOOL,
	CODE_INT2,
	CODE_INT4,
	CODE_INT8,
	CODE_FLOAT4,
	CODE_FLOAT8,
	CODE_NUMERIC,
	CODE_TEXT,					/* text and what looks like it inside */
	CODE_DATE,
	CODE_TIMESTAMP,
	CODE_TIMESTAMPTZ,
	CODE_UUID,
	CODE_BYTEA,
	CODE_JSONB,
	CODE_JSON,
	CODE_ARRAY,
	CODE_COMPOSITE,
	CODE_CAST,					/* through the type's cast to json */
	CODE_OUTPUT					/* through its output function */
} CoderKind;

/* how values of one type are written and read */
typedef struct Coder
{
	CoderKind	kind;
	Oid			typid;			/* as declared; a domain, perhaps */
	Oid			basetype;
	int32		basetypmod;
	uint32		settings;		/* that its text depends on */
	MemoryContext cxt;
	FmgrInfo	out;			/* output function, or cast to json */

	/* CODE_ARRAY, when an element was met */
	Oid			elemtype;
	int16		elemlen;
	bool		elembyval;
	char		elemalign;
	struct Coder *element;

	/* CODE_COMPOSITE, when a value was met */
	MemoryContext subcxt;
	uint64		subid;			/* typcache's identifier of the row type */
	TupleDesc	subdesc;
	EsyncShape *sub;

	/* reading, when a value was read */
	bool		reads;
	FmgrInfo	in;
	Oid			ioparam;
	FmgrInfo	back;			/* CODE_CAST: the cast from jsonb, if fn_oid is set */
	bool		hstore;			/* CODE_CAST: the type bears this name */
	void	   *domain;			/* state of domain_check */
	HeapTupleHeader record;		/* for populate: a NULL in a record of this type */
	TupleDesc	recorddesc;
	FmgrInfo	populate;
} Coder;

/* a column in the order of its key among the others */
typedef struct ShapeColumn
{
	Coder	   *coder;
	int			index;			/* into the values array */
	bool		masked;
} ShapeColumn;

struct EsyncShape
{
	MemoryContext cxt;
	int			nattrs;
	EsyncAttr  *attrs;			/* as given, with their coders */
	Coder	   *coders;
	ShapeColumn *columns;		/* by stored order of the keys */
	EsyncJsonHead head;			/* header and keys of a row's object */
	EsyncJsonHead *ops[2];		/* per attr {"op":…,"path":…,"value":, made when needed */
	uint32		guess;			/* size of recent rows */
};

/* one document on its way */
typedef struct Run
{
	EsyncJson	json;
	Pins		pins;
	bool		canonical;		/* for a key: numerics without trailing zeros */
} Run;

/* pins.c */
extern void esync_pins_add(Pins *pins, uint32 settings);
extern void esync_pins_end(Pins *pins);
extern uint32 esync_pins_for(Oid type);

/* scalar.c */
extern void esync_scalar_datetime(EsyncJson *json, Datum value, Oid type);
extern void esync_scalar_float4(EsyncJson *json, float4 value);
extern void esync_scalar_float8(EsyncJson *json, float8 value);
extern void esync_scalar_bytea(EsyncJson *json, Datum value);
extern void esync_scalar_jsonb(EsyncJson *json, Datum value);
extern void esync_scalar_json(EsyncJson *json, Datum value);
extern void esync_scalar_uuid(char *to, const pg_uuid_t *uuid);
extern char *esync_scalar_text(const JsonbValue *value);
extern bool esync_scalar_try(PGFunction input, char *string, Datum *result);

#endif							/* ESYNC_CODER_H */
