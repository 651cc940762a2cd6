"""The state machine: edits, decisions, policies, undos and restores in random order, against the model.

Each row of a table takes one step a round; after each round everything that
the server says of the table is held against the model and against what was
there before.
"""
import json
import traceback

import checks
from decisions import STRATEGIES, Decided, of, undoes
from edits import DEVICES, Edits
from model import Edit, saw
from plays import CREATED, DEFAULTS, FIRST, SECOND, TICKS
from server import event_of, fold, us
from verdicts import Lost, Verdicts

POLICIES = ('merge', 'server_wins', 'client_wins', 'last_write_wins', 'reject')
GROUPS = {'pair': ['b', 'c']}


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
        self.kept = {}          # id of an event -> what was rejected under it
        self.ledger = {}        # conflict_id -> what was told of it
        self.left = False       # is it left alone from now on?
        self.checked = 0        # the head when it was checked last

    def submit(self):
        self.tick += self.r.choice([0, 1, 10])
        return TICKS + self.tick * SECOND

    def id(self, e):
        """Its event_id."""
        return self.ids[e.version - 1]


class Machine(Edits, Verdicts):
    """A table.  A third of its rows were there before it was tracked, a third were created, the others are not there."""

    columns = None              # those of server.table
    first = FIRST
    strategies = STRATEGIES

    def __init__(self, server, r, policy, tombstone, groups, rows):
        self.server, self.r, self.policy, self.tombstone, self.groups = server, r, policy, tombstone, groups
        third = rows // 3
        self.table = server.table(tombstone, [dict(self.first, id=i) for i in range(1, third + 1)], self.columns, self.options())
        self.table_id = server.one('SELECT table_id FROM esync.tracked_table WHERE relation = %s::regclass', self.table)
        self.rows = {i: Row(i, self.new_aggregate(), r) for i in range(1, rows + 1)}
        for i, row in self.rows.items():
            if i <= third:
                row.agg.ground(self.first)
            elif i <= 2 * third:
                edit = Edit('create', CREATED, 0, 'seed', document=dict(self.first))
                row.agg.accept(edit)
                server.submit('seed', 'seed', [event_of(self.table, i, edit)])
                row.ids = self.ids(row)
            row.base = [row.agg.head()] * DEVICES

    def options(self):
        return ", on_conflict => '%s'%s" % (self.policy, ", groups => '%s'" % json.dumps(self.groups) if self.groups else '')

    def new_aggregate(self):
        return Decided(DEFAULTS, self.groups, self.tombstone, self.policy)

    def ids(self, row):
        return [i for i, in self.server.sql('SELECT event_id FROM esync.event_%d WHERE aggregate_id = %%s ORDER BY version' % self.table_id, str(row.key))]

    def now(self, row):
        """The submit of the last event, which the server took from its clock."""
        return us(self.server.one("SELECT to_jsonb(submit_timestamp)#>>'{}' FROM esync.event_%d WHERE aggregate_id = %%s ORDER BY version DESC LIMIT 1" % self.table_id, str(row.key)))

    # ----------------------------------------------------------------- checks

    def check(self, history):
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
            # left out: conflicts of what nobody said, where the creation that had the default is undone
            row.left |= row.agg.is_default_gone()
            row.ids = [x.event_id for x in events]
            yield from ((row, w) for w in self.check_row(row, have.get(row.key), events, ledger.get(row.key, {})))
            if not row.left:
                yield from ((row, w) for w in self.check_closed(row, ledger.get(row.key, {})))
            row.ledger = ledger.get(row.key, {})
            row.checked = row.agg.head()
        yield from self.check_kept()
        if history:
            yield from self.check_history()

    def check_row(self, row, have, events, ledger):
        agg = row.agg
        if checks.plain(have) != agg.row():
            yield 'the row is %s, not %s' % (have, agg.row())
        if not events:
            if agg.events and (len(agg.events) > 1 or not agg.events[0].is_ground()):
                yield 'no events'
            return
        if checks.plain(fold(events)) != checks.plain(have):
            yield 'the row is %s, the fold of its raw events %s' % (have, fold(events))
        yield from checks.same_events(agg, events, self.tombstone)
        if len(events) != len(agg.events):
            return
        opened = {self.name_of(c): c for c in ledger.values() if c['status'] == 'open'}
        if len(opened) != sum(c['status'] == 'open' for c in ledger.values()):
            yield 'two open conflicts of a field: %s' % ledger
        for name, c in opened.items():      # of undos that put back the same one is enough
            if c['kind'] == 'constraint':
                continue
            who = [(x, agg.events[self.place(events, x['event_id'])]) for x in c['contenders']]
            c['contenders'] = [x for x, e in who if agg.is_first(e, [y for _, y in who], name)]
        if not row.left:
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
            elif before and before['status'] == 'open' and of(last, 'strategy') and c['resolution'] != last.strategy and not (last.strategy in POLICIES and c['resolution'] in ('superseded', 'agreed')):
                yield 'conflict %s was closed by %s' % (c, last.strategy)
        for i in set(row.ledger) - set(ledger):
            yield 'conflict %s is gone' % row.ledger[i]

    def check_closed(self, row, ledger):
        """What was closed since the last check, with the contenders that it had until then."""
        agg = row.agg
        want = {}
        for v in range(row.checked + 1, agg.head() + 1):
            want.update(agg.closed_at(v))
        have = {self.name_of(c): c for i, c in ledger.items() if c['status'] != 'open' and row.ledger.get(i, {'status': 'open'})['status'] == 'open'}
        if set(want) != set(have):
            yield 'closed are %s, not %s' % (sorted(map(str, have)), sorted(map(str, want)))
            return
        for name, (kind, who, shown) in want.items():
            got = have[name]['contenders']
            if kind == 'constraint':
                continue
            if [x['version'] for x in got] != [e.version for e in who]:
                yield 'the closed conflict of %s has %s, not %s' % (name, got, who)
            elif None not in shown and [x['version'] for x in got if x['shown']] not in [[e.version] for e in shown]:
                yield 'the closed conflict of %s has %s, of which %s showed' % (name, got, shown)

    def check_history(self):
        """The status of each edit in field_history: current, conflict, lost, superseded."""
        for key, have in self.server.history(self.table, [row.key for row in self.rows.values() if row.ids]).items():
            row = self.rows[key]
            if row.left:
                continue
            lost = {(c['field'], x['version']) for c in row.ledger.values() if c['status'] != 'open' for x in c['contenders'] if not x['shown']}
            for (field, version), status in row.agg.statuses().items():
                if status == 'past':
                    status = 'lost' if (row.agg.register_of(field), version) in lost else 'superseded'
                got = have.get((field, version))
                want = row.agg.events[version - 1].patch[field], status
                if got != want:
                    yield row, 'field_history says %s of %s of version %d, not %s' % (got, field, version, want)

    @staticmethod
    def name_of(c):
        """The model's name of a conflict.  What a constraint refused stands beside what edits of the field say."""
        return c['field'] if c['kind'] != 'constraint' else (c['field'], 'constraint')

    @staticmethod
    def place(events, event_id):
        return [x.event_id for x in events].index(event_id)

    # -------------------------------------------------------------------- run

    STEPS = {'submit': 8, 'sql': 3, 'kept': 2, 'resolve': 2, 'row': 1, 'strategy': 1, 'undo': 3}

    def run(self, rounds):
        given_up = set()

        def give_up(row, wrong):
            if row.key not in given_up:
                given_up.add(row.key)           # what went wrong once goes on
                yield '%s row %s: %s\n      %s' % (self.table, row.key, wrong, self.story(row))

        for n in range(rounds):
            if n % 5 == 4 and not given_up and not any(x.left for x in self.rows.values()):
                for row, wrong in self.decide_all():
                    yield from give_up(row, wrong)
            else:
                for row in [x for x in self.rows.values() if x.key not in given_up and not x.left]:
                    for wrong in self.step(row):
                        yield from give_up(row, wrong)
            for row, wrong in list(self.check(n % 4 == 3 or n == rounds - 1)):
                yield from give_up(row, wrong)

    def step(self, row):
        """One step of a row; what is wrong."""
        name = self.r.choices(list(self.STEPS), list(self.STEPS.values()))[0]
        try:
            for said in getattr(self, 'step_' + name)(row):
                if isinstance(said, str):
                    row.told.append(said)
                else:
                    yield said[1]
        except Lost:
            pass
        except Exception as x:
            yield '%r %s\n%s' % (x, x, traceback.format_exc(limit=-4))
            self.server.again()

    def story(self, row):
        return '%s%s %s\n        %s\n      events:\n        %s' % (
            self.policy, ' tombstone' if self.tombstone else '', self.table, '\n        '.join(row.told), '\n        '.join(map(repr, row.agg.events)))


def run(server, r, rows, rounds, policies=POLICIES):
    for policy in policies:
        for tombstone in (False, True):
            yield from Machine(server, r, policy, tombstone, GROUPS if r.random() < 0.5 else {}, rows).run(rounds)
