"""Rows that change their keys, while edits arrive late under old and new ones, are undone and decided.

There is no model of this.  After each step holds what docs/reference.md and
docs/caveats.md say of any stream: the table is the fold, and a conflict lies
between edits of one row that stand, until somebody who had seen them sets the
field.
"""
import uuid

from checks import plain
from model import saw
from server import fold, iso
from plays import SECOND
from story import Story, context, literal, transaction

KEYS = (1, 2, 3)
DEVICES = ('d0', 'd1', 'd2')
FIELDS = ('a', 'b')
MOVED = 0x0040                  # flag: half of a change of key
STRATEGIES = ('server_wins', 'client_wins', 'last_write_wins', 'event_sourced')
DECISIONS = ({'a': {'value': 'decided'}}, {'': {'value': {'deleted': False}}}, {'': {'value': {'deleted': True}}})


# ------------------------------------------------------------- what events say

def undoes(e):
    """event_id of what it takes back, if it takes back anything."""
    return e.meta.get('undoes')


def withdrawn(events):
    """The event_ids of what was undone by an undo that stands."""
    gone = set()
    for e in reversed(events):
        if undoes(e) and e.event_id not in gone:
            gone.add(undoes(e))
    return gone


def departures(events):
    """The versions at which the row that had the key went to another one."""
    return [e.version for e in events if e.kind == 'Deleted' and e.flags & MOVED]


def life(events, e):
    """Of the how-manieth row of its key an event is: the one that its author had seen; an undo of that of what it undoes."""
    of = {x.event_id: x for x in events}
    while undoes(e) in of:
        e = of[undoes(e)]
    return sum(v <= e.base for v in departures(events))


# ------------------------------------------------------------------ the checks

def check_conflict(key, events, conflict, new):
    """A conflict lies between edits of one row that stand, two or more; if it just opened, of a row that somebody just edited.

    Where several rows had the key, one line of the ledger may have the conflicts of all of them.
    """
    of = {e.event_id: e for e in events}
    who = [of[c['event_id']] for c in conflict['contenders']]
    gone = withdrawn(events)
    said = 'conflict of %s.%s between versions %s' % (key, conflict['field'], [e.version for e in who])
    if any(e.event_id in gone for e in who):
        yield '%s has undone ones: %s' % (said, [e.version for e in who if e.event_id in gone])
    lives = [life(events, e) for e in who]
    for one in sorted(set(lives)):
        if lives.count(one) < 2:
            yield '%s has a single one of life %d of the key' % (said, one)
        if new is not None and one not in [life(events, e) for e in new]:
            yield '%s opens in life %d of the key, which nobody touched: %s' % (said, one, new)


def check_lost(key, events, before, now, new):
    """A contender leaves an open conflict where it is undone, or for one whose author had seen it."""
    of = {e.event_id: e for e in events}
    gone = withdrawn(events)
    here = [of[c['event_id']] for c in now['contenders']]
    for e in [of[c['event_id']] for c in before['contenders']]:
        if e not in here and e.event_id not in gone and not undoes(e) and not any(map(undoes, new)) and not any(saw(x, e) for x in here):
            yield 'conflict of %s.%s between versions %s lost version %d' % (key, now['field'], [x.version for x in here], e.version)


# ---------------------------------------------------------------------- a play

