#!/usr/bin/env python3
"""Random statements on random tables, held against two other views of them.

Triggers in PL/pgSQL see every change of every row (check.sql), SQL alone
folds the raw events, and python3-jsonpatch applies the patches.  Whatever does
not agree is printed with the seed of its group of tables, the SQL of which
is written to a file.  See test/random/run for the options.
"""
import argparse
import io
import json
import os
import random
import sys
import time

import jsonpatch
import psycopg2

import statements
import tables
import values
from tables import ident
from values import quote

HERE = os.path.dirname(os.path.abspath(__file__))

# errors that random SQL may run into: data exceptions, constraints, what a trigger
# or ON CONFLICT did to the same row twice, types that do not cast
EXPECTED = ('22', '23')
EXPECTED_STATES = {'21000', '27000', '42804', '42846', '55006', '54001', '42883', '0A000', '2BP01', '54000', '44000', '42P17', '42P16', '42725',
                   '3F000', '54011', '55000'}

# settings of the checking session
PLAIN = ("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex'; "
         "SET search_path = 'pg_catalog'; SET lc_monetary = 'C'; SET quote_all_identifiers = off; SET xmloption = content; "
         "SET standard_conforming_strings = on; SET client_min_messages = error; SET plan_cache_mode = auto; SET enable_indexscan = on; SET jit = off; "
         " SET default_transaction_deferrable = off; SET row_security = on")


def number(text):
    """A number as it is written: 1.0 and 1.00 are two, and neither is a string."""
    return {'#number': text}


def parse(text):
    """JSON whose numbers keep their scale through the library."""
    return json.loads(text, parse_int=number, parse_float=number, parse_constant=number)


class Failure(Exception):
    pass


