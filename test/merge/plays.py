"""What users do with one row, in which order: plays for the model and for the server.

A play is a sequence of moves.  Each user takes the same moves in the same
order, interleaved with those of the others:

    P  pull: the row as it is becomes what the user has seen
    B  branch: opens the form; nothing but a time that is recorded
    S  save on the device: the next edit of the user's script, at the next tick of the clock
    C  commit: the server gets what was saved, in the order in which it was saved

Two plays in which all do the same, have seen the same and saved in the same
order belong to one group: they differ in the order of commits alone, and
must end alike.
"""
import collections
import itertools

from model import Aggregate, Edit, NEVER, saw

SECOND = 1000000
FIRST = {'a': 'a0', 'b': 'b0', 'c': 'c0'}       # the row before anybody edits it
DEFAULTS = {'a': None, 'b': 'db', 'c': None}
CREATED, DELETED, TICKS = 1 * SECOND, 2 * SECOND, 100 * SECOND
INITIALS = ('ground', 'created', 'deleted', 'nothing')

# an edit as it was sent, and what the model says of it: the version and the row after it
Sent = collections.namedtuple('Sent', 'user edit branch event clashes version row deleted with_row')


def interleavings(users, moves):
    """Every order of so many moves of each user."""
    left = [moves] * users
    order = []

    def go():
        if len(order) == users * moves:
            yield tuple(order)
            return
        for u in range(users):
            if left[u]:
                left[u] -= 1
                order.append(u)
                yield from go()
                order.pop()
                left[u] += 1
    return go()


def actions(fields):
    """What one save may be.  Values: 'own' differs for everybody, 'same' and 'first' (that of the beginning) do not."""
    sets = [dict.fromkeys(some, 'own') for n in range(1, len(fields) + 1) for some in itertools.combinations(fields, n)]
    sets += [{fields[0]: 'same'}, {fields[0]: 'first'}, {fields[0]: 'same', fields[-1]: 'own'}]
    return [('update', tuple(sorted(s.items()))) for s in sets] + [('delete', ()), ('restore', ()), ('save', ((fields[0], 'own'),))]


