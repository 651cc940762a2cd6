"""Devices with queues of edits, wrong clocks and bad lines, beside an office that issues SQL.

Time passes with each step.  What the server made of the edits is compared
with the model after each batch.
"""
import json

import checks
from model import HEAD, Aggregate, Edit, Rejected
from plays import DEFAULTS, FIRST, SECOND, Sent
from server import COLUMNS, event_of, iso

KEYS = range(1, 9)
GROUND = range(1, 5)            # rows that are there before the table is tracked
STEPS = 60
TOLERANCE = 30 * SECOND        # esync.clock_tolerance


class Device:
    def __init__(self, r, n):
        self.name = 'dev%d' % n
        self.user = 'user%d' % r.randrange(2)
        self.skew = r.choice([0, 0, -25, 20, 300, -90000]) * SECOND
        self.seq = r.randrange(100)
        self.held = dict.fromkeys(GROUND, 1)    # key -> the version of its copy
        self.queue = []                 # (key, Edit, what it says)


class World:
    def __init__(self, server, r):
        self.server = server
        self.r = r
        self.now = 100 * SECOND
        self.tombstone = r.random() < 0.5
        self.table = server.table(self.tombstone, [dict(FIRST, id=i) for i in GROUND])
        self.rows = {i: Aggregate(DEFAULTS, tombstone=self.tombstone) for i in KEYS}
        for i in GROUND:
            self.rows[i].ground(FIRST)
        self.devices = [Device(r, n) for n in range(r.randint(2, 4))]
        self.web = {}                   # key -> the version that a form was opened at
        self.values = 0
        self.log = []

    def value(self):
        self.values += 1
        return self.r.choice(['v%d' % self.values, 'v%d' % self.values, 'same', 'a0', None])

    def some_values(self):
        return {f: self.value() for f in self.r.sample(COLUMNS, self.r.choice([1, 1, 2, 3]))}

    # --------------------------------------------------------------- steps

    def step(self):
        self.now += self.r.randint(1, 20) * SECOND + self.r.randrange(1000)
        d = self.r.choice(self.devices)
        k = self.r.random()
        if k < 0.5:
            self.save(d)
        elif k < 0.7:
            self.pull(d)
        elif k < 0.87:
            yield from self.sync(d)
        elif k < 0.94:
            yield from self.call()
        else:
            yield from self.office()

    def pull(self, d):
        for key in self.r.sample(KEYS, self.r.randint(1, len(KEYS))):
            agg = self.rows[key]
            if agg.events:
                d.held[key] = agg.head()
                self.log.append('%s pulls %d at %d' % (d.name, key, agg.head()))

    def shown(self, d, key):
        """What the device shows: its copy, and what it did itself, sent or not."""
        agg = self.rows[key]
        probe = Edit('update', 0, d.held.get(key, 0), d.name, d.seq + 1)
        values, deleted = agg.shown_at(probe.base, probe)
        for k, edit, said in d.queue:
            if k == key:
                values = dict(values or dict(agg.defaults), **said)
                if edit.op == 'create':
                    values = dict(agg.defaults, **said)
                deleted = {'delete': True, 'update': deleted}.get(edit.op, False)
        return values, deleted

    def save(self, d):
        """One more edit at the end of the queue."""
        key = self.r.choice(KEYS)
        values, deleted = self.shown(d, key)
        if values is None:
            op = self.r.choice(['create', 'save'])
        elif deleted:
            op = self.r.choice(['update', 'restore', 'restore', 'save', 'create', 'delete'])
        else:
            op = self.r.choice(['update'] * 6 + ['save'] * 2 + ['delete', 'delete', 'restore'])
        if op == 'save' and values is not None and not d.held.get(key):
            op = 'update'               # a save with base_version 0 must not find a row
        said = self.some_values() if op in ('create', 'update', 'save') else {}
        d.seq += self.r.choice([1, 1, 3])
        edit = Edit(op, self.now, d.held.get(key, 0), d.name, d.seq, user=d.user)
        how = self.r.random()
        if op == 'create' or (said and how < 0.5):
            edit.set = said
        elif said:
            edit.document = dict(values or {}, **said)
        if op in ('update', 'save', 'delete') and values is not None and not deleted and how > 0.8:
            self.name_base(edit, values, said)
        d.queue.append((key, edit, said))
        self.log.append('%s saves %d: %r' % (d.name, key, edit))

    def name_base(self, edit, values, said):
        """The base as a document, whole or of what is sent, with its version or alone."""
        names = list(COLUMNS) if self.r.random() < 0.5 or edit.document else sorted(set(said) | {self.r.choice(COLUMNS)})
        edit.shown = {f: values[f] for f in names if f in values}
        if self.r.random() < 0.6:
            edit.base = None

    # ----------------------------------------------------------------- sync

    def sync(self, d):
        """Sends the queue, or the beginning of it; sometimes twice."""
        part = d.queue if self.r.random() < 0.7 else d.queue[:self.r.randint(0, len(d.queue))]
        if not part:
            return
        d.queue = d.queue[len(part):]
        cut = self.r.randint(0, len(part)) if self.r.random() < 0.3 else 0
        for some in (part[:cut], part[cut:]):
            if some:
                yield from self.send(d, some)
        yield from self.check_one()
        yield from self.wrong()

    def send(self, d, part):
        batch = []
        for key, edit, _ in part:
            e = event_of(self.table, key, edit)
            e['submit_timestamp'] = iso(edit.submit + d.skew)
            batch.append(e)
            if abs(d.skew) <= TOLERANCE:
                edit.submit += d.skew           # nobody puts it right
        self.log.append('%s sends %s' % (d.name, json.dumps(batch)))
        order = list(range(len(batch)))
        if self.r.random() < 0.3:
            self.r.shuffle(order)
        sent_at = self.server.one("SELECT to_json(clock_timestamp() + %s * interval '1 us')", d.skew)
        out = self.server.submit(d.user, d.name, [batch[i] for i in order], sent_at)
        results = {got['id']: got for got in out['results']}
        if [x['id'] for x in out['results']] != [batch[i]['id'] for i in order]:
            yield 'the results do not stand in the order sent'
        stored = {e.client: e for of_row in self.server.events(self.table).values() for e in of_row}
        for (key, edit, _), e in zip(part, batch):
            yield from self.take(d, key, edit, results[e['id']], stored.get(e['id']))
        if self.r.random() < 0.3:
            yield from self.again(d, batch, results)

    def take(self, d, key, edit, got, stored):
        """One result: the model does the same, and the device may take the row."""
        agg = self.rows[key]
        if stored is not None and abs(d.skew) > TOLERANCE:
            if abs(stored.submit - edit.submit) > 5 * SECOND:
                yield 'submit corrected to %s, not %s' % (stored.submit, edit.submit)
            edit.submit = stored.submit
        try:
            e = agg.accept(edit)
        except Rejected as code:
            if got.get('code') != str(code):
                yield '%s, row %d: %r answers %s, not %s' % (d.name, key, edit, got, code)
            return
        base = e.base if e else edit.base
        sent = Sent(d.user, edit, None, e, agg.in_conflict(e) if e else set(), agg.head(), agg.row(), agg.deleted(),
                    base is not None and agg.sees_others(base, d.name))
        wrong = list(checks.answer(sent, got))
        yield from ('%s, row %d: %r: %s' % (d.name, key, edit, w) for w in wrong)
        if not wrong and (got.get('row') is not None or (base is not None and not sent.with_row)) and self.r.random() < 0.7:
            d.held[key] = got['version']

    def again(self, d, batch, results):
        """The same once more: the same answers, and nothing happens."""
        self.log.append('and again')
        for got in self.server.submit(d.user, d.name, batch)['results']:
            first = results[got['id']]
            if first['status'] == 'rejected':
                continue
            if not got.get('duplicate') or any(got.get(k) != first.get(k) for k in ('status', 'version', 'effective_timestamp', 'row')):
                yield '%s answered %s, and again %s' % (d.name, first, got)

    # ------------------------------------------------------------ single calls

    def call(self):
        """A form: esync_save or esync_delete, with the version at which it was opened, or with none."""
        key = self.r.choice(KEYS)
        agg = self.rows[key]
        if agg.events and self.r.random() < 0.5:
            self.web[key] = agg.head()
            return
        base = self.web.get(key) if self.r.random() < 0.7 else None
        values, deleted = agg.state(agg.upto(agg.head() if base is None else base))
        op = 'delete' if agg.events and self.r.random() < 0.3 else 'save'
        edit = Edit(op, self.now, HEAD if base is None else base, 'web', None, user='web')
        context = json.dumps({'user_id': 'web', 'device_id': 'web', 'submit_timestamp': iso(self.now)})
        if op == 'save':
            edit.document = dict(values or {}, **self.some_values())
            got = self.server.one('SELECT esync_save(%s, %s, %s, context => %s)', self.table,
                                  json.dumps(dict(edit.document, id=key)), base, context)
        else:
            got = self.server.one('SELECT esync_delete(%s, %s::text, %s, context => %s)', self.table, key, base, context)
        self.log.append('web, row %d: %r' % (key, edit))
        before = agg.head()
        e = agg.accept(edit)
        sent = Sent('web', edit, None, e, agg.in_conflict(e) if e else set(), agg.head(), agg.row(), agg.deleted(),
                    agg.sees_others(before if base is None else base, 'web'))
        yield from ('web, row %d: %r: %s' % (key, edit, w) for w in checks.answer(sent, got))
        yield from self.wrong()

    # --------------------------------------------------------------- office

    def office(self):
        """Plain SQL of one who sees the head."""
        key = self.r.choice(KEYS)
        agg = self.rows[key]
        row = agg.row()
        s = self.server
        s.sql('BEGIN')
        s.context('office', None, self.now)
        self.log.append('office, row %d at %d' % (key, self.now))
        if row is None:
            said = {f: self.value() for f in COLUMNS}
            s.sql('INSERT INTO %s (id, a, b, c) VALUES (%%s, %%s, %%s, %%s)' % self.table, key, *said.values())
            agg.accept(Edit('create', self.now, set=said, user='office'))
        elif self.r.random() < 0.25:
            self.office_delete(key, agg, agg.deleted())
        else:
            said = self.some_values()
            s.sql('UPDATE %s SET %s WHERE id = %%s' % (self.table, ', '.join(f + ' = %s' for f in said)), *said.values(), key)
            agg.accept(Edit('update', self.now, set=said, user='office'))
        s.sql('COMMIT')
        yield from self.wrong()

    def office_delete(self, key, agg, deleted):
        if not self.tombstone:
            self.server.sql('DELETE FROM %s WHERE id = %%s' % self.table, key)
        elif deleted:
            self.server.sql('UPDATE %s SET deleted_at = NULL WHERE id = %%s' % self.table, key)
        else:
            self.server.sql('UPDATE %s SET deleted_at = %%s WHERE id = %%s' % self.table, iso(self.now), key)
        agg.accept(Edit('restore' if deleted else 'delete', self.now, user='office', mark=None if deleted else self.now))

    # --------------------------------------------------------------- checks

    def check_one(self):
        """What a checkout gives is what the model shows."""
        key = self.r.choice(KEYS)
        got = self.server.one('SELECT esync_checkout(%s, %s)', self.table, str(key))
        agg = self.rows[key]
        if (got is None) != (not agg.events):
            yield 'checkout of row %d: %s' % (key, got)
        elif got is not None and (got['version'] != agg.head() or got['deleted'] != bool(agg.deleted()) or (
                got['row'] is not None and checks.plain(got['row']) != agg.row())):
            yield 'checkout of row %d: %s, not %s at %d' % (key, got, agg.row(), agg.head())

    def wrong(self):
        for key, what in checks.everything(self.server, self.table, {k: v for k, v in self.rows.items() if v.events}, self.tombstone):
            yield 'row %s: %s\n      events of the model: %s' % (key, what, self.rows[key].events)


def run(server, r, worlds):
    for _ in range(worlds):
        world = World(server, r)
        for _ in range(STEPS):
            wrong = list(world.step())
            if wrong:
                yield from ('%s%s: %s' % (world.table, ' with tombstone' if world.tombstone else '', w) for w in wrong[:3])
                for line in world.log[-6:]:   # XX
                    yield '   ' + line[:1500]
                break
        else:
            server.sql('DROP TABLE %s' % world.table)
