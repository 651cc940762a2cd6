"""A random play told as SQL that can be pasted into psql, for the tests that run without a model."""
import json

import psycopg2

from server import Failure

EVENT = 'FROM esync.event JOIN esync.tracked_table USING (table_id) WHERE relation = %s::regclass AND aggregate_id = %s AND version = %d'
CODES = ('not_found', 'constraint', 'depends_on', 'base_unknown', 'conflict')     # with which an event may be rejected here
FAULTS = ('40', '42', '57', '58', 'XX')         # classes of errors that a single user must not meet


def literal(value):
    """A value as SQL has it; objects and arrays as JSON."""
    if value is None:
        return 'NULL'
    if isinstance(value, (dict, list)):
        value = json.dumps(value)
    return json.dumps(value) if isinstance(value, int) else "'%s'" % value.replace("'", "''")


def context(**said):
    """The call of esync_context for the transaction that follows."""
    return 'SELECT esync_context(%s)' % ', '.join('%s => %s' % (k, literal(v)) for k, v in said.items())


def transaction(*statements, end='COMMIT'):
    return '; '.join(('BEGIN',) + statements + (end,))


class Story:
    """A table, and what was done to it."""

    def __init__(self, server, r, name):
        server.tables += 1
        self.server, self.r = server, r
        self.table = '%s%d' % (name, server.tables)
        self.told = []
        self.seq = 0

    def run(self, text):
        """Runs SQL, and says what came of it; an error that a user may get is no more than told."""
        self.told.append(text + ';')
        try:
            return self.server.sql(text)
        except psycopg2.Error as x:
            self.told[-1] += '    -- %s' % x.pgcode
            if x.pgcode is None or x.pgcode.startswith(FAULTS):
                raise
            self.server.sql('ROLLBACK')
            return None

    def submit(self, user, device, events):
        """Runs a batch; fails where an event is rejected for a reason that there cannot be."""
        batch = {'device_id': device, 'events': events}
        out = self.run('SELECT esync_submit(%s, %s)' % (literal(batch), literal({'user_id': user})))
        for got in out[0][0]['results'] if out else ():
            self.told[-1] += '    -- %s' % got.get('code', got['status'])
            if got['status'] == 'rejected' and got['code'] not in CODES:
                raise Failure('rejected: %s' % got)

    def new_seq(self):
        self.seq += 1
        return self.seq

    def undo(self, key, version):
        """Takes back an event, if it may be."""
        self.run('SELECT esync_undo(event_id) ' + EVENT % (literal(self.table), literal(str(key)), version))

    def resolve(self, key, field, strategy):
        """Decides an open conflict."""
        self.run('SELECT esync_resolve(conflict_id, %s) FROM esync_conflicts(%s) WHERE aggregate_id = %s AND field IS NOT DISTINCT FROM %s' % (
            literal(strategy), literal(self.table), literal(str(key)), literal(field)))

    def end(self):
        """Nothing is left of a play that went well, or all others would have to look past its events."""
        self.server.sql("SELECT esync_disable('{0}', true); DROP TABLE {0}".format(self.table))

    def fault(self, wrong):
        """What is wrong, and how one gets there."""
        return '%s, seed %d: %s\n      %s' % (self.table, self.server.opts.seed, wrong, '\n      '.join(self.told))

    def play(self, steps):
        """Takes so many steps, until something is wrong.  Yields what is, at most once."""
        try:
            self.begin()
            for n in range(steps):
                wrong = list(self.step(n == steps - 1))
                if wrong:
                    yield self.fault('\n      '.join(wrong))
                    return
            self.end()
        except (psycopg2.Error, Failure) as x:
            yield self.fault(str(x).strip())
            self.server.again()
