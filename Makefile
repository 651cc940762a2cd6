# esync: built with PGXS.  The version stands in esync.control and nowhere else.

EXTENSION  = esync
EXTVERSION := $(shell sed -n "s/^default_version *= *'\([^']*\)'.*/\1/p" esync.control)

MODULE_big = esync
OBJS = \
	src/answer.o \
	src/apply.o \
	src/base.o \
	src/batch.o \
	src/capture.o \
	src/changes.o \
	src/clash.o \
	src/conflict.o \
	src/conflictfn.o \
	src/consumer.o \
	src/context.o \
	src/cursor.o \
	src/decide.o \
	src/decision.o \
	src/decode.o \
	src/diff.o \
	src/diff_array.o \
	src/edit.o \
	src/effect.o \
	src/encode.o \
	src/esync.o \
	src/event.o \
	src/fold.o \
	src/follow.o \
	src/grants.o \
	src/graph.o \
	src/guard.o \
	src/history.o \
	src/inner.o \
	src/json.o \
	src/key.o \
	src/lcs.o \
	src/leaf.o \
	src/lineage.o \
	src/links.o \
	src/marks.o \
	src/merge.o \
	src/merged.o \
	src/meta.o \
	src/note.o \
	src/order.o \
	src/others.o \
	src/patch.o \
	src/patchfn.o \
	src/paths.o \
	src/pending.o \
	src/pins.o \
	src/plans.o \
	src/policy.o \
	src/putback.o \
	src/rebuild.o \
	src/record.o \
	src/refusal.o \
	src/rejected.o \
	src/replay.o \
	src/resolve.o \
	src/rights.o \
	src/row.o \
	src/run.o \
	src/scalar.o \
	src/sets.o \
	src/shown.o \
	src/side.o \
	src/single.o \
	src/sqlmerge.o \
	src/statement.o \
	src/store.o \
	src/stream.o \
	src/submission.o \
	src/submit.o \
	src/suggest.o \
	src/target.o \
	src/temporary.o \
	src/threeway.o \
	src/timeline.o \
	src/tracked.o \
	src/tree.o \
	src/undo.o \
	src/verify.o \
	src/withdraw.o
PG_CPPFLAGS = -DESYNC_VERSION=\"$(EXTVERSION)\"

# sql/esync.sql is the current state, kept by hand; upgrade scripts are sql/esync--a--b.sql
DATA_built = sql/esync--$(EXTVERSION).sql
DATA       = $(wildcard sql/esync--*--*.sql)

# Each test stands alone; sort fixes the order.  Regression and isolation tests
# share expected/, so their names must differ, and no test may bear the name of
# a file in sql/: pg_regress would run that file instead.
TEST_OPTS      = --load-extension=esync --encoding=UTF8 --no-locale
REGRESS        = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS   = --inputdir=test $(TEST_OPTS)
ISOLATION      = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=. $(TEST_OPTS)
PROVE_TESTS    = $(sort $(wildcard test/t/*.pl))
ifneq ($(PROVE_TESTS),)
TAP_TESTS      = 1
endif

EXTRA_CLEAN = $(filter-out $(DATA),$(wildcard sql/esync--*.sql)) output_iso tmp_check tmp_check_iso

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)

all: checkver

include $(PGXS)

# PGXS knows nothing of headers
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h) esync.control

sql/esync--$(EXTVERSION).sql: sql/esync.sql esync.control
	cp $< $@

# META.json and the newest heading of the change log must name the same version
.PHONY: checkver
checkver:
	@meta=$$(sed -n 's/^[[:space:]]*"version": *"\([^"]*\)".*/\1/p' META.json | sort -u | xargs); \
	log=$$(sed -n 's/^## *\([^ ]*\).*/\1/p' CHANGELOG.md | head -n 1); \
	for v in "META.json:$$meta" "CHANGELOG.md:$$log"; do \
		if [ "$${v#*:}" != "$(EXTVERSION)" ]; then \
			echo "$${v%%:*} says version \"$${v#*:}\", esync.control says \"$(EXTVERSION)\"" >&2; \
			exit 1; \
		fi; \
	done

.PHONY: dist
dist: checkver
	git archive --format=zip --prefix=esync-$(EXTVERSION)/ -o esync-$(EXTVERSION).zip HEAD