class Keys(Story):
    STEPS = {'submit': 6, 'update': 3, 'move': 3, 'insert': 2, 'delete': 1, 'undo': 4, 'redo': 2, 'resolve': 2, 'decide': 1}

    def __init__(self, server, r):
        super().__init__(server, r, 'keys')
        self.tombstone = r.random() < 0.3
        self.rows, self.events, self.open = {}, {}, {}

    def begin(self):
        self.run('CREATE TABLE %s (id int PRIMARY KEY, a text, b text%s)' % (self.table, ', gone timestamptz' if self.tombstone else ''))
        if self.r.random() < 0.5:
            self.run("INSERT INTO %s VALUES (1, 'ground', 'ground')" % self.table)
        self.run("SELECT esync_enable('%s'%s)" % (self.table, ", tombstone => 'gone'" if self.tombstone else ''))
        self.rows = self.server.rows(self.table)

    def step(self, last):
        getattr(self, 'step_' + self.r.choices(list(self.STEPS), list(self.STEPS.values()))[0])()
        return self.check()

    def check(self):
        """What is wrong after a step; each conflict is held against what it was before."""
        known = {key: len(of_key) for key, of_key in self.events.items()}
        before = {c['conflict_id']: c for of_key in self.open.values() for c in of_key.values()}
        self.rows, self.events, self.open = (f(self.table) for f in (self.server.rows, self.server.events, self.server.conflicts))
        for key, problem, detail in self.server.verify(self.table):
            yield 'esync_verify of row %s: %s %s' % (key, problem, detail)
        for key, events in self.events.items():
            if plain(fold(events)) != plain(self.rows.get(key)):
                yield 'row %s is %s, the fold of its raw events %s' % (key, self.rows.get(key), fold(events))
        for key, of_key in self.open.items():
            events = self.events[key]
            new = events[known.get(key, 0):]
            for c in of_key.values():
                then = before.get(c['conflict_id'])
                yield from check_conflict(key, events, c, new if then is None else None)
                if then is not None:
                    yield from check_lost(key, events, then, c, new)

    def fault(self, wrong):
        """With the raw events, which say of which row each is."""
        events = ['events of %s:' % key + ''.join('\n        %r %s' % (e, e.meta or '') for e in of_key) for key, of_key in sorted(self.events.items())]
        return '\n      '.join([super().fault(wrong)] + events)

    # ----------------------------------------------------------------- choices

    def value(self):
        return 'v%d' % self.r.randrange(100) if self.r.random() < 0.8 else 'same'

    def time(self):
        return iso(self.r.randrange(28 * 24) * 3600 * SECOND)

    def some_row(self):
        """The key of a row that is there; None: there is none."""
        return self.r.choice(sorted(self.rows)) if self.rows else None

    def some_free(self):
        free = [key for key in KEYS if key not in self.rows]
        return self.r.choice(free) if free else None

    def some_event(self, which=lambda e: True):
        """(key, event), mostly one of the last."""
        events = sorted(((e.event_id, key, e) for key, of_key in self.events.items() for e in of_key if which(e)), key=lambda x: x[0])
        if not events:
            return None
        return self.r.choice(events[-6:] if self.r.random() < 0.7 else events)[1:]

    # ------------------------------------------------------------------- steps

    def write(self, text):
        """Plain SQL, saved at a time that is given."""
        self.run(transaction(context(submit_timestamp=self.time()), text))

    def step_submit(self):
        """A device sends an edit of what it last saw under a key, however long ago."""
        r = self.r
        key, device = r.choice(KEYS), r.choice(DEVICES)
        e = {'id': str(uuid.UUID(int=r.getrandbits(128))), 'seq': self.new_seq(), 'table': self.table, 'submit_timestamp': self.time(),
             'op': r.choices(['update', 'delete', 'create', 'save', 'restore'], [8, 1, 1, 1, 1])[0]}
        values = {f: self.value() for f in r.sample(FIELDS, r.choice([1, 1, 2]))}
        if e['op'] == 'create':
            e['document'] = dict(values, id=key)
        else:
            e.update(key=str(key), base_version=r.randint(0, len(self.events.get(key, ()))))
            if e['op'] in ('update', 'save'):
                e['set'] = values
        self.submit('u' + device, device, [e])

    def step_update(self):
        key = self.some_row()
        if key is not None:
            self.write('UPDATE %s SET %s = %s WHERE id = %d' % (self.table, self.r.choice(FIELDS), literal(self.value()), key))

    def step_move(self):
        """The row gets a key that is free."""
        key, free = self.some_row(), self.some_free()
        if key is not None and free is not None:
            also = ', a = %s' % literal(self.value()) if self.r.random() < 0.5 else ''
            self.write('UPDATE %s SET id = %d%s WHERE id = %d' % (self.table, free, also, key))

    def step_insert(self):
        free = self.some_free()
        if free is not None:
            self.write('INSERT INTO %s VALUES (%d, %s, %s)' % (self.table, free, literal(self.value()), literal(self.value())))

    def step_delete(self):
        key = self.some_row()
        if key is not None:
            self.write('DELETE FROM %s WHERE id = %d' % (self.table, key))

    def step_undo(self):
        found = self.some_event()
        if found:
            self.undo(found[0], found[1].version)

    def step_redo(self):
        """An undo of an undo."""
        found = self.some_event(undoes)
        if found:
            self.undo(found[0], found[1].version)

    def step_resolve(self):
        """Any open conflict is decided by a strategy."""
        conflicts = [(key, field) for key in sorted(self.open) for field in sorted(self.open[key], key=str)]
        if conflicts:
            self.resolve(*self.r.choice(conflicts), self.r.choice(STRATEGIES))

    def step_decide(self):
        """Somebody says what a row shall be, in conflict or not."""
        key = self.r.choice(KEYS)
        if key in self.events:
            self.run('SELECT esync_resolve_row(%s, %s, %s)' % (
                literal(self.table), literal(str(key)), literal(self.r.choice(DECISIONS))))


def run(server, r, plays, steps):
    for _ in range(plays):
        yield from Keys(server, r).play(steps)
