"""Edits in the state machine: sent, in plain SQL, sent again, given up."""
import copy
import json

import psycopg2

import checks
from model import HEAD, Edit, Rejected
from plainsql import form
from server import COLUMNS, event_of, iso
from plays import SECOND

DEVICES = 3
LATE = (0, 0, -45, 15)          # seconds by which a device's clock is off


class Kept:
    """An edit that was rejected, as esync_rejected tells of it."""

    def __init__(self, rejected_id, edit, sent, code):
        self.id = rejected_id
        self.edit = edit
        self.sent = sent
        self.code = code
        self.tries = 1
        self.status = 'open'


class Edits:
    """The steps of a Machine by which rows are edited."""

    def new_seq(self):
        self.server.seqs = getattr(self.server, 'seqs', 0) + 1
        return self.server.seqs

    def value(self, row, field=None):
        return self.r.choice(['same', 'a0', None, 'v%d' % row.tick, 'v%d' % self.r.randrange(1000)])

    def some_values(self, row):
        return {f: self.value(row, f) for f in self.r.sample(['a', 'b', 'c'], self.r.choice([1, 1, 2]))}

    def some_edit(self, row):
        """What a device did with its copy of the row, which may be an old one; it creates what it never saw."""
        r, d = self.r, self.r.randrange(DEVICES)
        if r.random() < 0.4:
            row.base[d] = row.agg.head()
        edit = Edit('create', row.submit() + r.choice(LATE) * SECOND, row.base[d], 'm%d' % d, self.new_seq(), user='u%d' % d)
        shown = row.agg.shown_at(edit.base, edit)[0]
        op = edit.op = r.choices(['update', 'delete', 'restore', 'save', 'create'], [24, 4, 2, 2, 1] if shown else [0, 0, 0, 1, 3])[0]
        if op == 'save' and edit.base == 0 and shown:
            op = edit.op = 'update'     # a save with base_version 0 is a create
        if op in ('create', 'update', 'save'):
            edit.set = self.some_values(row)
        if op == 'update' and shown and r.random() < 0.3:
            edit.document, edit.set = dict(shown, **edit.set), None
        return edit

    def decided_at(self, row, e):
        """When the policy decided about an edit, if it did."""
        return self.now(row) if self.policy not in ('merge', 'reject') and row.agg.in_conflict(e) else None

    # ----------------------------------------------------------- by a device

    def step_submit(self, row):
        edit = self.some_edit(row)
        sent = event_of(self.table, row.key, edit)
        yield '%r' % edit
        yield from self.hold(row, edit, sent, lambda: self.server.submit(edit.user, edit.device, [sent])['results'][0])

    def hold(self, row, edit, sent, send, kept=None):
        """Does the same to the model, and holds the answer against it."""
        agg, code, e, decision = row.agg, None, None, None
        try:
            e = agg.accept(edit)
        except Rejected as x:
            code = str(x)
        clashes = agg.in_conflict(e) if e else set()
        got = send()
        if e is not None:
            try:
                decision = agg.follow_policy(e, self.decided_at(row, e))
            except Rejected as x:
                code = str(x)
        if code is not None:
            yield from self.refused(row, edit, sent, code, got, kept)
            return
        if kept:
            kept.status = 'closed'
        want = 'conflict' if clashes else 'accepted'
        if got['status'] != want:
            yield None, 'answers %s, not %s' % (got, want)
        elif got['version'] != agg.head():
            yield None, 'answers version %s, not %s: %s' % (got['version'], agg.head(), got)
        elif {c['field'] for c in got.get('conflicts', [])} != clashes:
            yield None, 'answers conflicts %s, not of %s' % (got.get('conflicts'), clashes)
        elif {c.get('resolution') for c in got.get('conflicts', [])} - {self.policy if decision else None}:
            yield None, 'answers conflicts %s of policy %s' % (got.get('conflicts'), self.policy)
        elif got.get('row') is not None and checks.plain(got['row']) != agg.row():
            yield None, 'answers row %s, not %s' % (got['row'], agg.row())

    def refused(self, row, edit, sent, code, got, kept):
        if (got['status'], got.get('code')) != ('rejected', code):
            yield None, 'answers %s, not %s' % (got, code)
            return
        if kept is None:
            row.kept[sent['id']] = Kept(got['rejected_id'], edit, sent, code)
            return
        kept.tries += 1
        kept.code = code
        if got['rejected_id'] != kept.id:
            yield None, 'is kept as %d, not %d' % (got['rejected_id'], kept.id)

    # -------------------------------------------------------- what was refused

    def step_kept(self, row):
        """Something that was rejected comes again, as it was or amended, or is given up."""
        r, s = self.r, self.server
        found = [k for k in row.kept.values() if k.status == 'open']
        if not found:
            yield from self.step_submit(row)
            return
        kept = r.choice(found)
        how = 'discard' if kept.edit.base < row.base[int(kept.edit.device[1:])] and kept.edit.base == 0 else r.choice(['send', 'retry', 'retry', 'amend', 'amend', 'discard'])
        yield '%s %r, which was %s' % (how, kept.edit, kept.code)
        if how == 'discard':
            s.sql('SELECT esync_discard(%s)', kept.id)
            kept.status = 'discarded'
        elif how == 'send':
            yield from self.hold(row, kept.edit, kept.sent, lambda: s.submit(kept.edit.user, kept.edit.device, [kept.sent])['results'][0], kept)
        elif how == 'retry':
            yield from self.hold(row, kept.edit, kept.sent, lambda: s.one('SELECT esync_retry(%s)', kept.id), kept)
        else:
            yield from self.amend(row, kept)

    def amend(self, row, kept):
        """Tries it with the head as its base; if it is taken, the device hears of that when it sends the former one."""
        edit = copy.copy(kept.edit)
        edit.base = row.agg.head()
        if edit.op == 'create' and edit.base:
            edit.op = 'save'
        sent = dict(event_of(self.table, row.key, edit), id=kept.sent['id'])
        got = []
        yield from self.hold(row, edit, sent, lambda: got.append(self.server.one('SELECT esync_retry(%s, %s)', kept.id, json.dumps(sent))) or got[0], kept)
        if kept.status == 'closed':
            row.base[int(edit.device[1:])] = edit.base
        if kept.status == 'closed' and self.r.random() < 0.5:
            again = self.server.submit(kept.edit.user, kept.edit.device, [kept.sent])['results'][0]
            if not again.get('duplicate') or any(again.get(k) != got[0].get(k) for k in ('status', 'version', 'effective_timestamp')):
                yield None, 'amended it was %s; sent again as it was: %s' % (got[0], again)

    def check_kept(self):
        """esync_rejected tells of all that was refused, and of nothing else."""
        found = {}
        for whole, in self.server.sql("SELECT to_jsonb(x) FROM esync_rejected(%s, 'all') x", self.table):
            found[whole['client_event_id']] = whole
        for row in self.rows.values():
            for i, kept in row.kept.items():
                got = found.pop(i, None)
                want = {'rejected_id': kept.id, 'status': None, 'code': kept.code, 'tries': kept.tries, 'user_id': kept.edit.user,
                        'device_id': kept.edit.device, 'aggregate_id': str(row.key)}
                if got is None:
                    yield row, 'esync_rejected lacks %r' % kept.edit
                    continue
                wrong = {k: (got[k], v) for k, v in want.items() if k != 'status' and got[k] != v}
                if wrong:
                    yield row, 'esync_rejected of %r: %s' % (kept.edit, wrong)
                if any(got['event'].get(k) != v for k, v in kept.sent.items()):
                    yield row, 'esync_rejected has %s, not %s' % (got['event'], kept.sent)
        for status in ('open', 'closed', 'discarded'):
            have = {i for i, in self.server.sql('SELECT rejected_id FROM esync_rejected(%s, %s)', self.table, status)}
            for row in self.rows.values():
                for kept in row.kept.values():
                    if (kept.id in have) != (kept.status == status):
                        yield row, 'esync_rejected: %r is %s%s' % (kept.edit, '' if kept.id in have else 'not ', status)
        for whole in found.values():
            yield self.rows[int(whole['aggregate_id'])], 'esync_rejected has %s' % whole

    # ----------------------------------------------------------------- in SQL

    def step_sql(self, row):
        """A statement, with the base in its context or without."""
        agg, r = row.agg, self.r
        if agg.row() is None:
            yield from self.insert(row)
            return
        base = HEAD if r.random() < 0.4 else r.randint(max(agg.head() - 3, 1), agg.head()) if agg.head() else HEAD
        then = agg.upto(agg.head() if base is HEAD else base)
        deleted = agg.state(then)[1] if then else False
        op = r.choices(['update', 'restore' if deleted else 'delete'], [6, 1])[0]
        if op == 'restore' and not self.tombstone:
            op = 'update'               # there is nothing in SQL that says so
        edit = Edit(op, row.submit() + r.choice(LATE) * SECOND, base, r.choice([None, 'web']), user='sql')
        if op == 'update':
            edit.set = self.some_values(row)
        edit.mark = edit.submit if op == 'delete' and self.tombstone else None
        yield 'SQL %r' % edit
        yield from self.run_sql(row, edit, self.statement(row, edit, then))

    def statement(self, row, edit, then):
        """All columns as the form has them that its author fills in, or those that he changed."""
        agg = row.agg
        if edit.op == 'delete' and not self.tombstone:
            return 'DELETE FROM %s WHERE id = %%s' % self.table, [row.key]
        values = dict(edit.set or {})
        if edit.op != 'update':
            values = {'deleted_at': iso(edit.mark)}
        elif then and agg.row(then) is not None and self.r.random() < 0.5:
            values = form(agg, Edit(edit.op, edit.submit, then[-1].version, set=edit.set))
        return 'UPDATE %s SET %s WHERE id = %%s' % (self.table, ', '.join('%s = %%s' % f for f in values)), list(values.values()) + [row.key]

    def insert(self, row):
        edit = Edit('create', row.submit(), user='sql', set={f: self.value(row, f) for f in COLUMNS})
        yield 'SQL %r' % edit
        yield from self.run_sql(row, edit, ('INSERT INTO %s (id, a, b, c) VALUES (%%s, %%s, %%s, %%s)' % self.table, [row.key] + list(edit.set.values())))

    def run_sql(self, row, edit, statement):
        agg, s, code, got, e = row.agg, self.server, None, None, None
        try:
            e = agg.accept(edit)
        except Rejected as x:
            code = str(x)           # of a constraint
        if edit.op == 'delete' and e and agg.row() is not None and not self.tombstone:
            agg.events.remove(e)        # an unseen restore is later: then it is, as documented, a DELETE like any other
            edit.base = HEAD
            e = agg.accept(edit)
        s.sql('BEGIN')
        try:
            s.context(edit.user, edit.device, edit.submit, None if edit.base is HEAD else edit.base)
            s.sql(statement[0], *statement[1])
            s.sql('COMMIT')
        except psycopg2.Error as x:
            s.sql('ROLLBACK')
            got, self.error = x.pgcode, str(x)
        if e is not None:
            try:
                agg.follow_policy(e, self.decided_at(row, e))
            except Rejected:
                code = 'YS005'
        if got != code:
            yield None, 'the statement ends with %s, not %s' % (self.error if got else None, code)
