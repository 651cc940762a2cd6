"""The same queues of devices, reconnecting in another order: the same table, conflicts and histories.

No model: two tables are filled by one script.  Between two decisions the
devices come in any order, each with its queue in its own.  A device may pull
what is there after a decision, so what it had seen is the same in both.
"""
import json

import psycopg2

from model import Edit
from plays import FIRST, SECOND, TICKS
from server import event_of

DEVICES, STRETCHES, EACH = 3, 3, 4
COLUMNS = 'a text, b text, c jsonb'          # no defaults: who came first had them, if the others are undone


class Script:
    """What everybody does, and when: it names versions by the stretch after which they were pulled."""

    def __init__(self, r, rows, policy):
        self.r = r
        # left out: what a policy decided once is another thing than what was not decided, for undos, for who pulled it,
        # for deletes on which the same device goes on, and for places inside of a column
        self.open = policy == 'merge'
        self.keys = range(1, rows + 1)
        self.there = rows // 3 * 2              # the others are to be created
        self.stretches = []
        pulled = {(d, key): 0 for d in range(DEVICES) for key in self.keys}
        created = set()
        seq, now = 0, TICKS
        for n in range(STRETCHES):
            queues = {d: [] for d in range(DEVICES)}
            for d, key in sorted(pulled):
                if n and self.open and r.random() < 0.5:
                    pulled[d, key] = n
                for _ in range(r.randint(0, EACH) // 2):
                    seq, now = seq + 1, now + r.choice([0, 1, 10]) * SECOND
                    nothing = key > self.there and not any(k == key and m < pulled[d, key] for _, k, m in created)
                    unknown = nothing and not any((d, key) == x[:2] for x in created)
                    created.add((d, key, n))
                    op = 'create' if unknown else r.choices(['update', 'delete', 'restore', 'save'], [12, 2, 1, 1] if self.open else [1, 0, 0, 0])[0]
                    if op == 'save' and nothing:
                        op = 'update'           # with base_version 0 it would say that there is no row
                    queues[d].append((key, op, self.some_values(), now + r.choice([0, 0, -45, 15]) * SECOND, pulled[d, key], seq))
            for queue in queues.values():
                r.shuffle(queue)
                queue.sort(key=lambda e: e[5])
            decisions = [self.decision(key, [e for q in queues.values() for e in q if e[0] == key]) for key in self.keys]
            self.stretches.append((queues, [d for d in decisions if d]))

    def value(self):
        return self.r.choice([None, 'same', 'a0', 'v%d' % self.r.randrange(100)])

    def some_values(self):
        r = self.r
        values = {f: self.value() for f in r.sample(['a', 'b'], r.choice([0, 1, 2]))}
        if not values and not self.open:
            values['b'] = self.value()
        if self.open and (not values or r.random() < 0.5):
            values['c'] = r.choice([None, 5, {}]) if r.random() < 0.2 else {m: r.choice([1, 2, {'x': r.randrange(3)}, {'y': 1}]) for m in r.sample('pqr', 2)}
        return values

    def decision(self, key, edits):
        """At the end of a stretch: an event is undone, all conflicts of the row, or a field, are decided."""
        how = self.r.random()
        edits = [e for e in edits if e[1] == 'update']      # left out: a birth is not undone where anybody edited the row since, whatever he had seen
        if how < 0.3 and edits and self.open:
            return key, 'undo', self.r.choice(edits)[5]
        if how < 0.45:
            return key, 'resolve', '"last_write_wins"'
        if how < 0.6:
            return key, 'resolve', json.dumps({'a': {'value': self.value()}})


class Run:
    """A script, with the devices in one order."""

    def __init__(self, server, script, r, policy, tombstone, groups):
        self.server, self.script, self.r, self.policy = server, script, r, policy
        self.table = server.table(tombstone, [dict(FIRST, id=i, c={'p': 1, 'q': {'x': 0}}) for i in script.keys if i <= script.there], COLUMNS,
                                  ", json_merge => '{c}', on_conflict => '%s'%s" % (policy, ", groups => '%s'" % json.dumps(groups) if groups else ''))
        self.refused = set()
        self.heads = []
        self.note_heads()

    def note_heads(self):
        raw = self.server.events(self.table)
        self.heads.append({key: raw[key][-1].version if key in raw else int(key <= self.script.there) for key in self.script.keys})

    def stretch(self, n):
        """The devices come, some with the first half of their queue first; the others, then, with what they have."""
        queues, decisions = self.script.stretches[n]
        parts = []
        for d, queue in queues.items():
            cut = self.r.randint(0, len(queue))
            parts.append((self.r.random(), d, queue[:cut]))
            parts.append((1 + self.r.random(), d, queue[cut:]))
        for _, d, part in sorted(parts, key=lambda x: x[0]):
            if part:
                self.send(d, part)
        yield 'edits'
        for key, how, what in decisions:
            self.decide(key, how, what)
        self.note_heads()
        yield 'decisions'

    def send(self, d, part):
        events = []
        for key, op, said, submit, pulled, seq in part:
            edit = Edit(op, submit, self.heads[pulled][key], 'd%d' % d, seq, set=said if op in ('create', 'update', 'save') else None)
            events.append(event_of(self.table, key, edit))
        for (key, op, *_, seq), got in zip(part, self.server.submit('u%d' % d, 'd%d' % d, events)['results']):
            if got['status'] == 'rejected':
                self.refused.add((key, op, seq, got['code']))

    def decide(self, key, how, what):
        raw = self.server.events(self.table).get(key, [])
        if how == 'undo':
            for e in raw:
                if e.seq == what:
                    self.server.one('SELECT esync_undo(%s)', e.event_id)
        elif raw:
            try:
                self.server.one('SELECT esync_resolve_row(%s, %s, %s)', self.table, str(key), what)
            except psycopg2.errors.NoDataFound as x:    # the row is gone
                self.refused.add((key, how, what, x.pgcode))

    def outcome(self):
        """What must not depend on the order: events are named by device and number, decisions by their place."""
        s = self.server
        who = {}

        def value(x):
            return json.dumps(x, sort_keys=True)

        for of_row in s.events(self.table).values():
            decisions = [e for e in of_row if e.kind == 'Resolved']
            who.update((e.event_id, (e.device, e.seq) if e.kind != 'Resolved' else decisions.index(e)) for e in of_row)
        rows = {key: {f: v if f != 'deleted_at' else v is not None for f, v in row.items()} for key, row in s.rows(self.table).items()}
        if self.policy != 'merge':
            return rows, s.conflicts(self.table), self.refused      # how often a policy decides is a matter of the order
        conflicts = {(key, f): (c['kind'], str(c['base_value']), value(c['shown_value']), sorted(str(who[x['event_id']]) for x in c['contenders']))
                     for key, of_row in s.conflicts(self.table).items() for f, c in of_row.items()}
        history = sorted(str((k, field, who[e], value, {'lost': 'superseded'}.get(status, status))) for k, field, e, value, status in s.sql(
            "SELECT k, h.field, h.event_id, h.value, h.status FROM unnest(%%s::bigint[]) k, LATERAL field_history('%s', k) h WHERE h.field <> 'c' AND h.field <> 'deleted_at'" % self.table,
            list(self.script.keys)))
        return rows, conflicts, self.refused, history


def run(server, r, scripts):
    for _ in range(scripts):
        policy = r.choice(['merge', 'merge', 'last_write_wins'])
        script = Script(r, 9, policy)
        tombstone, groups = r.random() < 0.5, {'pair': ['a', 'b']} if r.random() < 0.3 else {}
        runs = [Run(server, script, r, policy, tombstone, groups) for _ in range(2)]
        for n in range(STRETCHES):
            for after in zip(*[x.stretch(n) for x in runs]):
                one, other = [x.outcome() for x in runs]
                if one != other:
                    for what, a, b in zip(('rows', 'conflicts', 'rejections', 'histories'), one, other):
                        if a != b:
                            differs = [(k, a.get(k), b.get(k)) for k in sorted(set(a) | set(b), key=str) if a.get(k) != b.get(k)] if isinstance(a, dict) else sorted(set(a) ^ set(b), key=str)
                            yield '%s%s: after the %s of stretch %d the %s of %s and %s differ: %s' % (
                                policy, ' tombstone' if tombstone else '', after[0], n, what, runs[0].table, runs[1].table, differs[:6])
                    break
            else:
                continue
            break
        else:
            for x in runs:
                for problem in server.verify(x.table):
                    yield 'esync_verify of %s: %s' % (x.table, problem)
                server.sql('DROP TABLE %s' % x.table)
