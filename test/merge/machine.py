"""The state machine: edits, decisions, policies, undos and restores in random order, against the model.

Each row of a table takes one step a round; after each round everything that
the server says of the table is held against the model and against what was
there before.
"""
import json

import psycopg2

import checks
from decisions import STRATEGIES, Decided, undoes
from model import Edit, Rejected, saw
from plays import CREATED, DEFAULTS, FIRST, SECOND, TICKS
from server import event_of, fold, us

POLICIES = ('merge', 'server_wins', 'client_wins', 'last_write_wins', 'reject')
GROUPS = {'pair': ['b', 'c']}
DEVICES = 3
NOW = 10 ** 15            # of what the server did not do


class Lost(Exception):
    """Nobody knows what the row is now."""


class Row:
    """One row on its way: what the model has of it, and what its devices hold."""

    def __init__(self, key, agg, r):
        self.key = key
        self.agg = agg
        self.r = r
        self.base = [0] * DEVICES
        self.tick = 0
        self.ids = []           # event_id by version
        self.told = []
        self.ledger = {}        # conflict_id -> what was told of it

    def submit(self):
        self.tick += self.r.choice([0, 1, 10])
        return TICKS + self.tick * SECOND

    def id(self, e):
        return self.ids[e.version - 1]


class Machine:
    def __init__(self, server, r, policy, tombstone, groups, rows):
        self.server, self.r, self.policy, self.tombstone = server, r, policy, tombstone
        self.table = server.table(tombstone, [dict(FIRST, id=i) for i in range(1, rows // 2 + 1)], options=", on_conflict => '%s'%s" % (
            policy, ", groups => '%s'" % json.dumps(groups) if groups else ''))
        self.table_id = server.one('SELECT table_id FROM esync.tracked_table WHERE relation = %s::regclass', self.table)
        self.rows = {i: Row(i, Decided(DEFAULTS, groups, tombstone, policy), r) for i in range(1, rows + 1)}
        for i, row in self.rows.items():
            if i <= rows // 2:
                row.agg.ground(FIRST)
            else:
                edit = Edit('create', CREATED, 0, 'seed', document=dict(FIRST))
                row.agg.accept(edit)
                server.submit('seed', 'seed', [event_of(self.table, i, edit)])
                row.ids = self.ids(row)
            row.base = [1] * DEVICES

    def ids(self, row):
        return [i for i, in self.server.sql('SELECT event_id FROM esync.event_%d WHERE aggregate_id = %%s ORDER BY version' % self.table_id, str(row.key))]

    def now(self, row):
        """The submit of the last event, which the server took from its clock."""
        return us(self.server.one("SELECT to_jsonb(submit_timestamp)#>>'{}' FROM esync.event_%d WHERE aggregate_id = %%s ORDER BY version DESC LIMIT 1" % self.table_id, str(row.key)))

    # ------------------------------------------------------------------ steps

    def value(self, row):
        return self.r.choice(['same', 'a0', None, 'v%d' % row.tick, 'v%d' % self.r.randrange(1000)])

    def step_submit(self, row):
        r, d = self.r, self.r.randrange(DEVICES)
        if r.random() < 0.4:
            row.base[d] = row.agg.head()
        op = r.choices(['update', 'delete', 'restore', 'save'], [12, 2, 1, 1])[0]
        self.server.seqs = getattr(self.server, 'seqs', 0) + 1
        edit = Edit(op, row.submit() + r.choice([0, 0, -45, 15]) * SECOND, row.base[d], 'm%d' % d, self.server.seqs, user='u%d' % d)
        if op in ('update', 'save'):
            edit.set = {f: self.value(row) for f in r.sample(['a', 'b', 'c'], r.choice([1, 1, 2]))}
        code = e = decision = None
        try:
            e = row.agg.accept(edit)
        except Rejected as x:
            code = str(x)
        yield '%r' % edit
        got = self.server.submit(edit.user, edit.device, [event_of(self.table, row.key, edit)])['results'][0]
        if e is not None:
            try:
                decision = row.agg.follow_policy(e, None) if self.policy in ('merge', 'reject') else self.decided(row, e)
            except Rejected as x:
                code = str(x)
        if code is not None:
            if (got['status'], got.get('code')) != ('rejected', code):
                yield None, 'answers %s, not %s' % (got, code)
            return
        clashes = row.agg.in_conflict(e) if e else set()
        want = 'conflict' if clashes and not decision else 'accepted'
        if got['status'] != want and not (decision and got['status'] == 'conflict'):
            yield None, 'answers %s, not %s' % (got, want)
        elif got['version'] != row.agg.head():
            yield None, 'answers version %s, not %s: %s' % (got['version'], row.agg.head(), got)
        elif not decision and {c['field'] for c in got.get('conflicts', [])} != clashes:
            yield None, 'answers conflicts %s, not of %s' % (got.get('conflicts'), clashes)

    def decided(self, row, e):
        return row.agg.follow_policy(e, self.now(row)) if row.agg.in_conflict(e) else None

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
        agg.decide(values, deletes, submit, None if strategy == 'event_sourced' else version, strategy, 'judge')
        if isinstance(got, str):
            yield None, 'expected_version %s: %s' % (version, self.error)
            return
        if got['version'] != agg.head():
            yield None, 'answers version %s, not %s' % (got['version'], agg.head())
        if checks.plain(got['row']) != agg.row():
            yield None, 'answers row %s, not %s' % (got['row'], agg.row())
        closed = {row.ledger[i]['field'] for i in got['resolved'] if i in row.ledger}
        if closed != open_before - set(agg.conflicts()):
            yield None, 'answers resolved %s, not %s' % (closed, open_before - set(agg.conflicts()))

    def step_resolve(self, row):
        agg, r = row.agg, self.r
        found = [c for c in row.ledger.values() if c['status'] == 'open']
        if not found:
            yield from self.step_submit(row)
            return
        c = r.choice(found)
        strategy = r.choice(STRATEGIES + ('manual',))
        given = None
        if strategy != 'manual':
            values, deletes = agg.by_strategy(c['field'], strategy)
        elif c['field'] is None:
            values, deletes = {}, r.random() < 0.5
            given = {'deleted': deletes}
        else:
            value = {f: self.value(row) for f in agg.groups[c['field']]} if c['field'] in agg.groups else self.value(row)
            values, deletes, given = agg.values_of(c['field'], value), None, value
        yield 'resolve %s by %s %s' % (c['field'], strategy, given if strategy == 'manual' else '')
        yield from self.judge(row, values, deletes, strategy, 'SELECT esync_resolve(%s, %s, %s, %s)', c['conflict_id'], strategy,
                              json.dumps(given) if strategy == 'manual' else None)

    def step_row(self, row):
        agg, r = row.agg, self.r
        choices, values, deletes = {}, {}, None
        for name in r.sample(['a', 'b'], r.choice([1, 1, 2])):
            name = agg.register_of(name)
            bars = [e for e in agg.events if not e.is_ground() and name in agg.registers_of(e)]
            if bars and r.random() < 0.5:
                e = r.choice(bars)
                choices[name] = {'event_id': row.id(e)}
                values.update(agg.values_of(name, agg.registers_of(e)[name]))
            else:
                value = {f: self.value(row) for f in agg.groups[name]} if name in agg.groups else self.value(row)
                choices[name] = {'value': value}
                values.update(agg.values_of(name, value))
        if r.random() < 0.15:
            deletes = r.random() < 0.4
            choices[''] = {'value': {'deleted': deletes}}
        yield 'resolve_row %s' % choices
        yield from self.judge(row, values, deletes, 'merge', 'SELECT esync_resolve_row(%s, %s, %s, %s)', self.table, str(row.key), json.dumps(choices))

    def step_strategy(self, row):
        agg, strategy = row.agg, self.r.choice(STRATEGIES)
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
            e, fields = agg.undo(target, NOW if isinstance(got, str) or got['event_id'] is None else self.now(row))
        except Rejected:
            if got != '55000':
                yield None, 'undone twice: %s' % got
            return
        if isinstance(got, str):
            yield None, 'no undo: %s' % self.error
            raise Lost
        if (e is None) != (got['event_id'] is None):
            yield None, 'answers %s, not %s' % (got, e)
            raise Lost
        if sorted(map(str, got['undone'])) != sorted(map(str, fields)):
            yield None, 'undone are %s, not %s' % (got['undone'], fields)
        if got['version'] != agg.head():
            yield None, 'answers version %s, not %s' % (got['version'], agg.head())
        if checks.plain(got['row']) != agg.row():
            yield None, 'answers row %s, not %s' % (got['row'], agg.row())

    # ----------------------------------------------------------------- checks

    def check(self):
        """(row, what is wrong)"""
        s, t = self.server, self.table
        have, raw, verify = s.rows(t), s.events(t), s.verify(t)
        ledger = {}
        for key, i, whole in s.sql("SELECT aggregate_id, conflict_id, to_jsonb(c) FROM esync_conflicts(%s, status => 'all') c", t):
            ledger.setdefault(int(key), {})[i] = whole
        for key, problem, detail in verify:
            yield self.rows[int(key)], 'esync_verify: %s %s' % (problem, detail)
        for row in self.rows.values():
            events = raw.get(row.key, [])
            row.ids = [x.event_id for x in events]
            yield from ((row, w) for w in self.check_row(row, have.get(row.key), events, ledger.get(row.key, {})))
            row.ledger = ledger.get(row.key, {})

    def check_row(self, row, have, events, ledger):
        agg = row.agg
        if checks.plain(have) != agg.row():
            yield 'the row is %s, not %s' % (have, agg.row())
        if not events:
            if len(agg.events) > 1 or not agg.events[0].is_ground():
                yield 'no events'
            return
        if checks.plain(fold(events)) != checks.plain(have):
            yield 'the row is %s, the fold of its raw events %s' % (have, fold(events))
        yield from checks.same_events(agg, events, self.tombstone)
        if len(events) != len(agg.events):
            return
        opened = {c['field']: c for c in ledger.values() if c['status'] == 'open'}
        if len(opened) != sum(c['status'] == 'open' for c in ledger.values()):
            yield 'two open conflicts of a field: %s' % ledger
        for name, c in opened.items():      # of undos that put back the same one is enough
            who = [(x, agg.events[self.place(events, x['event_id'])]) for x in c['contenders']]
            c['contenders'] = [x for x, e in who if agg.is_first(e, [y for _, y in who], name)]
        created = [e for e in agg.events if e.kind == 'Created']
        hidden = agg.deleted() and created and created[0] in agg.withdrawn()
        # left out: of a row that shows none of its contenders the ledger tells another value than the row
        if not hidden and all(agg.shown_event(name) for name in agg.conflicts()):
            yield from checks.same_conflicts(agg, events, opened)
        yield from self.check_ledger(row, events, ledger)

    def check_ledger(self, row, events, ledger):
        """What must hold whatever the model says."""
        agg, last = row.agg, row.agg.events[-1]
        for i, c in ledger.items():
            before = row.ledger.get(i)
            if before and before['status'] != 'open' and c['status'] == 'open' and not undoes(last):
                yield 'conflict %s reopens by itself' % c
            if c['status'] == 'open':
                who = [agg.events[self.place(events, x['event_id'])] for x in c['contenders']]
                gone = agg.withdrawn()
                for e in agg.events:
                    if c['field'] is not None and e not in who and e not in gone and not undoes(e) and c['field'] in agg.registers_of(e) and all(saw(e, x) for x in who):
                        yield 'conflict %s is open, though %r had seen all' % (c, e)
            elif before and before['status'] == 'open' and getattr(last, 'strategy', None) and c['resolution'] != last.strategy and not (last.strategy in POLICIES and c['resolution'] in ('superseded', 'agreed')):
                yield 'conflict %s was closed by %s' % (c, last.strategy)
        for i in set(row.ledger) - set(ledger):
            yield 'conflict %s is gone' % row.ledger[i]

    @staticmethod
    def place(events, event_id):
        return [x.event_id for x in events].index(event_id)

    # -------------------------------------------------------------------- run

    def run(self, rounds):
        steps = [self.step_submit, self.step_resolve, self.step_row, self.step_strategy, self.step_undo]
        given_up = set()
        for n in range(rounds):
            for row in [x for x in self.rows.values() if x.key not in given_up]:
                step = self.r.choices(steps, [8, 2, 1, 1, 3])[0]
                try:
                    for said in step(row):
                        if isinstance(said, str):
                            row.told.append(said)
                        else:
                            given_up.add(row.key)
                            yield '%s row %s: %s\n      %s' % (self.table, row.key, said[1], self.story(row))
                except Exception as x:
                    given_up.add(row.key)
                    if not isinstance(x, Lost):
                        yield '%s row %s: %r %s\n      %s' % (self.table, row.key, x, x, self.story(row))
                        self.server.again()
            for row, wrong in list(self.check()):
                if row.key not in given_up:
                    yield '%s row %s: %s\n      %s' % (self.table, row.key, wrong, self.story(row))
                    given_up.add(row.key)       # what went wrong once goes on

    def story(self, row):
        return '%s%s %s\n        %s\n      events:\n        %s' % (
            self.policy, ' tombstone' if self.tombstone else '', self.table, '\n        '.join(row.told), '\n        '.join(map(repr, row.agg.events)))


def run(server, r, rows, rounds, policies=POLICIES):
    for policy in policies:
        for tombstone in (False, True):
            yield from Machine(server, r, policy, tombstone, GROUPS if r.random() < 0.5 else {}, rows).run(rounds)