class Group:
    """A few tables, their life, and the checks."""

    def __init__(self, db, number, seed, opts, locales):
        self.db = db
        self.number = number
        self.seed = seed
        self.opts = opts
        self.r = random.Random(seed)
        self.chooser = random.Random(seed + 1)  # of what to check: times differ from run to run
        self.locales = locales
        self.log = []
        self.tables = tables.make_group(number, self.r, opts.without)
        self.maker = statements.Maker(self.r, opts.without)
        self.statements = 0
        self.succeeded = 0
        self.moments = []

    # ------------------------------------------------------------- running

    def sql(self, text):
        """Runs one statement; errors are raised."""
        self.log.append(text + ';')
        with self.db.cursor() as c:
            c.execute(text)
            return c.fetchall() if c.description else None

    def quiet(self, text, *args):
        with self.db.cursor() as c:
            c.execute(text, args or None)
            return c.fetchall() if c.description else None

    def copy(self, target, source):
        buf = io.StringIO()
        with self.db.cursor() as c:
            c.copy_expert('COPY (%s) TO STDOUT' % source, buf)
            buf.seek(0)
            self.log.append('COPY %s FROM stdin;\n%s\\.' % (target, buf.getvalue()))
            c.copy_expert('COPY %s FROM STDIN' % target, buf)

    def run(self, s):
        if isinstance(s, tuple):
            self.copy(s[1], s[2])
        else:
            self.sql(s)

    def expected(self, e):
        state = e.pgcode or ''
        return state[:2] in EXPECTED or state in EXPECTED_STATES

    def attempt(self, s):
        """One statement under a savepoint; an error must be one that has nothing to do with esync."""
        self.statements += 1
        self.sql('SAVEPOINT one')
        try:
            self.run(s)
            self.succeeded += 1
            if self.r.random() < 0.9:
                self.sql('RELEASE SAVEPOINT one')
            return True
        except psycopg2.Error as e:
            if e.pgcode is None or e.pgcode.startswith('57P'):
                raise Failure('the server went away: %s' % e)
            self.sql('ROLLBACK TO SAVEPOINT one')
            self.log[-1] += ' -- %s %s' % (e.pgcode, str(e).split('\n')[0])
            context = (e.diag.context or '') + str(e)
            if not self.expected(e) or 'esync' in context.replace('public.esync_', ''):
                self.same_without(s, e)
            elif self.r.random() < self.opts.recheck:
                self.same_without(s, e)
            return False

    def same_without(self, s, e):
        """Does the statement fail without esync too?"""
        self.sql('SAVEPOINT two')
        self.quiet('SET LOCAL esync.enabled = off')
        try:
            self.run(s)
        except psycopg2.Error as f:
            self.sql('ROLLBACK TO SAVEPOINT two')
            if f.pgcode == e.pgcode:
                if not self.expected(f):
                    raise Failure('unexpected error of a statement: %s %s' % (f.pgcode, f))
                return
            raise Failure('%s with esync, %s without: %s' % (e.pgcode, f.pgcode, e))
        self.sql('ROLLBACK TO SAVEPOINT two')
        raise Failure('only with esync: %s %s %s' % (e.pgcode, e, e.diag.context))

    # ---------------------------------------------------------- transactions

    def begin(self):
        self.sql('BEGIN ISOLATION LEVEL ' + self.r.choice(['READ COMMITTED', 'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE']))
        self.saved = [t.save() for t in self.tables]

    def end(self):
        if self.r.random() < 0.12:
            self.sql('ROLLBACK')
            self.back()
            return
        try:
            self.sql('COMMIT')
        except psycopg2.Error as e:
            self.log[-1] += ' -- %s' % e.pgcode
            if not (e.pgcode or '').startswith('23'):
                raise Failure('at COMMIT: %s %s' % (e.pgcode, e))
            self.back()

    def back(self):
        for t, s in zip(self.tables, self.saved):
            t.restore(s)

    def transaction(self):
        r = self.r
        k = r.random()
        for _ in range(r.choice([0, 0, 1, 2])):
            try:
                self.sql(statements.setting(r, self.locales))
            except psycopg2.Error:
                self.log[-1] += ' -- refused'
        if k < 0.15:
            # one statement by itself, without a savepoint
            self.saved = [t.save() for t in self.tables]
            _, ss = self.maker.statement(self.tables)
            self.statements += 1
            try:
                self.run(ss[0])
                self.succeeded += 1
            except psycopg2.Error as e:
                self.log[-1] += ' -- %s %s' % (e.pgcode, str(e).split('\n')[0])
                if not self.expected(e) or 'esync' in (e.diag.context or '') + str(e):
                    raise Failure('a statement by itself: %s %s' % (e.pgcode, e))
            return
        self.begin()
        if 'context' not in self.opts.without:
            for _ in range(r.choice([0, 0, 1])):
                self.sql(statements.context(r, all(t.options.get('sql_merge') is False for t in self.tables)))
        if k < 0.27 and 'ddl' not in self.opts.without:
            self.some(r.randint(0, 2))
            self.ddl()
            self.some(r.randint(0, 2))
        elif k < 0.35 and 'off' not in self.opts.without:
            self.some(r.randint(0, 2))
            self.off()
            self.some(r.randint(0, 3))
        elif k < 0.40 and 'disable' not in self.opts.without:
            self.some(r.randint(0, 2))
            self.disable()
            self.some(r.randint(0, 3))
        else:
            self.some(r.choice([1, 1, 2, 3, 5, 8]))
        self.end()

    def some(self, n):
        r = self.r
        for _ in range(n):
            if r.random() < 0.12 and 'savepoints' not in self.opts.without:
                self.sql('SAVEPOINT undone')
                for _ in range(r.randint(1, 3)):
                    for s in self.maker.statement(self.tables)[1]:
                        self.attempt(s)
                self.sql('ROLLBACK TO SAVEPOINT undone')
                continue
            for s in self.maker.statement(self.tables)[1]:
                self.attempt(s)

    # ------------------------------------------------------- what is not seen

    def blind(self, before):
        for t in self.tables:
            self.quiet('SELECT chk.%s(%%s::regclass)' % ('before_blind' if before else 'after_blind'), t.name)

    def ddl(self):
        r = self.r
        t = r.choice(self.tables)
        if t.partitioned and 'ddl_partitioned' in self.opts.without:
            return
        saved = t.save()
        kind, ss, blind, added = self.maker.ddl(t)
        self.sql('SAVEPOINT ddl')
        if blind:
            self.blind(True)
        try:
            for s in ss:
                self.sql(s)
            for s in [s for x in self.tables for s in x.make_triggers(None)]:
                self.sql(s)
        except psycopg2.Error as e:
            self.sql('ROLLBACK TO SAVEPOINT ddl')
            self.log[-1] += ' -- %s %s' % (e.pgcode, e)
            t.restore(saved)
            if not self.expected(e):
                raise Failure('DDL: %s %s' % (e.pgcode, e))
            return
        self.quiet('SELECT chk.refresh(%s::regclass)', t.name)
        if blind:
            self.blind(False)
        if kind == 'alter type':
            self.quiet('UPDATE chk.config SET retyped = retyped || chk.nums(%s, %s) WHERE relid = %s::regclass', t.name, [added.name], t.name)
        elif added:
            self.quiet('SELECT chk.note_fill(%s::regclass, %s)', t.name, added.name)

    def off(self):
        """Capture paused for some statements."""
        self.blind(True)
        self.sql('SET LOCAL esync.enabled = off')
        self.some(self.r.randint(1, 4))
        self.sql('SET LOCAL esync.enabled = on')
        self.blind(False)

    def disable(self):
        t = self.r.choice(self.tables)
        self.blind(True)
        try:
            self.sql('SAVEPOINT off')
            self.sql('SELECT public.esync_disable(%s)' % quote(t.name))
        except psycopg2.Error as e:
            self.sql('ROLLBACK TO SAVEPOINT off')
            if e.pgcode != '55006':
                raise Failure('esync_disable: %s %s' % (e.pgcode, e))
            return
        t.tracked = False
        self.quiet('UPDATE chk.config SET tracked = false WHERE relid = %s::regclass', t.name)
        self.some(self.r.randint(0, 3))
        if self.r.random() < 0.3 and 'ddl' not in self.opts.without:
            self.ddl_while_off(t)
        self.blind(False)
        try:
            self.sql('SAVEPOINT on_again')
            self.enable(t)
        except psycopg2.Error as e:
            self.sql('ROLLBACK TO SAVEPOINT off')
            self.back_to_tracked(t)
            if e.pgcode != '55006':
                raise Failure('esync_enable again: %s %s' % (e.pgcode, e))

    def back_to_tracked(self, t):
        for x, s in zip(self.tables, self.saved):
            x.restore(s)

    def ddl_while_off(self, t):
        if t.partitioned and 'ddl_partitioned' in self.opts.without:
            return
        saved = t.save()
        kind, ss, blind, added = self.maker.ddl(t)
        if blind or added or kind not in ('rename', 'drop', 'add'):
            t.restore(saved)
            return
        self.sql('SAVEPOINT ddl')
        try:
            for s in ss + [s for x in self.tables for s in x.make_triggers(None)]:
                self.sql(s)
        except psycopg2.Error as e:
            self.sql('ROLLBACK TO SAVEPOINT ddl')
            t.restore(saved)
            if not self.expected(e):
                raise Failure('DDL: %s %s' % (e.pgcode, e))
            return
        self.quiet('SELECT chk.refresh(%s::regclass)', t.name)

    def enable(self, t):
        if t.options.get('baseline'):
            self.quiet('SELECT chk.note_baseline(%s::regclass)', t.name)
        self.sql(t.enable())
        t.tracked = True
        self.quiet("""UPDATE chk.config c SET tracked = true, table_id = t.table_id FROM esync.tracked_table t
            WHERE c.relid = %s::regclass AND t.relation = c.relid""", t.name)

    # --------------------------------------------------------------- birth

    def create(self):
        r = self.r
        for t in self.tables:
            for s in t.create():
                self.sql(s)
            o = t.options
            self.quiet("""INSERT INTO chk.config (relid, keys, exclude, mask, stamps, tombstone, tenant, payload, moves)
                SELECT %s::regclass, chk.nums(%s, %s), chk.nums(%s, %s), chk.nums(%s, %s), chk.nums(%s, %s),
                    (chk.nums(%s, %s))[1], (chk.nums(%s, %s))[1], %s, %s""",
                       t.name, t.name, t.key, t.name, o.get('exclude', []), t.name, o.get('mask', []), t.name, o.get('last_modified', []),
                       t.name, [o['tombstone']] if 'tombstone' in o else [], t.name, [o['tenant']] if 'tenant' in o else [],
                       o.get('payload', 'full'), 'key' in o and bool(t.partitioned))
            self.quiet('SELECT chk.refresh(%s::regclass)', t.name)
        for t in self.tables:
            for s in t.make_triggers(t.trigger_names()):
                self.sql(s)
        self.sql('SET search_path = pg_catalog')
        self.sql('BEGIN')
        self.some(r.choice([0, 3, 8]))
        try:
            self.sql('COMMIT')
        except psycopg2.IntegrityError:
            pass                        # a deferred foreign key
        for t in self.tables:
            self.sql('BEGIN')
            try:
                self.enable(t)
            except psycopg2.Error as e:
                raise Failure('esync_enable: %s %s' % (e.pgcode, e))
            self.sql('COMMIT')
            self.quiet('SELECT chk.watch(%s::regclass)', t.name)

    def drop(self):
        for t in reversed(self.tables):
            self.quiet('SELECT chk.forget(%s::regclass)', t.name)
            self.sql('DROP TABLE %s CASCADE' % t.name)

    # -------------------------------------------------------------- checks

    def plain(self):
        self.quiet(PLAIN)

    def settings_again(self, saved):
        for name, value in saved:
            self.quiet('SELECT pg_catalog.set_config(%s, %s, false)', name, value)

    def check(self, final=False):
        names = [n for n in statements.SETTINGS] + ['lc_monetary']
        saved = [(n, self.quiet('SELECT pg_catalog.current_setting(%s)', n)[0][0]) for n in names]
        self.plain()
        for t in self.tables:
            for name in ('order', 'against_witness', 'clocks', 'against_verify') + (('against_rows',) if final else ()):
                self.report(t, name, self.quiet('SELECT agg, problem FROM chk.%s(%%s::regclass) LIMIT 5' % ident(name), t.name))
            moments = self.moments + [None]
            for _ in range(2):
                self.report(t, 'against_state', self.quiet('SELECT agg, problem FROM chk.against_state(%s::regclass, %s, %s) LIMIT 5', t.name,
                                                           self.chooser.choice(moments), self.chooser.choice(moments)))
            self.report(t, 'against_state', self.quiet('SELECT agg, problem FROM chk.against_state(%s::regclass, NULL, NULL) LIMIT 5', t.name))
            if final:
                self.check_patches(t)
        rows = self.quiet("""SELECT DISTINCT t FROM (SELECT commit_timestamp FROM esync.event e JOIN chk.config USING (table_id)
            UNION SELECT effective_timestamp FROM esync.event e JOIN chk.config USING (table_id)) AS x (t) WHERE t > '-infinity'""")
        self.moments = self.chooser.sample([str(x[0]) for x in sorted(rows)], min(20, len(rows)))
        self.settings_again(saved)

    def report(self, t, name, rows):
        if rows:
            raise Failure('%s of %s\n%s' % (name, t.name, '\n'.join('  %s: %s' % (x[0], x[1][:700]) for x in rows)))

    def check_patches(self, t):
        """The independent library: each patch makes the next payload."""
        relid, stamps, keeps = self.quiet("""SELECT relid, stamps, payload FROM chk.config WHERE relid = %s::regclass""", t.name)[0]
        spans = self.quiet('SELECT attnum, name, from_event FROM chk.name WHERE relid = %s ORDER BY serial', relid)
        fills = dict(self.quiet('SELECT attnum, value::text FROM chk.fill WHERE relid = %s', relid))
        events = self.quiet("""SELECT e.aggregate_id, e.version, e.event_id, e.event_type, e.flags, e.patch::text, e.payload::text, e.table_id
            FROM esync.event e JOIN chk.config c USING (table_id) WHERE c.relid = %s ORDER BY 1, 2""", relid)
        self.events = getattr(self, 'events', 0) + len(events)
        readers = {}
        moves = {e[0] for e in events if e[4] & 64}
        last = None
        bad = []
        for agg, version, event_id, kind, flags, patch, payload, table_id in events:
            now = {}
            for attnum, name, from_event in spans:
                if from_event <= event_id:
                    now[attnum] = name
            drop = {now[n] for n in stamps if n in now}
            whole = kind == 'Created' or (kind == 'Baseline' and not flags & 32)
            hard = (kind == 'Deleted' and patch == '[]') or (kind == 'Baseline' and flags & 1 and payload is None)
            if last is None or last[0] != agg:
                last = (agg, None, {})
            state, before = last[1], last[2]
            doc = parse(payload) if payload is not None else None
            if not whole:
                # the document before, under the names of now
                moved = {}
                for attnum, name in now.items():
                    if name is None:
                        continue
                    if state is not None and before.get(attnum) in state:
                        moved[name] = state[before[attnum]]
                    elif state is not None and attnum not in before and (doc is None or name in doc):
                        moved[name] = parse(fills.get(attnum, 'null'))
                state = moved
            if whole:
                if patch != '[]':
                    bad.append((agg, 'event %s has a patch' % event_id))
                state = doc
            elif hard:
                state = doc or state    # the last row, checked against the witness
            else:
                try:
                    state = jsonpatch.JsonPatch(parse(patch)).apply(state)
                except jsonpatch.JsonPatchException as e:
                    bad.append((agg, 'the patch of event %s does not apply: %s' % (event_id, e)))
                    state = doc
                if doc is not None:
                    a = {k: v for k, v in state.items() if k not in drop}
                    b = {k: v for k, v in doc.items() if k not in drop}
                    if a != b:
                        bad.append((agg, 'the patch of event %s (%s) does not make its payload: %s' % (
                            event_id, kind, {k: (a.get(k, '(missing)'), b.get(k, '(missing)')) for k in set(a) | set(b) if a.get(k, '') != b.get(k, '')})))
                    state = doc
            if keeps == 'changes' and not hard and not flags & 64 and not (
                    'moved_history' in self.opts.without and agg in moves):
                # what esync_history computes where nothing is stored
                if agg not in readers:
                    readers[agg] = dict(self.quiet('SELECT event_id, payload::text FROM public.esync_history(%s::regclass, %s)', t.name, agg))
                shown = readers[agg].get(event_id)
                a = {k: v for k, v in (state or {}).items() if k not in drop}
                b = {k: v for k, v in parse(shown or '{}').items() if k not in drop}
                if 'history_columns' in self.opts.without:
                    a, b = ({k: v for k, v in x.items() if k in a and k in b} for x in (a, b))
                if a != b:
                    bad.append((agg, 'esync_history computes another payload of event %s (%s): %s' % (
                        event_id, kind, {k: (a.get(k, '(missing)'), b.get(k, '(missing)')) for k in set(a) | set(b) if a.get(k, '') != b.get(k, '')})))
            last = (agg, state, now)
        self.report(t, 'patches', bad[:5])

    # ---------------------------------------------------------------- life

    def live(self):
        self.create()
        self.check()
        n = self.opts.group
        done = 0
        while self.statements < n and done < 3 * n:
            done += 1
            self.transaction()
            if self.opts.every or self.r.random() < 0.12:
                self.check()
        self.check(final=True)
        self.plain()
        if not self.opts.one:
            self.drop()