class Play:
    """One play, acted out on the model; keeps what was sent, in order of commits."""

    Row = Aggregate
    first = FIRST
    defaults = DEFAULTS
    columns = "a text, b text DEFAULT 'db', c text"
    options = ''

    def __init__(self, initial, moves, order, scripts, skew, tombstone, documents=0, fields=('a', 'b'), number=0, plain=False, groups=None):
        self.initial = initial
        self.tombstone = tombstone
        self.fields = fields
        self.seq = 8 * number   # below the device_seq of all that is sent
        self.plain = plain      # in plain SQL, where there is no device_seq
        self.groups = groups or {}
        self.told = '%s%s%s %s %s, skew %s: %s' % (
            initial, ' tombstone' if tombstone else '', ' groups' if groups else '', moves, ''.join(map(str, order)), skew, scripts)
        self.agg = self.Row(self.defaults, self.groups, tombstone)
        self.sent = []          # in order of commits; each a list of what one commit brings
        self.edit_of = {}       # event -> (user, how-manieth edit of the user)
        self.begin(initial)
        self.act(moves, order, scripts, skew, documents)

    def begin(self, initial):
        agg = self.agg
        if initial == 'ground':
            agg.ground(self.first)
        elif initial != 'nothing':
            agg.accept(Edit('create', CREATED, device='seed', document=dict(self.first)))
        if initial == 'deleted':
            agg.accept(Edit('delete', DELETED, device='seed'))

    def act(self, moves, order, scripts, skew, documents):
        users = len(scripts)
        at = [0] * users                # the next move of each
        saved = [0] * users
        base = [None] * users
        branch = [None] * users
        seen = [()] * users             # the edits that came before the pull
        queue = [[] for _ in range(users)]
        delivered = []
        key = []
        tick = 0
        for step, u in enumerate(order):
            move = moves[at[u]]
            at[u] += 1
            if move == 'P':
                base[u], seen[u] = self.agg.head(), frozenset(delivered)
            elif move == 'B':
                branch[u] = TICKS + step * SECOND
            elif move == 'S':
                tick += 1
                n = saved[u]
                saved[u] += 1
                submit = TICKS if skew == 'equal' else TICKS + (tick * 10 + skew[u]) * SECOND
                edit = self.edit(u, n, scripts[u][n], base[u], submit, documents >> u & 1)
                queue[u].append((n, edit, branch[u]))
                key.append((u, n, seen[u], edit.submit))
            elif move == 'C':
                self.sent.append([self.deliver(u, n, edit, branched) for n, edit, branched in queue[u]])
                delivered += [(u, n) for n, _, _ in queue[u]]
                queue[u] = []
        self.group = (self.initial, self.tombstone, repr(scripts), tuple(sorted(key, key=repr)))
        if self.plain and not self.tombstone:
            self.group = self.told      # what finds no row is lost, so the order counts

    def edit(self, u, n, action, base, submit, document):
        op, said = action
        if op == 'create' and base and not self.agg.state(self.agg.upto(base))[1]:
            op = 'save'                 # the row is there, as the user knows
        values = {'own': 'u%d.%d' % (u, n), 'same': 'same'}
        said = {f: FIRST[f] if v == 'first' else values[v] for f, v in said}
        edit = Edit(op, submit, base, 'd%d' % u, None if self.plain else self.seq + n + 1, user='u%d' % u)
        edit.mark = submit if self.plain and op == 'delete' else None
        if op in ('create', 'save') or (op == 'update' and not document):
            edit.set = said
        elif op == 'update':
            edit.said = said            # a document: what was shown is known when it is sent
        return edit

    def deliver(self, u, n, edit, branch):
        if hasattr(edit, 'said'):
            shown, _ = self.agg.shown_at(edit.base, edit)
            edit.document = dict(shown or {}, **edit.said)
        gone = self.plain and self.agg.row() is None    # plain SQL finds no row, and says so
        e = None if gone else self.agg.accept(edit)
        if e is not None:
            self.edit_of[e] = (u, n)
        agg = self.agg
        return Sent(u, edit, branch, e, agg.in_conflict(e) if e else set(), agg.head(), agg.row(), agg.deleted(),
                    agg.sees_others(edit.base, edit.device))

    def outcome(self):
        """What must be the same in every order of commits."""
        agg = self.agg

        def name(e):
            return self.edit_of.get(e, 'seed')

        conflicts = frozenset(
            (f, kind, frozenset((name(e), str(agg.registers_of(e).get(f))) for e in who), f and str(agg.base_value(f)))
            for f, (kind, who) in agg.conflicts().items())
        return (agg.row(), agg.fields(), agg.deleted(), conflicts,
                frozenset((name(e), e.kind, e.effective, tuple(sorted(e.patch.items()))) for e in agg.events))

    def faults(self):
        """What no rule may do: show what somebody who had seen it replaced, or hide a value without a record."""
        agg = self.agg
        current = {f: r[2] for f, r in agg.registers(agg.events).items()}
        word = agg.delete_register(agg.events)
        conflicts = agg.conflicts()
        for e in agg.events:
            for x in agg.events:
                if saw(e, x) and not e.stamp() > x.stamp():
                    yield '%r lies before %r, which its author had seen' % (e, x)
            for f, value in e.patch.items():
                replaced = any(saw(x, e) and f in x.patch for x in agg.events)
                if current[f].patch.get(f) != value and not replaced and agg.register_of(f) not in conflicts and e.effective > NEVER:
                    yield '%s of %r is lost' % (f, e)
                if word.deletes and e.deletes is None and not saw(e, word) and None not in conflicts and not any(
                        w.deletes is not None and saw(w, e) for w in agg.events):
                    yield '%r is hidden by a delete, and nothing says so' % e
        for f in {f for e in agg.events for f in e.patch}:
            who = agg.contenders(agg.register_of(f))
            if who and current[f] not in who:
                yield '%s shows none of its contenders' % f


