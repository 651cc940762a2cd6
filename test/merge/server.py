"""The real extension as the tests see it: tables, batches, and what raw events say.

The fold is computed here from the rows of esync.event, which a superuser may
read, not by functions of esync.
"""
import datetime
import json
import time
import uuid

import psycopg2

from model import NEVER, REMOVED, put

COLUMNS = ('a', 'b', 'c')
BATCH = 500                     # esync.batch_max_events
ZERO = datetime.datetime(2025, 11, 17, tzinfo=datetime.timezone.utc)    # a Monday; the model's time 0


def iso(us):
    """The model's time as a timestamp."""
    return None if us is None else (ZERO + datetime.timedelta(microseconds=us)).isoformat(timespec='microseconds')


def us(text):
    """A timestamp as JSON has it, in the model's time."""
    if text is None:
        return None
    if text == '-infinity':
        return NEVER
    if '.' in text:             # fromisoformat wants three digits or six
        head, rest = text.split('.')
        n = len(rest) - len(rest.lstrip('0123456789'))
        text = head + '.' + rest[:n].ljust(6, '0') + rest[n:]
    return (datetime.datetime.fromisoformat(text.replace('Z', '+00:00')) - ZERO) // datetime.timedelta(microseconds=1)


class Failure(Exception):
    pass


class Raw:
    """One row of esync.event."""

    def __init__(self, event_id, aggregate_id, version, kind, base, device, seq, submit, effective, high, flags, patch, payload, user, client, meta):
        self.event_id = event_id
        self.aggregate_id = aggregate_id
        self.version = version
        self.kind = kind
        self.base = base
        self.device = device
        self.seq = seq
        self.submit = us(submit)
        self.effective = us(effective)
        self.high = us(high)
        self.flags = flags
        self.ops = {op['path'][1:]: REMOVED if op['op'] == 'remove' else op['value'] for op in patch}
        self.patch = patch
        self.payload = payload
        self.user = user
        self.client = client
        self.meta = meta or {}

    def whole(self):
        return self.kind == 'Created' or (self.kind == 'Baseline' and not self.flags & 32)

    def is_ground(self):
        return self.kind == 'Baseline' and self.effective == NEVER

    def sets(self):
        """Column -> value of what the author set."""
        return dict(self.payload or {}) if self.whole() and not self.patch else self.ops

    def defaults(self):
        return dict(self.payload or {}) if self.whole() and self.patch and self.version == 1 else {}

    def life(self):
        """Its word on the row's life: True, False, or None where it has none."""
        if self.kind == 'Resolved':
            return None if 'deleted' not in self.meta else not self.meta['deleted']
        if self.kind == 'Baseline':
            return True if self.whole() else None
        return {'Created': True, 'Restored': True, 'Deleted': False}.get(self.kind)

    def takes_row(self):
        return self.meta.get('hard', False) if self.kind == 'Resolved' else self.kind == 'Deleted' and not self.patch

    def stamp(self):
        return (self.effective, self.device is not None, (self.device or '').encode(), self.seq or 0, self.event_id)

    def __repr__(self):
        return 'v%d %s %s of %s/%s base %d eff %s flags %d' % (
            self.version, self.kind, json.dumps(self.patch), self.device, self.seq, self.base, self.effective, self.flags)


def fold(events):
    """The row that the raw events say; None: gone or never there."""
    edits, word = [], None
    for e in events:
        low = (NEVER - 1, False, b'', 0, e.event_id)
        edits += [(low, f, v) for f, v in e.defaults().items()] + [(e.stamp(), f, v) for f, v in e.sets().items()]
        if e.life() is not None and (word is None or e.stamp() > word.stamp()):
            word = e
    if word is None or (not word.life() and word.takes_row()):
        return None
    row = {}
    for _, path, value in sorted(edits, key=lambda x: x[0]):
        put(row, path.split('/'), value)
    return row


