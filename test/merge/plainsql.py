"""Plays in plain SQL: each commit an UPDATE of all columns, under a context that names its base."""
import itertools
import random

from plays import Play, actions, random_order, scripts_of
from server import COLUMNS, iso


def some_plays(r, users, families, orders, groups=None):
    """Families of plays that SQL can tell: of rows that are there; deletes set deleted_at where there is one."""
    acts = [a for a in actions(COLUMNS[:2] if groups is None else COLUMNS) if a[0] != 'save']
    number = itertools.count()
    for _ in range(families):
        tombstone = r.random() < 0.7
        initial = r.choice(['ground', 'created', 'deleted'][:3 if tombstone else 2])
        scripts = scripts_of(r, initial, [a for a in acts if tombstone or a[0] != 'restore'], users, 1)
        skew = r.choice([(0,) * users, 'equal', tuple(r.choice([-45, -15, 0, 15]) for _ in range(users))])
        for _ in range(orders):
            yield Play(initial, 'PSC', random_order(r, users, 3), scripts, skew, tombstone, 0, COLUMNS[:2], next(number), plain=True, groups=groups)


def form(agg, edit):
    """All columns as the author leaves them, who began with the row at the base."""
    values = agg.row(agg.upto(edit.base))
    if values is None:
        values = dict.fromkeys(COLUMNS)     # the form of a row that is not there any more
    if edit.op == 'update':
        values.update(edit.set)
    if 'deleted_at' not in values:
        return values
    if edit.op == 'restore':
        values['deleted_at'] = None
    elif edit.op == 'delete' and values['deleted_at'] is None:
        values['deleted_at'] = edit.mark
    if values['deleted_at'] is not None:
        values['deleted_at'] = iso(values['deleted_at'])
    return values


def deliver(server, table, numbered):
    """One transaction a commit; the plays in random order."""
    order = [(k, i, p) for i, p in numbered for k in range(len(p.sent))]
    turn = random.Random(len(order))
    place = {i: turn.random() for i, _ in numbered}
    for k, i, p in sorted(order, key=lambda x: (place[x[1]] + x[0], x[1])):
        for sent in p.sent[k]:
            edit = sent.edit
            values = form(p.agg, edit)
            server.sql('BEGIN')
            server.context(edit.user, edit.device, edit.submit, edit.base, sent.branch)
            if edit.op == 'delete' and not p.tombstone:
                server.sql('DELETE FROM %s WHERE id = %%s' % table, i)
            else:
                server.sql('UPDATE %s SET %s WHERE id = %%s' % (table, ', '.join('%s = %%s' % f for f in values)), *values.values(), i)
            server.sql('COMMIT')
    return []
