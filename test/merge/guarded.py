"""The state machine on a table with constraints: what they refuse of an edit, and the conflicts of that.

Written from docs/reference.md, "Constraints": the columns of the constraint
are left out of the edit, all that it sets in the row, with their groups; the
rest is merged.  The event remembers what was refused, and that is a conflict until
somebody sets the field who had seen it.
"""
import itertools

import machine
from decisions import Decided, of, undoes
from model import Rejected, saw

FIRST = {'a': 1, 'b': 5, 'c': None}
PARENTS = range(1, 7)
ORDERED, UNIQUE, PARENT = '23514', '23505', '23503'
CODES = {ORDERED: 'constraint', UNIQUE: 'constraint', PARENT: 'fk'}


class Guarded(Decided):
    """A row of a table with CHECK (a <= b), and c UNIQUE and a foreign key."""

    def __init__(self, others, *args):
        super().__init__(dict.fromkeys(FIRST), *args)
        self.others = others            # of them c is asked for

    def wrong(self):
        """The first constraint against the row as it is, and its columns.  PostgreSQL asks foreign keys last."""
        row = self.row()
        if row is None:
            return None, ()
        if row['a'] is not None and row['b'] is not None and row['a'] > row['b']:
            return ORDERED, ('a', 'b')
        if row['c'] is not None and any(x is not self and x.row() and x.row()['c'] == row['c'] for x in self.others()):
            return UNIQUE, ('c',)
        if row['c'] is not None and row['c'] not in PARENTS:
            return PARENT, ('c',)
        return None, ()

    def violation(self):
        return self.wrong()[0]

    def accept(self, edit):
        before = self.row()
        e = super().accept(edit)
        if e is None:
            return None
        e.refused = {}
        if self.policy == 'reject' and self.in_conflict(e):
            return e                    # which is what is told of it
        code, about = self.wrong()
        while code:
            row = self.row()
            names = {self.register_of(f) for f in about if before and before[f] != row[f]} & set(self.registers_of(e))
            fields = {f for name in names for f in self.groups.get(name, [name])}
            plain = edit.device in (None, 'web')
            whole = before is None or edit.op == 'create' or e.kind not in ('Updated', 'Created')
            if plain or self.policy == 'reject' or whole or set(e.patch) <= fields:
                self.events.remove(e)
                raise Rejected(code if plain else CODES[code])
            e.refused.update((name, (self.registers_of(e)[name], code)) for name in names)
            e.patch = {f: v for f, v in e.patch.items() if f not in fields}
            code, about = self.wrong()
        return e

    def waiting(self):
        """(field, 'constraint') -> the events of which it was refused, and nobody set it since, or meant to, who had seen that."""
        found = {}
        stand = [e for e in self.events if e not in self.withdrawn()]
        for e in stand:
            for name in of(e, 'refused', {}):
                if not any(saw(y, e) and not undoes(y) and (name in self.registers_of(y) or name in of(y, 'refused', {})) for y in stand):
                    found.setdefault((name, 'constraint'), ('constraint', []))[1].append(e)
        return found

    def conflicts(self):
        return super().conflicts() | self.waiting()

    def in_conflict(self, e):
        return {f[0] if isinstance(f, tuple) else f for f in super().in_conflict(e)}

    def contends(self, decided, deletes, expected):
        return super().contends(decided, deletes, expected) or any(
            e.version > expected and set(decided) & set(of(e, 'refused', {})) for e in self.events)

    def shown_event(self, name):
        return None if isinstance(name, tuple) else super().shown_event(name)

    def by_strategy(self, name, strategy):
        if not isinstance(name, tuple):
            return super().by_strategy(name, strategy)
        if strategy == 'client_wins':
            disputed = self.waiting()[name][1][-1]
            return self.values_of(name[0], disputed.refused[name[0]][0]), None
        return self.in_fold(name[0], self.events), None


class Machine(machine.Machine):
    columns = 'a int, b int, c int UNIQUE REFERENCES parents, CONSTRAINT ordered CHECK (a <= b)'
    first = FIRST
    strategies = ('server_wins', 'client_wins')
    STEPS = {'submit': 10, 'sql': 3, 'kept': 2, 'resolve': 3, 'row': 1, 'undo': 3}

    def __init__(self, server, r, policy, tombstone, groups, rows):
        server.sql('CREATE TABLE IF NOT EXISTS parents (id int PRIMARY KEY); INSERT INTO parents SELECT generate_series(1, 6) ON CONFLICT DO NOTHING')
        super().__init__(server, r, policy, tombstone, groups, rows)

    def new_aggregate(self):
        return Guarded(lambda: [row.agg for row in self.rows.values()], self.groups, self.tombstone, self.policy)

    def some_edit(self, row):
        edit = super().some_edit(row)
        if edit.base == 0 and edit.op == 'save':
            edit.op = 'create'          # what is left of a save that creates is not said anywhere
        return edit

    def decide_all(self):
        # left out: of a row of which a constraint refuses a part, the rest is decided
        return iter(())

    def check_history(self):
        """Without fields of which something was refused: the one that showed then is a contender, too."""
        for row, wrong in super().check_history():
            if not any(c['kind'] == 'constraint' for c in row.ledger.values()):
                yield row, wrong

    def value(self, row, field=None):
        return self.r.choice([None, 1, 2, 3, 4, 5, 6, 7])


def run(server, r, rows, rounds):
    for policy in ('merge', 'merge', 'reject'):
        for tombstone in (False, True):
            table = Machine(server, r, policy, tombstone, machine.GROUPS if r.random() < 0.5 else {}, rows)
            yield from itertools.islice(table.run(rounds), 1)       # each row counts for the others
