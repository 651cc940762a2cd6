"""The counter-examples: to each simpler rule one case that it gets wrong.

Every example says what users do, and the one outcome that all orders of
commits must have, through esync_submit and, where nothing but UPDATE is
needed, through plain SQL with the base in its context.
"""
import itertools
import json

import checks
from model import Aggregate, Edit
from plays import DEFAULTS, FIRST, SECOND
from server import event_of, iso

HOUR = 3600 * SECOND
MON, TUE, WED, THU, FRI = (24 * HOUR * d for d in range(5))


class Does:
    """One user's edit: saved at `submit`, having seen `saw` (an earlier one's name; None: the row as it began)."""

    def __init__(self, name, submit, said=None, op='update', saw=None, branch=None, whole=False, device=None):
        self.name = name
        self.submit = submit
        self.said = said or {}
        self.op = op
        self.saw = saw
        self.branch = branch
        self.whole = whole      # sends the whole document, not the changed fields
        self.device = device or (None if device == '' else 'd-' + name)

    def edit(self, agg, seen, seq):
        edit = Edit(self.op, self.submit, seen[self.saw], self.device, seq, user=self.name)
        if self.op in ('create', 'save') or (self.op == 'update' and not self.whole):
            edit.set = self.said
        elif self.op == 'update':
            edit.document = dict(agg.shown_at(edit.base, edit)[0] or {}, **self.said)
        return edit


def orders(users):
    """Every order of commits in which all see what they saw and nothing else."""
    by_name = {d.name: d for d in users}

    def known(name):
        return set() if name is None else {name} | known(by_name[name].saw)

    for order in itertools.permutations(users):
        names = [d.name for d in order]
        if all(set(names[:n]) >= known(d.saw) and (d.saw is None or set(names[:names.index(d.saw) + 1]) == known(d.saw))
               for n, d in enumerate(order)):
            yield order


def stated(row, conflicts, agg, have):
    """The outcome as the example states it, without the model."""
    for f, want in row.items():
        if have['row'] is None or have['row'].get(f) != want:
            yield '%s is %r, not %r' % (f, have['row'] and have['row'].get(f), want)
    got = {f: sorted((x.get('value') for x in c['contenders']), key=str) for f, c in have['conflicts'].items() if f is not None}
    want = {f: sorted(v, key=str) for f, v in conflicts.items() if f is not None}
    if got != want or (None in conflicts) != (None in have['conflicts']):
        yield 'conflicts %s, not %s' % (have['conflicts'], conflicts)


def example(users, row, conflicts, first=FIRST, defaults=DEFAULTS, columns=None, plain=True, gone=False, tombstone=False, batches=True):
    """A test: all orders, each in a row of its own, by esync_submit and by plain SQL."""
    def test(server, r):
        for sql in ([False] if batches else []) + ([True] if plain and all(d.op == 'update' for d in users) else []):
            every = dict(enumerate(orders(users), 1))
            table = server.table(tombstone, [dict(first, id=i) for i in every] if first else [], columns)
            aggregates = {}
            for i, order in every.items():
                agg = aggregates[i] = Aggregate(defaults, tombstone=tombstone)
                if first:
                    agg.ground(first)
                seen = {None: agg.head()}
                for n, d in enumerate(order):
                    e = d.edit(agg, seen, None if sql else 100 * i + n)
                    agg.accept(e)
                    seen[d.name] = agg.head()
                    send_sql(server, table, i, e, d) if sql else send(server, table, i, e, d)
            rows, ledger = server.rows(table), server.conflicts(table)
            for i, order in every.items():
                told = list(stated(row, conflicts, aggregates[i], {'row': rows.get(i), 'conflicts': ledger.get(i, {})}))
                if gone != (rows.get(i) is None):
                    told.append('the row is %s' % rows.get(i))
                yield from ('%s row %s, commits %s%s: %s' % (table, i, [d.name for d in order], ' by SQL' if sql else '', w) for w in told)
            for i, wrong in checks.everything(server, table, aggregates, tombstone):
                yield '%s row %s, commits %s%s: %s' % (table, i, [d.name for d in every[i]], ' by SQL' if sql else '', wrong)
    return test


def send(server, table, key, edit, does):
    out = server.submit(edit.user, edit.device, [event_of(table, key, edit, does.branch)])['results'][0]
    if out['status'] not in ('accepted', 'conflict'):
        raise AssertionError('%r: %s' % (edit, out))


