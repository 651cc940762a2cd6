"""Readers who follow esync_changes and fold what they are told: their copy is the table, as each of them may see it.

A random program writes the table: plain and late SQL, batches, undos,
decisions, rows that are touched, that drift and that change keys, savepoints;
under any options, with partitions and triggers.  The readers take pages of any
size at any time, and now and then begin anew with a first load.
"""
import json
import uuid

from server import Failure, Server, iso
from plays import SECOND
from story import Story, context, literal, transaction

KEYS = range(10)
DEVICES = ('d1', 'd2', 'd3')
FIELDS = ('a', 'b', 's', 'x', 'd', 'g1', 'g2', 'ten', 'c')
TOLD = ('id', 'a', 'b', 'd', 'g1', 'g2', 'ten', 'gone', 'seen', 'c')    # neither masked nor excluded nor generated
GRANTED = ('id', 'b', 'd', 'gone', 'seen')
STRATEGIES = ('server_wins', 'client_wins', 'last_write_wins', 'event_sourced')
OBJECTS = ('null', '{}', '{"k": 1}', '{"k": 2}', '{"k": 1, "m": {"n": 1}}', '{"k": 1, "m": {"n": 2}}', '[1, 2]', '{"k": 2, "z": 3}')

COLUMNS = {'id': 'int', 'a': 'text', 'b': 'int', 's': 'text', 'x': 'text', 'd': 'jsonb', 'g1': 'int', 'g2': 'int', 'ten': 'text',
           'gone': 'timestamptz', 'seen': 'timestamptz', 'c': "text DEFAULT 'default'", 'gen': 'int GENERATED ALWAYS AS (b * 2) STORED'}
OTHER_PLACES = ('id', 'ten', 'a', 'b', 'junk', 's', 'x', 'd', 'g1', 'g2', 'gone', 'seen', 'c', 'gen')   # of a partition
TRIGGER = """CREATE FUNCTION {0}_made() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF new.a ~ '^up' THEN new.a := upper(new.a); END IF;
      IF new.b % 7 = 0 THEN new.c := 'seven' || new.b; END IF;
      RETURN new; END $$;
      CREATE TRIGGER made BEFORE INSERT OR UPDATE ON {0} FOR EACH ROW EXECUTE FUNCTION {0}_made()"""


def definition(columns):
    return ', '.join('%s %s%s' % (c, COLUMNS.get(c, 'int'), ' PRIMARY KEY' if c == 'id' else '') for c in columns)


class Reader:
    """Somebody with a cursor and a copy: key -> (version, row, or None where it is gone)."""

    def __init__(self, name, where='true', columns=TOLD, role=None, tenant=None, rows=False):
        self.name, self.where, self.columns, self.role, self.tenant, self.rows = name, where, columns, role, tenant, rows
        self.cursor = None
        self.copy = {}
        self.told = {}          # key -> the changes that came of it

    def table(self, session, table):
        """(key, version, row) of what it may see of the table."""
        return session.sql('SELECT id::text, esync_version(%s, id), to_jsonb(r) FROM (SELECT %s FROM %s WHERE gone IS NULL AND (%s)) r' % (
            literal(table), ', '.join(self.columns), table, self.where))

    def load(self, session, table):
        """Begins anew: a cursor for the present, then the table."""
        self.copy, self.told = {}, {}
        self.cursor = self.page(session, table, 'now', 1)['cursor']
        self.copy = {key: (version, row) for key, version, row in self.table(session, table)}

    def page(self, session, table, cursor, size):
        return session.one('SELECT esync_changes(%s, %s, ARRAY[%s::regclass], NULL, %s, %s)', cursor, size, table, self.tenant, self.rows)

    def follow(self, session, table, r):
        """Reads on until there is no more."""
        more = True
        while more:
            page = self.page(session, table, self.cursor, r.choice([1, 2, 3, 7, 500]))
            if page['reset']:
                raise Failure('%s is reset: %s' % (self.name, page['reason']))
            for change in page['changes']:
                self.take(change)
            self.cursor, more = page['cursor'], page['has_more']

    def take(self, change):
        """Applies one change, which must be newer than what it holds, unless the copy is of a first load."""
        key = change['aggregate_id']
        version, row = self.copy.get(key, (0, None))
        told = self.told.setdefault(key, [])
        if told and change['version'] <= told[-1]['version']:
            raise Failure('%s is told version %d of row %s after version %d' % (self.name, change['version'], key, told[-1]['version']))
        if change['deleted'] and change['set']:
            raise Failure('%s is told values of a row that is gone: %s' % (self.name, change))
        told.append(change)
        if change['version'] > version:
            row = None if change['deleted'] else change['set'] if self.rows else dict(row or {}, **change['set'])
            self.copy[key] = (change['version'], row)

    def wrong(self, session, table):
        """Where its copy is not the table, which the session may read as a whole."""
        want = {key: row for key, _, row in self.table(session, table)}
        have = {key: row for key, (_, row) in self.copy.items() if row is not None}
        for key in sorted(set(want) | set(have)):
            mine, its = have.get(key), want.get(key)
            if mine != its:
                if mine and its:
                    differ = [c for c in self.columns if mine.get(c) != its.get(c)]
                    mine, its = ({c: row.get(c) for c in differ} for row in (mine, its))
                yield '%s has %s of row %s, which is %s; it was told%s' % (self.name, json.dumps(mine), key, json.dumps(its), ''.join(
                    '\n        v{version} {event_type} deleted: {deleted} set: {set}'.format(**change) for change in self.told.get(key, [])))


