/*
 * esync_encode.h: encode.c, datum <-> JSON value, free of session settings.
 */
#ifndef ESYNC_ENCODE_H
#define ESYNC_ENCODE_H

#include "esync_json.h"

extern EsyncShape *esync_shape_make(MemoryContext cxt, const EsyncAttr *attrs, int nattrs);

/* values[attnum - 1] is the value of an attr; which is an index into attrs */
extern Jsonb *esync_encode_row(EsyncShape *shape, const Datum *values, const bool *isnull);
extern Jsonb *esync_encode_patch(EsyncShape *shape, const Datum *values, const bool *isnull,
								 const int *which, int nwhich);
extern Jsonb *esync_encode_adds(EsyncShape *shape, const Datum *values, const bool *isnull,
								const int *which, int nwhich);
extern void esync_encode_value(EsyncShape *shape, int which, Datum value, bool isnull,
							   JsonbValue *out);
extern text *esync_encode_key(EsyncShape *keyshape, const Datum *values, const bool *isnull);

extern void esync_decode_value(EsyncShape *shape, int which, const JsonbValue *v,
							   Datum *value, bool *isnull);
extern Datum esync_decode_key_text(EsyncShape *keyshape, int which, const char *string);

#endif							/* ESYNC_ENCODE_H */