def send_sql(server, table, key, edit, does):
    """The UPDATE that a form would issue: a form of all columns, or the changed ones."""
    said = edit.document or edit.set
    server.sql('BEGIN')
    server.context(edit.user, edit.device, edit.submit, edit.base, does.branch)
    server.sql('UPDATE %s SET %s WHERE id = %%s' % (table, ', '.join('"%s" = %%s' % f for f in said)), *said.values(), key)
    server.sql('COMMIT')


# ---------------------------------------------------------------- by special means

def fast_clocks(server, r):
    """5. Clocks that run ahead, as sent_at tells: nobody's place depends on who commits first."""
    table = server.table(rows=[dict(FIRST, id=i) for i in (1, 2)])
    for i, order in ((1, 'xy'), (2, 'yx')):
        for who in order:
            ahead = {'x': '+90 days', 'y': '+80 days'}[who]
            real = {'x': '1 hour', 'y': '10 minutes'}[who]         # y saved later
            sent, submit = server.sql("SELECT clock_timestamp() + %s::interval, clock_timestamp() + %s::interval - %s::interval",
                                      ahead, ahead, real)[0]
            out = server.submit(who, 'd-' + who, [{'id': '00000000-0000-0000-%04d-%012d' % (i, ord(who)), 'table': table, 'key': str(i), 'op': 'update',
                                                   'base_version': 1, 'set': {'a': who}, 'submit_timestamp': submit.isoformat()}],
                                sent.isoformat())
            if out['results'][0]['status'] not in ('accepted', 'conflict'):
                yield str(out)
    for i in (1, 2):
        if server.rows(table)[i]['a'] != 'y':
            yield 'row %d: %s' % (i, server.rows(table)[i])
        if {x['value'] for x in server.conflicts(table)[i]['a']['contenders']} != {'x', 'y'}:
            yield 'row %d: %s' % (i, server.conflicts(table)[i])
    yield from map(str, server.verify(table))


def branch_is_no_knowledge(server, r):
    """2. A form opened after another's commit, on a copy taken before: the copy counts."""
    table = server.table(rows=[dict(FIRST, id=1), dict(FIRST, id=2)])
    for i, said in ((1, {'b': 'y'}), (2, {'a': 'y'})):
        version = server.one('SELECT esync_checkout(%s, %s)', table, str(i))['version']
        x = Edit('update', TUE, version, 'd0', i, set={'a': 'x'}, user='u0')
        server.submit('u0', 'd0', [event_of(table, i, x, MON)])
        now = server.one("SELECT to_json(clock_timestamp() + interval '6 s')")
        y = event_of(table, i, Edit('update', WED, version, 'd1', i, document=dict(FIRST, **said), user='u1'))
        y['branch_timestamp'] = now
        server.submit('u1', 'd1', [y])
    rows, conflicts = server.rows(table), server.conflicts(table)
    if (rows[1]['a'], rows[1]['b']) != ('x', 'y') or 1 in conflicts:
        yield 'a stale field of the document reads as a revert: %s %s' % (rows[1], conflicts.get(1))
    if rows[2]['a'] != 'y' or {x['value'] for x in conflicts.get(2, {}).get('a', {'contenders': ()})['contenders']} != {'x', 'y'}:
        yield 'not reported: %s %s' % (rows[2], conflicts.get(2))


def check_constraint(server, r):
    """8. CHECK (a <= b): the second is rejected, whole, and kept; which it is depends on the order, as the docs say."""
    table = server.table(rows=[{'id': i, 'a': 1, 'b': 5} for i in (1, 2)], columns='a int, b int, CHECK (a <= b)')
    says = {'x': {'a': 4}, 'y': {'b': 2}}
    for i, order, want in ((1, 'xy', (4, 5)), (2, 'yx', (1, 2))):
        for n, who in enumerate(order):
            edit = Edit('update', TUE + (who == 'y') * HOUR, 1, 'd-' + who, i, set=says[who], user=who)
            got = server.submit(who, 'd-' + who, [event_of(table, i, edit)])['results'][0]
            if n == 0 and got['status'] != 'accepted' or n == 1 and (got['status'], got.get('code')) != ('rejected', 'constraint'):
                yield '%s of %s: %s' % (who, order, got)
        row = server.rows(table)[i]
        if (row['a'], row['b']) != want:
            yield 'row %d: %s' % (i, row)
        kept = server.sql("SELECT code, event->'set' FROM esync_rejected(%s) WHERE aggregate_id = %s", table, str(i))
        if kept != [('constraint', says[order[1]])]:
            yield 'rejected: %s' % kept
    yield from map(str, server.verify(table))