class Followers(Story):
    STEPS = {'insert': 1, 'update': 3, 'upsert': 1, 'delete': 1, 'move': 1, 'late': 3, 'submit': 3, 'lives': 3, 'undo': 1, 'resolve': 1,
             'touch': 1, 'drift': 1, 'several': 1, 'savepoint': 1, 'tombstone': 1}

    def __init__(self, server, r):
        super().__init__(server, r, 'followed')
        self.session = None         # in which the readers read
        self.tombstone, self.parts, self.trigger = r.random() < 0.5, r.random() < 0.3, r.random() < 0.5
        self.rls, self.col = self.table + '_rls', self.table + '_col'
        self.readers = [
            Reader('who reads all'), Reader('who asks for rows', rows=True), Reader('tenant A', "ten = 'A'", tenant='A'),
            Reader('tenant B, who asks for rows', "ten = 'B'", tenant='B', rows=True),
            Reader('whom a policy shows B', "ten = 'B'", role=self.rls), Reader('who may read some columns', columns=GRANTED, role=self.col)]
        self.close = Reader('who reads after each step')
        self.heads = {}

    # ------------------------------------------------------------ begin and end

    def options(self):
        """Those of esync_enable, at random."""
        r = self.r
        said = {'payload': r.choice(['full', 'changes']), 'on_conflict': r.choice(['merge', 'merge', 'server_wins', 'client_wins', 'last_write_wins', 'reject']),
                'mask': '{s}', 'exclude': '{x}', 'json_merge': '{d}', 'tenant': 'ten',
                'notify': r.random() < 0.2, 'sql_merge': r.random() < 0.9}
        if self.tombstone:
            said['tombstone'] = 'gone'
        if r.random() < 0.8:
            said['last_modified'] = '{seen}'
        if r.random() < 0.5:
            said['groups'] = {'g': ['g1', 'g2']}
        return ', '.join('%s => %s' % (k, literal(v)) for k, v in said.items())

    def begin(self):
        """The table, and those who may read of it what a policy or grants show."""
        t, run = self.table, self.run
        self.session = Server(self.server.opts)
        run('CREATE TABLE %s (%s)%s' % (t, definition(COLUMNS), ' PARTITION BY RANGE (id)' if self.parts else ''))
        if self.parts:
            run('CREATE TABLE {0}_low PARTITION OF {0} FOR VALUES FROM (MINVALUE) TO (5)'.format(t))
            run('CREATE TABLE {0}_high ({1}); ALTER TABLE {0}_high DROP COLUMN junk'.format(t, definition(OTHER_PLACES)))
            run('ALTER TABLE {0} ATTACH PARTITION {0}_high FOR VALUES FROM (5) TO (MAXVALUE)'.format(t))
        if self.trigger:
            run(TRIGGER.format(t))
        run("SELECT esync_enable('%s', %s)" % (t, self.options()))
        self.table_id = self.server.one('SELECT table_id FROM esync.tracked_table WHERE relation = %s::regclass', t)
        run('CREATE ROLE {1}; GRANT SELECT ON {0} TO {1}; CREATE ROLE {2}; GRANT SELECT ({3}) ON {0} TO {2}'.format(t, self.rls, self.col, ', '.join(GRANTED)))
        run("ALTER TABLE {0} ENABLE ROW LEVEL SECURITY; CREATE POLICY b ON {0} TO {1} USING (ten = 'B'); CREATE POLICY all_rows ON {0} TO {2} USING (true)".format(
            t, self.rls, self.col))

    def end(self):
        self.session.db.close()
        super().end()
        self.server.sql('DROP ROLE {1}; DROP ROLE {2}; DROP FUNCTION IF EXISTS {0}_made'.format(self.table, self.rls, self.col))

    # ------------------------------------------------------------------ reading

    def step(self, last):
        """One step, and who reads then; after the last one all do."""
        getattr(self, 'step_' + self.r.choices(list(self.STEPS), list(self.STEPS.values()))[0])()
        self.heads = dict(self.server.sql('SELECT aggregate_id, max(version) FROM esync.event_%d GROUP BY 1' % self.table_id))
        for reader in [self.close] + [x for x in self.readers if last or self.r.random() < 0.15]:
            yield from self.read(reader)
        if last:
            for key, problem, detail in self.server.verify(self.table):
                yield 'esync_verify of row %s: %s %s' % (key, problem, detail)

    def read(self, reader):
        """One of the readers reads on; what it has wrong then."""
        if reader.role:
            self.session.sql('SET ROLE ' + reader.role)
        if self.r.random() < 0.05:
            self.told.append('-- %s begins anew' % reader.name)
            reader.load(self.session, self.table)
        else:
            reader.follow(self.session, self.table, self.r)
        self.session.sql('RESET ROLE')
        yield from reader.wrong(self.session, self.table)

    # ----------------------------------------------------------------- choices

    def key(self):
        return self.r.choice(KEYS)

    def time(self):
        return iso(self.r.randrange(20 * 24) * 3600 * SECOND)

    def value(self, field):
        """What a field may hold; a document as its text."""
        r = self.r
        if field == 'ten':
            return r.choice(['A', 'B', 'A', 'B', 'C', None])
        if field in 'sx':
            return 's%d' % r.randrange(6)
        if r.random() < 0.1:
            return None
        if field == 'd':
            return r.choice(OBJECTS)
        return '%s%d' % (r.choice(['up', 'lo', 'zz']), r.randrange(10)) if field in 'ac' else r.randrange(31)

    def fields(self, n=None):
        return self.r.sample(FIELDS, n or self.r.choice([1, 1, 1, 2, 2, 3]))

    def update(self, key=None):
        where = '' if key is None else ' WHERE id = %d' % key
        return 'UPDATE %s SET %s%s' % (self.table, self.assignments(), where)

    def assignments(self, n=None):
        return ', '.join('%s = %s' % (f, literal(self.value(f))) for f in self.fields(n))

    def insert(self, key, fields):
        return 'INSERT INTO %s (%s) VALUES (%s)' % (
            self.table, ', '.join(['id'] + fields), ', '.join([str(key)] + [literal(self.value(f)) for f in fields]))

    def delete(self, key):
        return 'DELETE FROM %s WHERE id = %d' % (self.table, key)

    def mark(self, key):
        """Writes the tombstone by hand."""
        return 'UPDATE %s SET gone = %s WHERE id = %d' % (self.table, self.r.choice(['NULL', literal(self.time())]), key)

    def base(self, key):
        """A version of a row that somebody may hold, one of the last."""
        head = self.heads.get(str(key), 0)
        return self.r.randint(max(0, head - 4), head)

    # ------------------------------------------------------------------- steps

    def step_insert(self):
        self.run(self.insert(self.key(), self.fields(self.r.randint(1, 6))))

    def step_update(self):
        self.run(self.update(self.key()))

    def step_upsert(self):
        self.run('%s ON CONFLICT (id) DO UPDATE SET %s' % (self.insert(self.key(), self.fields()), self.assignments()))

    def step_delete(self):
        self.run(self.delete(self.key()))

    def step_move(self):
        self.run('UPDATE %s SET id = %d, %s WHERE id = %d' % (self.table, self.key(), self.assignments(), self.key()))

    def step_late(self):
        """Plain SQL with a base."""
        key = self.r.choice(sorted(self.heads)) if self.heads else None
        if key is None:
            return
        texts = [self.update(int(key))] * 5 + [self.delete(int(key)), self.insert(int(key), ['a'])] + ([self.mark(int(key))] * 2 if self.tombstone else [])
        said = context(user_id='u', device_id=self.r.choice(DEVICES), base_version=max(1, self.base(key)), submit_timestamp=self.time())
        self.run(transaction(said, self.r.choice(texts)))

    def step_submit(self):
        self.send(['update', 'update', 'update', 'save', 'create', 'delete', 'restore'])

    def step_lives(self):
        """Rows are deleted and come back."""
        self.send(['delete', 'restore', 'save'])

    def send(self, ops):
        events = [self.event(self.r.choice(ops)) for _ in range(self.r.choice([1, 1, 2, 4]))]
        self.submit('u', self.r.choice(DEVICES), events)

    def event(self, op):
        """An edit of a copy of a row, of any age."""
        key = self.key()
        e = {'id': str(uuid.UUID(int=self.r.getrandbits(128))), 'table': self.table, 'op': op, 'submit_timestamp': self.time()}
        values = {f: self.value(f) for f in self.fields()}
        if values.get('d'):
            values['d'] = json.loads(values['d'])
        if op == 'create':
            e['document'] = dict(values, id=key)
            return e
        e.update(key=str(key), base_version=self.base(key))
        if op in ('update', 'save'):
            e[self.r.choice(['set', 'set', 'document'])] = values
        return e

    def step_undo(self):
        key = self.key()
        if str(key) in self.heads:
            self.undo(key, self.r.randint(1, self.heads[str(key)]))

    def step_resolve(self):
        """Any open conflict is decided by a strategy."""
        conflicts = self.server.sql('SELECT aggregate_id, field FROM esync_conflicts(%s) ORDER BY conflict_id', self.table)
        if conflicts:
            self.resolve(*self.r.choice(conflicts), self.r.choice(STRATEGIES))

    def touch(self, key):
        self.run('SELECT esync_touch(%s, %s)' % (literal(self.table), literal(str(key))))

    def step_touch(self):
        self.touch(self.key())

    def step_drift(self):
        """Something happens while capture is off, and is noticed later."""
        key = self.key()
        unseen = self.r.choice([self.update(key)] * 4 + [self.delete(key), self.insert(key, ['a', 'ten']) + ' ON CONFLICT DO NOTHING'])
        self.run(transaction('SET LOCAL esync.enabled = off', unseen, 'SET LOCAL esync.enabled = on', self.update(key)))
        self.touch(key)

    def step_several(self):
        """Some changes in one transaction, maybe of one row."""
        def some():
            key = self.key()
            return self.r.choice([self.update(key), self.delete(key), self.insert(key, ['a', 'ten']) + ' ON CONFLICT (id) DO UPDATE SET ' + self.assignments(1)])
        self.run(transaction(*[some() for _ in range(4)]))

    def step_savepoint(self):
        """A change of all rows that is taken back, and others around it that may be."""
        self.run(transaction(self.update(self.key()), 'SAVEPOINT s', self.update(), 'ROLLBACK TO s', self.update(self.key()),
                             end=self.r.choice(['COMMIT', 'ROLLBACK'])))

    def step_tombstone(self):
        if self.tombstone:
            self.run(self.mark(self.key()))


def run(server, r, plays, steps):
    for _ in range(plays):
        yield from Followers(server, r).play(steps)
