"""Plays on a jsonb column that is merged path by path.

An edit of the column is what differs, member by member; arrays and scalars
are values.  The column is the fold of all edits of it in the order of their
stamps.  How a conflict between a place and what lies inside of it is named is
not predicted: each clash must stand in the ledger with both of its sides,
and the ledger must be the same in every order of commits.
"""
import itertools

import plays
from model import REMOVED, Aggregate, Edit, clash, put, saw

FIRST = {'a': 'a0', 'b': 'b0', 'c': {'p': 0, 'o': {'m': 0, 'n': 0}, 'l': [1, 2]}}
COLUMN = 'c'
PLACES = {'c/p': (1, 2, None, REMOVED), 'c/o/m': (1, 2, 0), 'c/o/n': (1, REMOVED), 'c/o': (7, {'m': 5}, {'m': 1, 'n': 0}, REMOVED),
          'c/l': ([1], [1, 3]), 'c/new': (1, {'m': 1}), 'c/new/m': (1, 2), 'c': (None, 5, {}, {'p': 1})}


def difference(path, old, new):
    """The places in which two values differ."""
    if old == new and type(old) == type(new):
        return {}
    if not isinstance(old, dict) or not isinstance(new, dict):
        return {path: new}
    found = {}
    for name in set(old) | set(new):
        place = path + '/' + name
        if name not in new:
            found[place] = REMOVED
        elif name not in old:
            found[place] = new[name]
        else:
            found.update(difference(place, old[name], new[name]))
    return found


def overlap(p, q):
    return p == q or p.startswith(q + '/') or q.startswith(p + '/')


def at(value, path):
    """What is at a place inside of a value."""
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return REMOVED
        value = value[name]
    return value


def contradict(p, v, q, w):
    """Do two edits of overlapping places want different things?"""
    if len(p) > len(q):
        p, v, q, w = q, w, p, v
    return at(v, q[len(p):].split('/')[1:]) != w


class Row(Aggregate):
    """An aggregate whose patches name places; a column is one of one name."""

    def state(self, events):
        values, deleted = super().state(events)
        if values is None:
            return values, deleted
        found = {f: v for f, v in values.items() if '/' not in f and f != COLUMN}
        edits = [((plays.NEVER - 1, e.version), p, v) for e in events for p, v in e.defaults.items()]
        edits += [((0,) + e.stamp(), p, v) for e in events for p, v in e.patch.items()]
        for _, p, v in sorted(edits, key=lambda x: x[0]):
            if p.split('/')[0] == COLUMN:
                put(found, p.split('/'), v)
        return dict(dict.fromkeys(self.defaults), **found), deleted

    def shown_at(self, version, edit):
        values, deleted = super().shown_at(version, edit)
        if values is None:
            return values, deleted
        shown = {}
        for p, v in values.items():     # the device's own edits come behind the row, in their order
            put(shown, p.split('/'), v)
        return shown, deleted

    def changes(self, values, edit):
        patch = super().changes(values, edit)
        if COLUMN in patch and COLUMN in (values or {}):
            patch.update(difference(COLUMN, values[COLUMN], patch.pop(COLUMN)))
        return patch

    def edits(self):
        """(event, place, value) of all edits of the column."""
        return [(e, p, v) for e in self.events if not e.is_ground() for p, v in e.patch.items() if p.split('/')[0] == COLUMN]

    def conflicts(self):
        """Those of the ordinary columns; those of the column by pairs: nobody who had seen one of them has set the place that both set."""
        found = {f: c for f, c in super().conflicts().items() if f is None or f.split('/')[0] != COLUMN}
        edits = self.edits()
        for (e, p, v), (x, q, w) in itertools.combinations(edits, 2):
            if clash(e, x) and overlap(p, q) and contradict(p, v, q, w):
                both = max(p, q, key=len)
                if not any((saw(y, e) or saw(y, x)) and overlap(o, both) for y, o, _ in edits):
                    found[COLUMN, e.version, x.version] = ('field', [e, x])
        return found

    def in_conflict(self, e):
        return None                     # not predicted

    def wrong_conflicts(self, raw, have):
        ids = {x.event_id: self.events[x.version - 1] for x in raw}
        sides = {f: {ids[c['event_id']] for c in row['contenders']} for f, row in have.items()}
        for name, (_, who) in self.conflicts().items():
            of_column = isinstance(name, tuple)
            if not any(set(who) <= s for f, s in sides.items() if (f or '').split('/')[0] == COLUMN if of_column) and (
                    of_column or name not in have or set(who) != sides[name]):
                yield 'not in the ledger: %s of %s; there is %s' % (name, who, have)
        pairs = [set(who) for name, (_, who) in self.conflicts().items() if isinstance(name, tuple)]
        for name, who in sides.items():
            if (name or '').split('/')[0] == COLUMN and not any(pair <= who for pair in pairs):
                yield 'open, though nothing of it stands: %s of %s' % (name, who)
            elif not any(clash(e, x) for e in who for x in who):
                yield 'no clash: %s of %s' % (name, who)

    def statuses(self):
        return {k: v for k, v in super().statuses().items() if k[0].split('/')[0] != COLUMN}


class Play(plays.Play):
    Row = Row
    first = FIRST
    defaults = {'a': None, 'b': 'db', 'c': None}
    columns = "a text, b text DEFAULT 'db', c jsonb"
    options = ", json_merge => '{c}'"

    def edit(self, u, n, action, base, submit, document):
        op, places = action
        edit = Edit('update' if op == 'set' else op, submit, base, 'd%d' % u, self.seq + n + 1, user='u%d' % u)
        if op == 'set':
            edit.places = places
            edit.whole = document
        return edit

    def deliver(self, u, n, edit, branch):
        if hasattr(edit, 'places'):
            shown = dict(self.agg.shown_at(edit.base, edit)[0])
            for p, v in edit.places:
                put(shown, p.split('/'), v)
            if edit.whole:
                edit.document = shown
            else:
                edit.set = {COLUMN: shown[COLUMN]}
        return super().deliver(u, n, edit, branch)


def random_action(r):
    if r.random() < 0.1:
        return r.choice([('delete', ()), ('restore', ())])
    places = r.sample(sorted(PLACES), r.choice([1, 1, 2]))
    return 'set', tuple((p, r.choice(PLACES[p])) for p in sorted(places))


def some_plays(r, users, moves, families, orders=None):
    """Families of plays as plays.some_plays has them."""
    every = list(plays.interleavings(users, len(moves))) if orders is None else None
    number = itertools.count()
    for _ in range(families):
        initial = r.choice(['ground', 'created', 'deleted'])
        scripts = tuple(tuple(random_action(r) for _ in range(moves.count('S'))) for _ in range(users))
        skew = r.choice([(0,) * users, 'equal', tuple(r.choice([-45, -15, 0, 15]) for _ in range(users))])
        tombstone, documents = r.random() < 0.5, r.randrange(2 ** users)
        for order in every or (plays.random_order(r, users, len(moves)) for _ in range(orders)):
            yield Play(initial, moves, order, scripts, skew, tombstone, documents, plays.FIRST, next(number))