class Server:
    def __init__(self, opts):
        self.opts = opts
        self.tables = 0
        self.connect()

    def connect(self):
        opts = self.opts
        self.db = psycopg2.connect(host=opts.host, port=opts.port, user=opts.user, dbname=opts.database)
        self.db.autocommit = True
        self.sql("SET TimeZone = 'UTC'; SET client_min_messages = warning")

    def sql(self, text, *args):
        with self.db.cursor() as c:
            c.execute(text, args or None)
            return c.fetchall() if c.description else None

    def one(self, text, *args):
        return self.sql(text, *args)[0][0]

    def again(self):
        """After an error, which may have been the server's last."""
        for _ in range(50):
            try:
                if self.db.closed:
                    self.connect()
                self.sql('ROLLBACK')
                return
            except psycopg2.Error:
                self.db.close()
                time.sleep(0.2)
        raise Failure('the server does not come back')

    # ---------------------------------------------------------------- tables

    def table(self, tombstone=False, rows=(), columns=None, options=''):
        """A new tracked table; rows: those that are there before it is tracked."""
        self.tables += 1
        name = 'play%d' % self.tables
        self.sql("CREATE TABLE %s (id bigint PRIMARY KEY, %s%s)" % (
            name, columns or "a text, b text DEFAULT 'db', c text", ', deleted_at timestamptz' if tombstone else ''))
        if rows:
            self.sql("INSERT INTO %s SELECT r.* FROM jsonb_populate_recordset(NULL::%s, %%s) r" % (name, name), json.dumps(list(rows)))
        if tombstone:
            options += ", tombstone => 'deleted_at'"
        self.sql("SELECT esync_enable('%s'%s)" % (name, options))
        return name

    def context(self, user=None, device=None, submit=None, base=None, branch=None):
        self.sql('SELECT esync_context(user_id => %s, device_id => %s, submit_timestamp => %s, base_version => %s, branch_timestamp => %s)',
                 user, device, iso(submit), base, iso(branch))

    def rows(self, table):
        """id -> the row as the table has it."""
        return {i: d for i, d in self.sql("SELECT id, to_jsonb(t) - 'id' FROM %s t" % table)}

    def events(self, table):
        """id -> its raw events by version."""
        found = {}
        for row in self.sql("""SELECT event_id, aggregate_id, version, event_type, base_version, device_id, device_seq,
                to_jsonb(submit_timestamp)#>>'{}', to_jsonb(effective_timestamp)#>>'{}', to_jsonb(effective_high)#>>'{}', flags,
                e.patch, e.payload, e.user_id, e.client_event_id, e.meta
            FROM esync.event_%d e ORDER BY aggregate_id, version""" % self.one(
                'SELECT table_id FROM esync.tracked_table WHERE relation = %s::regclass', table)):
            e = Raw(*row)
            found.setdefault(int(e.aggregate_id), []).append(e)
        return found

    def conflicts(self, table):
        """id -> field -> the open conflict, as a dict."""
        found = {}
        for aggregate, field, whole in self.sql('SELECT aggregate_id, field, to_jsonb(c) FROM esync_conflicts(%s) c', table):
            of_row = found.setdefault(int(aggregate), {})
            if field in of_row:
                raise Failure('two open conflicts of %s.%s' % (aggregate, field))
            of_row[field] = whole
        return found

    def history(self, table, keys):
        """id -> (field, version) -> (value, status)."""
        found = {}
        for i, field, version, value, status in self.sql(
                """SELECT k, h.field, h.version, h.value, h.status FROM unnest(%s::bigint[]) k,
                   LATERAL field_history('{0}', k) h""".format(table), list(keys)):
            found.setdefault(i, {})[field, version] = (value, status)
        return found

    def verify(self, table):
        return self.sql('SELECT aggregate_id, problem, detail FROM esync_verify(%s)', table)

    # --------------------------------------------------------------- batches

    def submit(self, user, device, events, sent_at=None):
        """One batch; the whole answer."""
        batch = {'device_id': device, 'batch_id': str(uuid.uuid4()), 'events': events}
        if sent_at is not None:
            batch['sent_at'] = sent_at
        return self.one('SELECT esync_submit(%s, %s)', json.dumps(batch), json.dumps({'user_id': user}))


def event_of(table, key, edit, branch=None, seq=None):
    """An edit of the model as one event of a batch."""
    e = {'id': str(uuid.uuid4()), 'table': table, 'op': edit.op, 'key': str(key), 'submit_timestamp': iso(edit.submit)}
    if seq is not None or edit.seq is not None:
        e['seq'] = edit.seq if seq is None else seq
    if edit.base is not None:
        e['base_version'] = edit.base
    if edit.shown is not None:
        e['base'] = dict(edit.shown, id=key) if len(edit.shown) == len(COLUMNS) else edit.shown
    if edit.document is not None:
        e['document'] = dict(edit.document, id=key)
    elif edit.set is not None:
        e['set'] = edit.set
    if branch is not None:
        e['branch_timestamp'] = iso(branch)
    if edit.op == 'create':
        del e['key']
        if not edit.base:
            del e['base_version']
        e['document'] = dict(e.get('document') or e.pop('set', {}), id=key)
    return e