def json_path(server, r):
    """10. The whole object against a path in it: atomic columns clash as a whole."""
    yield from example([Does('x', WED, {'a': {'p': 1, 'q': 1}}), Does('y', TUE, {'a': {'p': 2, 'q': 0}})],
                       {'a': {'p': 1, 'q': 1}}, {'a': [{'p': 1, 'q': 1}, {'p': 2, 'q': 0}]},
                       first={'a': {'p': 0, 'q': 0}, 'b': 'b0', 'c': 'c0'}, columns='a jsonb, b text, c text', plain=False)(server, r)


TITLE = dict(columns='a text, b text, c text', first={'a': 'first', 'b': 'note', 'c': None})

ALL = {
    'the example': example([Does('A', WED, {'a': 'you', 'b': 'n1'}, branch=MON), Does('B', THU, {'a': 'me'}, branch=TUE)],
                           {'a': 'me', 'b': 'n1'}, {'a': ['you', 'me']}, **TITLE),
    'the example, whole documents': example([Does('A', WED, {'a': 'you', 'b': 'n1'}, branch=MON, whole=True),
                                             Does('B', THU, {'a': 'me'}, branch=TUE, whole=True)],
                                            {'a': 'me', 'b': 'n1'}, {'a': ['you', 'me']}, **TITLE),
    '1 intervals that do not overlap': example([Does('u0', TUE, {'a': 'x'}, branch=MON), Does('u1', THU, {'a': 'y'}, branch=WED)],
                                               {'a': 'y'}, {'a': ['x', 'y']}),
    '2 branch is no knowledge': branch_is_no_knowledge,
    '3 values that return': example([Does('u0', TUE, {'a': 'x'}), Does('u2', WED, {'a': 'a0'}, saw='u0'), Does('u1', MON + HOUR, {'a': 'y'})],
                                    {'a': 'a0'}, {'a': ['a0', 'y']}),
    '3 values that return, whole documents': example(
        [Does('u0', TUE, {'a': 'x'}, whole=True), Does('u2', WED, {'a': 'a0'}, saw='u0', whole=True), Does('u1', THU, {'a': 'y'}, whole=True)],
        {'a': 'y'}, {'a': ['a0', 'y']}),
    '4 a slow clock': example([Does('u1', TUE, {'a': 'y'}), Does('u0', TUE - 45 * SECOND, {'a': 'x'}, saw='u1')], {'a': 'x'}, {}),
    '5 fast clocks': fast_clocks,
    '6 equal stamps': example([Does('u1', TUE, {'a': 'x'}), Does('u0', TUE, {'a': 'y'})], {'a': 'x'}, {'a': ['x', 'y']}),
    '6 equal stamps of three': example([Does('u1', TUE, {'a': 'x'}), Does('u0', TUE, {'a': 'y'}), Does('u2', TUE, {'b': 'z'})],
                                       {'a': 'x', 'b': 'z'}, {'a': ['x', 'y']}),
    '6 equal stamps, one of no device': example([Does('u1', TUE, {'a': 'x'}, device=''), Does('u0', TUE, {'a': 'y'})], {'a': 'y'}, {'a': ['x', 'y']},
                                                batches=False),
    '7 a hard delete keeps its stamp': example([Does('u0', TUE, {'a': 'x'}), Does('u1', WED, op='delete')], {}, {None: []}, gone=True),
    '7 whenever it was saved': example([Does('u0', WED, {'a': 'x'}), Does('u1', TUE, op='delete')], {}, {None: []}, gone=True),
    '7 a soft delete': example([Does('u0', TUE, {'a': 'x'}), Does('u1', WED, op='delete')], {'a': 'x', 'deleted_at': iso(WED).replace('.000000', '')},
                               {None: []}, tombstone=True),
    '7 restored by one who saw both': example([Does('u0', TUE, {'a': 'x'}), Does('u1', WED, op='delete', saw='u0'), Does('u2', THU, op='restore', saw='u1')],
                                              {'a': 'x', 'b': 'b0'}, {}),
    '8 a check of two columns': check_constraint,
    '9 defaults never beat values': example([Does('u0', WED, {'a': '1'}, op='create'), Does('u1', TUE, {'b': '2'}, op='create')],
                                            {'a': '1', 'b': '2'}, {}, first=None),
    '9 two creates that clash': example([Does('u0', WED, {'a': '1'}, op='create'), Does('u1', TUE, {'a': '2', 'b': '2'}, op='create')],
                                        {'a': '1', 'b': '2'}, {'a': ['1', '2']}, first=None),
    '10 a document and a path in it': json_path,
}