def scripts_of(r, initial, acts, users, rounds):
    """What each user does, at random; where there is no row yet, everybody begins by creating it."""
    scripts = [[r.choice(acts) for _ in range(rounds)] for _ in range(users)]
    if initial == 'nothing':
        for s in scripts:
            s[0] = ('create', s[0][1])
    return tuple(map(tuple, scripts))


def some_plays(r, users, moves, fields, families, orders=None, groups=None):
    """Families of plays: one thing done in every order, or in so many."""
    acts = actions(fields)
    every = list(interleavings(users, len(moves))) if orders is None else None
    number = itertools.count()
    for _ in range(families):
        initial = r.choice(INITIALS)
        scripts = scripts_of(r, initial, acts, users, moves.count('S'))
        skew = r.choice([(0,) * users, (0,) * users, 'equal', tuple(r.choice([-45, -15, 0, 15]) for _ in range(users))])
        tombstone = r.random() < 0.5
        documents = r.randrange(2 ** users)
        for order in every or (random_order(r, users, len(moves)) for _ in range(orders)):
            yield Play(initial, moves, order, scripts, skew, tombstone, documents, fields, next(number), groups=groups)


def all_plays(r, users, moves, fields):
    """Every play of so many users; skew, deletes and what is sent are drawn for each of the families."""
    acts = actions(fields)
    every = list(interleavings(users, len(moves)))
    number = itertools.count()
    for initial in INITIALS:
        for scripts in itertools.product(itertools.product(acts, repeat=moves.count('S')), repeat=users):
            if initial == 'nothing':
                if any(s[0][0] != 'update' for s in scripts):
                    continue
                scripts = tuple((('create', s[0][1]),) + s[1:] for s in scripts)
            skew = r.choice([(0,) * users, 'equal', tuple(r.choice([-45, -15, 0, 15]) for _ in range(users))])
            tombstone = r.random() < 0.5
            documents = r.randrange(2 ** users)
            for order in every:
                yield Play(initial, moves, order, scripts, skew, tombstone, documents, fields, next(number))


def random_order(r, users, moves):
    order = [u for u in range(users) for _ in range(moves)]
    r.shuffle(order)
    return tuple(order)


class History:
    """Edits of many devices in stretches: all of a stretch have seen some earlier stretches whole, and may come in any order."""

    def __init__(self, r, number, devices=3, stretches=4, each=4):
        self.r = r
        self.number = number
        self.tombstone = r.random() < 0.5
        self.initial = r.choice(INITIALS[:3])
        self.stretches = []
        base = [0] * devices
        seq = [0] * devices
        clock = [r.choice([0, 0, -45, 15]) * SECOND for _ in range(devices)]
        now = TICKS
        acts = actions(('a', 'b', 'c'))
        for s in range(stretches):
            stretch = []
            for _ in range(r.randint(1, each)):
                d = r.randrange(devices)
                if r.random() < 0.4:
                    base[d] = s             # pulls, before anything of this stretch came
                now += r.choice([0, 1, 10]) * SECOND
                seq[d] += 1
                stretch.append((d, seq[d], base[d], now + clock[d], r.choice(acts)))
            self.stretches.append(stretch)

    def order(self):
        """A random order that keeps each device's own."""
        for stretch in self.stretches:
            turns = [e[0] for e in stretch]
            self.r.shuffle(turns)
            own = {d: iter([e for e in stretch if e[0] == d]) for d in set(turns)}
            yield [next(own[d]) for d in turns]

    def act(self):
        """The play in one such order."""
        play = Play(self.initial, '', (), (), (), self.tombstone)
        heads = []
        for stretch in self.order():
            heads.append(play.agg.head())
            for d, seq, base, submit, action in stretch:
                edit = play.edit(d, seq - 1, action, heads[base], submit, seq % 2)
                play.deliver(d, seq, edit, None)
        play.group = self.number
        play.told = '%s%s %s' % (self.initial, ' tombstone' if self.tombstone else '', [str(e) for e in play.agg.events])
        return play


def histories(r, some, orders):
    for number in range(some):
        history = History(r, number)
        for _ in range(orders):
            yield history.act()
