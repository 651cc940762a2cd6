"""Decisions in the state machine: conflicts resolved, one or all of them; fields decided; events undone."""
import json

import psycopg2

import checks
from model import Rejected

NOW = 10 ** 15            # of what the server did not do


class Lost(Exception):
    """Nobody knows what the row is now."""


class Verdicts:
    """The steps of a Machine by which somebody decides."""

    def expected(self, row, decided, deletes):
        """An expected_version or None, and whether it must be refused."""
        if self.r.random() < 0.6:
            return None, False
        version = self.r.randint(max(row.agg.head() - 3, 1), row.agg.head())
        return version, row.agg.contends(decided, deletes, version)

    def call(self, row, text, *args, submit=None):
        """A decision; the answer, or the SQLSTATE."""
        self.server.sql('BEGIN')
        try:
            if submit is not None:
                self.server.context('judge', None, submit)
            got = self.server.one(text, *args)
            self.server.sql('COMMIT')
            return got
        except psycopg2.Error as x:
            self.server.sql('ROLLBACK')
            if x.pgcode is None or x.pgcode.startswith('XX'):
                raise
            self.error = str(x)
            return x.pgcode

    def judge(self, row, values, deletes, strategy, text, *args):
        """One decision by whatever call, with an expected version or without."""
        agg = row.agg
        names = {agg.register_of(f) for f in values}
        version, stale = self.expected(row, names, deletes)
        submit = row.submit()
        got = self.call(row, text, *args, version, submit=submit)
        if stale:
            if got != 'YS004':
                yield None, 'expected_version %s is taken: %s' % (version, got)
                raise Lost
            return
        open_before = set(agg.conflicts())
        refused = {f for n in open_before if isinstance(n, tuple) for f in agg.groups.get(n[0], [n[0]])}
        if agg.row() is None and deletes is not False and any(agg.in_fold(f, agg.events)[f] != values[f] for f in refused & set(values)):
            if got != 'P0002':
                yield None, 'what a constraint refused of a row that is gone is decided: %s' % got
                raise Lost
            return
        e = agg.decide(values, deletes, submit, None if strategy == 'event_sourced' else version, strategy, 'judge')
        wrong = agg.violation()
        if wrong:
            agg.events.remove(e)
        if wrong and got == wrong:
            return
        if isinstance(got, str) or wrong:
            yield None, 'expected_version %s: %s, not %s' % (version, self.error if isinstance(got, str) else got, wrong)
            raise Lost
        if got['version'] != agg.head():
            yield None, 'answers version %s, not %s' % (got['version'], agg.head())
        if checks.plain(got['row']) != agg.row():
            yield None, 'answers row %s, not %s' % (got['row'], agg.row())
        closed = {self.name_of(row.ledger[i]) for i in got['resolved'] if i in row.ledger}
        if closed != open_before - set(agg.conflicts()):
            yield None, 'answers resolved %s, not %s' % (closed, open_before - set(agg.conflicts()))

    def step_resolve(self, row):
        agg, r = row.agg, self.r
        found = [c for c in row.ledger.values() if c['status'] == 'open']
        if not found:
            yield from self.step_submit(row)
            return
        c = r.choice(found)
        strategy = r.choice(self.strategies + ('manual',))
        given = None
        if strategy != 'manual':
            values, deletes = agg.by_strategy(self.name_of(c), strategy)
        elif c['field'] is None:
            values, deletes = {}, r.random() < 0.5
            given = {'deleted': deletes}
        else:
            value = {f: self.value(row, f) for f in agg.groups[c['field']]} if c['field'] in agg.groups else self.value(row, c['field'])
            values, deletes, given = agg.values_of(c['field'], value), None, value
        yield 'resolve %s by %s %s' % (c['field'], strategy, given if strategy == 'manual' else '')
        yield from self.judge(row, values, deletes, strategy, 'SELECT esync_resolve(%s, %s, %s, %s)', c['conflict_id'], strategy,
                              json.dumps(given) if strategy == 'manual' else None)

    def step_row(self, row):
        agg, r = row.agg, self.r
        if not agg.events:
            yield from self.step_submit(row)
            return
        choices, values, deletes = {}, {}, None
        for name in r.sample(['a', 'b'], r.choice([1, 1, 2])):
            name = agg.register_of(name)
            bars = [e for e in agg.events if not e.is_ground() and name in agg.registers_of(e)]
            if bars and r.random() < 0.5:
                e = r.choice(bars)
                choices[name] = {'event_id': row.id(e)}
                values.update(agg.values_of(name, agg.registers_of(e)[name]))
            else:
                value = {f: self.value(row, f) for f in agg.groups[name]} if name in agg.groups else self.value(row, name)
                choices[name] = {'value': value}
                values.update(agg.values_of(name, value))
        if r.random() < 0.15:
            deletes = r.random() < 0.4
            choices[''] = {'value': {'deleted': deletes}}
        yield 'resolve_row %s' % choices
        if agg.row() is None and deletes is None and not any(self.about(n, f) for n in agg.conflicts() for f in values):
            got = self.call(row, 'SELECT esync_resolve_row(%s, %s, %s)', self.table, str(row.key), json.dumps(choices))
            if got != 'P0002':
                yield None, 'fields of a row that is gone are decided: %s' % got
            return
        yield from self.judge(row, values, deletes, 'merge', 'SELECT esync_resolve_row(%s, %s, %s, %s)', self.table, str(row.key), json.dumps(choices))

    def step_strategy(self, row):
        agg, strategy = row.agg, self.r.choice(self.strategies)
        values, deletes = {}, None
        for name in agg.conflicts():
            said = agg.by_strategy(name, strategy)
            values.update(said[0])
            deletes = said[1] if said[1] is not None else deletes
        if not agg.conflicts():
            yield from self.step_submit(row)
            return
        yield 'resolve_row %s' % strategy
        yield from self.judge(row, values, deletes, strategy, 'SELECT esync_resolve_row(%s, %s, %s, %s)', self.table, str(row.key), json.dumps(strategy))

    def step_undo(self, row):
        agg = row.agg
        targets = [e for e in agg.events if not e.is_ground()]
        if not targets:
            yield from self.step_submit(row)
            return
        recent = targets[-4:]
        target = self.r.choice(self.r.choice([targets, recent]))
        yield 'undo v%d' % target.version
        got = self.call(row, 'SELECT esync_undo(%s)', row.id(target))
        try:
            e, fields, kept = agg.undo(target, NOW if isinstance(got, str) or got['event_id'] is None else self.now(row))
        except Rejected:
            if got != '55000':
                yield None, 'undone twice: %s' % got
            return
        wrong = agg.violation() if e else None
        if wrong:
            agg.events.remove(e)
        if wrong and got == wrong:
            return
        if isinstance(got, str) or wrong:
            yield None, 'the undo answers %s, not %s' % (self.error if isinstance(got, str) else got, wrong)
            raise Lost
        if (e is None) != (got['event_id'] is None):
            yield None, 'answers %s, not %s' % (got, e)
            raise Lost
        if sorted(map(str, got['undone'])) != sorted(map(str, fields)):
            yield None, 'undone are %s, not %s' % (got['undone'], fields)
        # left out: the row as a whole, and fields of a row that could not be taken, of which the texts say little
        left = {(k['field'], k['reason'], k.get('event_id')) for k in got['kept'] if k['field'] and k['reason'] != 'row'}
        want = {(f, why, row.id(by)) for f, why, by in kept if f and by and f not in [k['field'] for k in got['kept'] if k['reason'] == 'row']}
        if left != want:
            yield None, 'kept are %s, not %s' % (left, want)
        if got['version'] != agg.head():
            yield None, 'answers version %s, not %s' % (got['version'], agg.head())
        if checks.plain(got['row']) != agg.row():
            yield None, 'answers row %s, not %s' % (got['row'], agg.row())

    # -------------------------------------------------------- the whole table

    def decide_all(self):
        """esync_resolve_all, of a field or of all: one event for each row that has such a conflict."""
        r = self.r
        strategy, field = r.choice(self.strategies), r.choice([None, None, 'a', 'b', 'c'] + sorted(self.groups))
        submit = max(row.submit() for row in self.rows.values())
        self.server.sql('BEGIN')
        self.server.context('judge', None, submit)
        got = self.server.one('SELECT esync_resolve_all(%s, %s, %s)', self.table, strategy, field)
        self.server.sql('COMMIT')
        closed, told = 0, list(self.rows.values())[:1]
        for row in sorted(self.rows.values(), key=lambda row: str(row.key)):
            agg = row.agg
            names = [n for n in agg.conflicts() if field is None or self.about(n, field)]
            if names:
                row.told.append('resolve_all %s of %s' % (strategy, field))
                told = [row]
                before = len(agg.conflicts())
                self.decide_open(row, names, strategy, submit)
                if agg.violation():
                    agg.events.pop()    # the row is left in conflict, with a warning
                closed += before - len(agg.conflicts())
        if got != closed:
            yield told[0], 'resolve_all %s of %s closed %d, not %d' % (strategy, field, got, closed)

    def about(self, name, field):
        """Is a conflict about a field?  Assumed: one of the row as a whole is about none."""
        name = name[0] if isinstance(name, tuple) else name
        return name == field or field in self.groups.get(name, [])

    @staticmethod
    def decide_open(row, names, strategy, submit):
        values, deletes = {}, None
        for name in names:
            said = row.agg.by_strategy(name, strategy)
            values.update(said[0])
            deletes = said[1] if said[1] is not None else deletes
        row.agg.decide(values, deletes, submit, None, strategy, 'judge')