def connect(opts):
    db = psycopg2.connect(host=opts.host, port=opts.port, user=opts.user, dbname=opts.database)
    db.autocommit = True
    return db


def prepare(opts):
    db = connect(opts)
    with db.cursor() as c:
        c.execute('CREATE EXTENSION IF NOT EXISTS esync')
        c.execute("SELECT to_regnamespace('chk') IS NOT NULL")
        if c.fetchone()[0]:
            c.execute('SET client_min_messages = error; DROP SCHEMA chk CASCADE; DROP SCHEMA rnd CASCADE; '
                      'DROP EXTENSION esync CASCADE; CREATE EXTENSION esync')
        c.execute(values.PRELUDE)
        c.execute("""DO $$ BEGIN CREATE ROLE "Reg Role"; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$""")
        with open(os.path.join(HERE, 'check.sql')) as f:
            c.execute(f.read())
        locales = []
        for name in ['C', 'POSIX', 'C.UTF-8'] + sorted({x.strip() for x in os.popen('locale -a 2>/dev/null')}):
            try:
                c.execute('SET lc_monetary = %s', (name,))
                locales.append(name)
            except psycopg2.Error:
                pass
    db.close()
    return locales


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--host', required=True)
    p.add_argument('--port', default='5432')
    p.add_argument('--user', default='postgres')
    p.add_argument('--database', default='postgres')
    p.add_argument('--seed', type=int, default=None)
    p.add_argument('--statements', type=int, default=3000)
    p.add_argument('--seconds', type=float, default=None)
    p.add_argument('--group', type=int, default=70)
    p.add_argument('--one', action='store_true')
    p.add_argument('--every', action='store_true')
    p.add_argument('--recheck', type=float, default=0.05)
    p.add_argument('--without', default='')
    p.add_argument('--max-failures', type=int, default=5)
    p.add_argument('--log', default=None)
    opts = p.parse_args()
    opts.without = set(filter(None, opts.without.split(',')))
    seed = opts.seed if opts.seed is not None else random.SystemRandom().randint(1, 10 ** 9)
    locales = prepare(opts)
    print('seed %d, %d statements' % (seed, opts.statements), flush=True)
    passed = failed = done = succeeded = events = number = 0
    start = time.time()
    while done < opts.statements and failed < opts.max_failures:
        if opts.seconds and time.time() - start > opts.seconds:
            break
        number += 1
        db = connect(opts)
        g = Group(db, number, seed + number - 1, opts, locales)
        try:
            g.live()
            passed += 1
        except (Failure, psycopg2.Error) as e:
            failed += 1
            print('FAILED: seed %d: %s: %s' % (g.seed, type(e).__name__, str(e)[:2500]), flush=True)
            print('  again: test/random/run --seed %d --one --keep' % g.seed, flush=True)
            if opts.log:
                path = os.path.join(opts.log, 'seed-%d.sql' % g.seed)
                with open(path, 'w') as f:
                    f.write('\n'.join(g.log) + '\n')
                print('  statements: %s' % path, flush=True)
        finally:
            db.close()
        if failed and not opts.one:
            clean = connect(opts)
            with clean.cursor() as c:
                c.execute("""SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'rnd'::regnamespace AND relkind IN ('r', 'p')
                    AND relname NOT IN ('reg_target', 'Reg Type') AND NOT relispartition""")
                for (name,) in c.fetchall():
                    c.execute('SET client_min_messages = error; DROP TABLE %s CASCADE' % name)
                c.execute('TRUNCATE chk.config, chk.name, chk.fill, chk.witness, chk.shot, chk.dirty')
            clean.close()
        done += g.statements
        succeeded += g.succeeded
        events += getattr(g, 'events', 0)
        if opts.one:
            break
    print('%d statements on %d groups of tables, %d went through; %d events checked in %d s' % (
        done, number, succeeded, events, time.time() - start))
    print('%d passed, %d failed' % (passed, failed))
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == '__main__':
    sys.exit(main())
