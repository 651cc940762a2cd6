"""Random tables: columns, keys, partitions, foreign keys, triggers, options."""
import copy

import values
from values import KEYS, Value, quote

NAMES = ['title', 'Title', 'note', 'vSetPressure', 'a/b', 'm~n', 'with space', 'quo"te', 'user', 'order', 'ünï', 'c$x', "o'k",
         'x' * 63, '~0', '0', '日本', 'a.b', 'back\\slash', 'value', 'patch', 'payload', 'version', 'op', 'per%cent']


def ident(name):
    return '"' + name.replace('"', '""') + '"'


class Column:
    def __init__(self, name, value, generated=None):
        self.name = name
        self.value = value
        self.generated = generated      # an expression
        self.nullable = True


class Table:
    """One table and what is known of it; its state is copied and restored with transactions."""

    def __init__(self, number, r, without):
        self.r = r
        self.number = number
        self.without = without
        self.name = 'rnd.' + ident(r.choice(['t%d', 'T %d', 'tä%d', 'q"%d']) % number)
        self.serial = 0
        self.columns = []
        self.key = []                   # names
        self.pools = {}                 # of keys: name -> literals
        self.parent = None
        self.children = []
        self.link = None                # the column that names the parent's row
        self.partitioned = None
        self.leaves = []
        self.options = {}
        self.quiet = False              # plain SQL never merges, whatever its context
        self.triggers = []
        self.tracked = False

    def has(self, feature):
        return feature not in self.without

    # ------------------------------------------------------------ columns

    def fresh_name(self):
        self.serial += 1
        for _ in range(20):
            n = self.r.choice(NAMES)
            if n not in [c.name for c in self.columns]:
                return n
        return 'c%d' % self.serial

    def column(self, name):
        return next(c for c in self.columns if c.name == name)

    def plain(self):
        """Columns that a statement may set, the key left out."""
        return [c for c in self.columns if c.generated is None and c.name not in self.key]

    def random_value(self, c):
        if c.name in self.pools:
            return values.cast(self.r.choice(self.pools[c.name]), c.value.name)
        v = c.value(self.r, 0.12 if c.nullable else 0)
        return v if self.has('stars') else v.replace('***', '+++')

    def make_key(self, single):
        r = self.r
        n = 1 if single or r.random() < 0.75 else r.randint(2, 3)
        for i in range(n):
            kind = r.choice(values.COMMON_KEYS) if r.random() < 0.8 or not self.has('rare_keys') else r.choice(list(KEYS))
            c = Column(self.fresh_name(), Value(kind))
            c.nullable = False
            self.columns.append(c)
            self.key.append(c.name)
            pool = list(KEYS[kind])
            r.shuffle(pool)
            self.pools[c.name] = pool if n == 1 else pool[:4]

    def make_columns(self):
        r = self.r
        count = r.choice([1, 2, 3, 5, 8, 8, 12, 20, 40, 58]) - len(self.key)
        for _ in range(max(count, 0)):
            self.columns.append(Column(self.fresh_name(), values.random_type(r, self.without)))
        self.columns.append(Column('n', Value('integer')))
        if r.random() < 0.3:
            self.columns.append(Column('g', Value('integer'), 'coalesce(n % 7, 0) + 1'))
        r.shuffle(self.columns)
        if self.parent:
            p = self.parent.column(self.parent.key[0])
            self.link = self.fresh_name()
            c = Column(self.link, Value(p.value.name))
            self.columns.append(c)
            self.pools[self.link] = self.parent.pools[p.name]

    # ------------------------------------------------------------ options

    def choose_options(self):
        r = self.r
        free = [c.name for c in self.plain() if c.name not in ('n', self.link)]
        r.shuffle(free)
        o = self.options
        if r.random() < 0.25:
            o['payload'] = 'changes'
        if free and r.random() < 0.25 and self.has('exclude'):
            o['exclude'] = [free.pop() for _ in range(min(len(free), r.randint(1, 2)))]
        if free and r.random() < 0.25 and self.has('mask'):
            o['mask'] = [free.pop() for _ in range(min(len(free), r.randint(1, 2)))]
        if r.random() < 0.25 and self.has('last_modified'):
            c = Column(r.choice(['changed_at', 'Changed At']), Value('timestamptz'))
            self.columns.append(c)
            o['last_modified'] = [c.name]
        if r.random() < 0.25 and self.has('tombstone'):
            c = Column('dead', Value('timestamptz'))
            self.columns.append(c)
            o['tombstone'] = c.name
        if free and r.random() < 0.25 and self.has('tenant'):
            o['tenant'] = r.choice(free + self.key)
        if r.random() < 0.1:
            o['notify'] = True
        if r.random() < 0.2:
            o['aggregate_type'] = 'type %d' % self.number
        if r.random() < 0.25 and self.has('baseline'):
            o['baseline'] = True
        if self.quiet or r.random() < 0.5:
            o['sql_merge'] = False

    def enable(self):
        args = ['%s::regclass' % quote(self.name)]
        for k, v in self.options.items():
            if isinstance(v, bool):
                args.append('%s => %s' % (k, str(v).lower()))
            elif isinstance(v, list):
                args.append('%s => ARRAY[%s]::name[]' % (k, ', '.join(quote(x) for x in v)))
            else:
                args.append('%s => %s' % (k, quote(v)))
        return 'SELECT public.esync_enable(%s)' % ', '.join(args)

    # ---------------------------------------------------------- partitions

    def choose_partitions(self):
        """Sets the PARTITION BY clause and the statements that make the leaves."""
        r = self.r
        if r.random() > 0.3 or not self.has('partitions'):
            return
        kind = r.choice(['list', 'range', 'hash'])
        if kind == 'hash':
            column = r.choice(self.key)
            if self.column(column).value.name in ('boolean',) or r.random() < 0.1:
                return
            if self.column(column).value.name in ('rnd.positive',):
                return
            self.partitioned = 'PARTITION BY HASH (%s)' % ident(column)
            bounds = ['WITH (MODULUS 3, REMAINDER %d)' % i for i in range(3)]
        else:
            column = 'part'
            c = Column(column, Value('smallint'))
            c.nullable = False
            self.columns.insert(r.randint(0, len(self.columns)), c)
            self.pools[column] = ['0', '1', '2', '3']
            if kind == 'list':
                self.partitioned = 'PARTITION BY LIST (part)'
                bounds = ['IN (0)', 'IN (1, 2)', None]
            else:
                self.partitioned = 'PARTITION BY RANGE (part)'
                bounds = ['FROM (MINVALUE) TO (1)', 'FROM (1) TO (3)', None]
            if r.random() < 0.5 and self.has('vouched_key'):
                # the owner vouches for the key: a move is one event
                self.options['key'] = list(self.key)
                self.triggers = ['vouch']
            else:
                self.key.append(column)
        for i, b in enumerate(bounds):
            leaf = 'rnd.' + ident('p%d_%d' % (self.number, i))
            how = 'DEFAULT' if b is None else 'FOR VALUES ' + b
            k = r.random()
            if k < 0.4:
                self.leaves.append('CREATE TABLE %s PARTITION OF %s %s' % (leaf, self.name, how))
            elif k < 0.75:
                # another order of columns, with a hole
                cols = list(self.columns)
                r.shuffle(cols)
                made = ', '.join(self.define(c) for c in cols)
                self.leaves.append('CREATE TABLE %s (hole int, %s); ALTER TABLE %s DROP COLUMN hole; ALTER TABLE %s ATTACH PARTITION %s %s'
                                   % (leaf, made, leaf, self.name, leaf, how))
            else:
                by = 'n' if kind != 'hash' and 'key' in self.options else self.key[0]
                if by != 'n' and self.column(by).value.name in ('boolean', 'rnd.positive'):
                    by = None
                sub = leaf[:-1] + '_%d"'
                if by is None or (by == 'n' and 'key' not in self.options):
                    self.leaves.append('CREATE TABLE %s PARTITION OF %s %s' % (leaf, self.name, how))
                else:
                    self.leaves.append('CREATE TABLE %s PARTITION OF %s %s PARTITION BY HASH (%s)' % (leaf, self.name, how, ident(by)))
                    for j in range(2):
                        self.leaves.append('CREATE TABLE %s PARTITION OF %s FOR VALUES WITH (MODULUS 2, REMAINDER %d)' % (sub % j, leaf, j))

    # ------------------------------------------------------------ creation

    def define(self, c):
        d = '%s %s' % (ident(c.name), c.value.name)
        if c.generated:
            d += ' GENERATED ALWAYS AS (%s) STORED' % c.generated
        if not c.nullable:
            d += ' NOT NULL'
        return d

    def create(self):
        r = self.r
        parts = [self.define(c) for c in self.columns]
        vouched = 'key' in self.options
        if not vouched:
            parts.append('PRIMARY KEY (%s)' % ', '.join(ident(k) for k in self.key))
        if self.link:
            p = self.parent
            parts.append('FOREIGN KEY (%s) REFERENCES %s ON DELETE %s ON UPDATE %s%s' % (
                ident(self.link), p.name, r.choice(['CASCADE', 'CASCADE', 'SET NULL', 'NO ACTION']),
                r.choice(['CASCADE', 'CASCADE', 'SET NULL']), r.choice(['', ' DEFERRABLE INITIALLY DEFERRED'])))
        return ['CREATE TABLE %s (%s) %s' % (self.name, ', '.join(parts), self.partitioned or '')] + self.leaves

    def key_match(self, a, b='t'):
        return ' AND '.join('%s.%s = %s.%s' % (b, ident(k), a, ident(k)) for k in self.key)

    def choose_triggers(self):
        r = self.r
        if r.random() > 0.4 or not self.has('triggers'):
            return
        kinds = ['count', 'swallow', 'same_row', 'other_row', 'parent', 'resurrect', 'remove_other', 'before_other', 'rename_key']
        self.triggers += r.sample([k for k in kinds if self.has('trigger_' + k) and not (self.partitioned and 'trigger_moved' in self.without and k not in ('count', 'swallow'))], r.randint(1, 2))

    def trigger_names(self):
        return {k: ('~~' if k == 'vouch' else self.r.choice(['!a', 'z', '1'])) + '_' + k for k in self.triggers}

    def make_triggers(self, names):
        """Functions, made again when columns were renamed, and their triggers, made once."""
        out = []
        for kind in self.triggers:
            fn = 'rnd.%s_%d' % (kind, self.number)
            when = 'AFTER INSERT OR UPDATE'
            t = self.name
            deep = 'IF pg_catalog.pg_trigger_depth() > 1 THEN RETURN NULL; END IF;'
            if kind == 'count':
                when = 'BEFORE INSERT OR UPDATE'
                body = 'NEW.n := coalesce(NEW.n, 0) % 1000 + 1; RETURN NEW;'
            elif kind == 'swallow':
                when = 'BEFORE INSERT OR UPDATE OR DELETE'
                body = ("IF TG_OP = 'DELETE' THEN IF OLD.n % 5 = 3 THEN RETURN NULL; END IF; RETURN OLD; END IF; "
                        'IF NEW.n % 5 = 4 THEN RETURN NULL; END IF; RETURN NEW;')
            elif kind == 'same_row':
                body = deep + 'UPDATE %s AS t SET n = coalesce(t.n, 0) + 1 WHERE %s; RETURN NULL;' % (t, self.key_match('NEW'))
            elif kind == 'other_row':
                when = 'AFTER INSERT OR UPDATE OR DELETE'
                body = deep + 'UPDATE %s AS t SET n = coalesce(t.n, 0) + 10 WHERE t.n %% 3 = 1; RETURN NULL;' % t
            elif kind == 'vouch':
                when = 'BEFORE INSERT OR UPDATE'
                body = ("IF (TG_OP = 'INSERT' OR NOT (%s)) AND EXISTS (SELECT FROM %s AS t WHERE %s) THEN RAISE unique_violation; END IF; RETURN NEW;"
                        % (self.key_match('NEW', 'OLD'), t, self.key_match('NEW')))
            elif kind == 'parent' and self.parent:
                body = deep + 'UPDATE %s AS t SET n = (SELECT count(*) FROM %s) WHERE t.%s = NEW.%s; RETURN NULL;' % (
                    self.parent.name, t, ident(self.parent.key[0]), ident(self.link))
            elif kind == 'resurrect':
                when = 'AFTER DELETE'
                cols = ', '.join(ident(c.name) for c in self.columns if not c.generated)
                vals = ', '.join('OLD.' + ident(c.name) for c in self.columns if not c.generated)
                body = deep + ('IF OLD.n %% 2 = 0 THEN INSERT INTO %s (%s) VALUES (%s) ON CONFLICT DO NOTHING; END IF; RETURN NULL;'
                               % (t, cols, vals))
            elif kind == 'remove_other':
                body = deep + 'DELETE FROM %s AS t WHERE t.n %% 11 = 5; RETURN NULL;' % t
            elif kind == 'before_other':
                when = 'BEFORE UPDATE'
                body = ('IF pg_catalog.pg_trigger_depth() <= 1 THEN UPDATE %s AS t SET n = coalesce(t.n, 0) + 3 WHERE t.n %% 4 = 2 AND NOT (%s); END IF; RETURN NEW;'
                        % (t, self.key_match('OLD')))
            elif kind == 'rename_key':
                k = self.key[0]
                body = deep + ('IF NEW.n %% 4 = 1 THEN BEGIN UPDATE %s AS t SET %s = %s WHERE %s; EXCEPTION WHEN unique_violation THEN NULL; END; END IF; RETURN NULL;'
                               % (t, ident(k), values.cast(self.pools[k][0], self.column(k).value.name), self.key_match('NEW')))
            else:
                continue
            out.append('CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql AS %s' % (
                fn, quote('BEGIN %s END' % body)))
            if names:
                out.append('CREATE TRIGGER %s %s ON %s FOR EACH ROW EXECUTE FUNCTION %s()' % (ident(names[kind]), when, t, fn))
        return out

    # -------------------------------------------------------------- states

    STATE = ('name', 'columns', 'key', 'pools', 'link', 'options', 'tracked', 'serial')

    def save(self):
        return {k: copy.deepcopy(getattr(self, k)) for k in self.STATE}

    def restore(self, saved):
        for k in self.STATE:
            setattr(self, k, saved[k])


def make_group(number, r, without):
    """One to three tables, the later ones with a foreign key to the first."""
    tables = []
    size = r.choice([1, 1, 2, 3]) if 'foreign_keys' not in without else 1
    quiet = r.random() < 0.5
    for i in range(size):
        t = Table(number * 10 + i, r, without)
        t.quiet = quiet
        if i > 0:
            t.parent = tables[0] if r.random() < 0.7 or len(tables[-1].key) > 1 else tables[-1]
            t.parent.children.append(t)
        t.make_key(single=size > 1 and i < size - 1)
        t.make_columns()
        t.choose_options()
        if size == 1 or i == size - 1:
            t.choose_partitions()
        t.choose_triggers()
        tables.append(t)
    return tables
