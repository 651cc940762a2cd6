"""Random statements on the tables of a group."""
from tables import Column, ident
from values import Value, quote, random_type

SETTINGS = {
    'TimeZone': ['UTC', 'Europe/Vienna', 'America/St_Johns', 'Asia/Kolkata', 'Pacific/Apia', '+5:30', 'Africa/Monrovia'],
    'DateStyle': ['ISO, MDY', 'SQL, DMY', 'German', 'Postgres, YMD', 'ISO, DMY'],
    'IntervalStyle': ['postgres', 'postgres_verbose', 'sql_standard', 'iso_8601'],
    'extra_float_digits': ['-15', '-3', '0', '1', '3'],
    'bytea_output': ['hex', 'escape'],
    'search_path': ['', 'public', 'rnd', 'pg_catalog', 'rnd, public, pg_catalog', '"$user", rnd'],
    'xmlbinary': ['base64', 'hex'],
    'xmloption': ['content', 'document'],
    'quote_all_identifiers': ['on', 'off'],
    'default_toast_compression': ['pglz', 'lz4'],
    'standard_conforming_strings': ['on', 'off'],
    'escape_string_warning': ['on', 'off'],
    'backslash_quote': ['safe_encoding', 'on'],
    'array_nulls': ['on'],
    'default_transaction_deferrable': ['on', 'off'],
    'enable_indexscan': ['on', 'off'],
    'constraint_exclusion': ['on', 'partition'],
    'plan_cache_mode': ['auto', 'force_custom_plan', 'force_generic_plan'],
    'client_min_messages': ['notice', 'warning', 'error'],
    'row_security': ['on', 'off'],
    'default_statistics_target': ['10', '100'],
    'gin_pending_list_limit': ['64', '4096'],
    'synchronous_commit': ['on', 'off'],
}


def setting(r, locales):
    name = r.choice(list(SETTINGS) + ['lc_monetary', 'TimeZone', 'DateStyle', 'search_path', 'extra_float_digits'])
    value = r.choice(locales) if name == 'lc_monetary' else r.choice(SETTINGS[name])
    if name == 'search_path':
        return r.choice(['SET ', 'SET ', 'SET LOCAL ']) + 'search_path = ' + (value or "''")
    return "%s%s = %s" % (r.choice(['SET ', 'SET ', 'SET LOCAL ']), name, quote(value))


def context(r, base):
    """Who and when; `base`: what its author had seen, too, where no table merges by it."""
    def t():
        return r.choice(['NULL', "pg_catalog.clock_timestamp() - interval '%d hours'" % r.randint(0, 200),
                         "pg_catalog.clock_timestamp() + interval '%d hours'" % r.randint(0, 50),
                         "'2025-11-1%d 06:00:00+00'" % r.randint(0, 9)])
    sent = r.choice(['NULL', 'NULL', 'pg_catalog.clock_timestamp()', "pg_catalog.clock_timestamp() - interval '3 hours'",
                     "pg_catalog.clock_timestamp() + interval '77 min'"])
    return 'SELECT public.esync_context(%s, %s, %s, %s, %s, %s, %s)' % (
        r.choice(['NULL', "'ann'", "'bob'", "'Zoë \"x\"'"]), r.choice(['NULL', "'tablet-7'", "'d2'", "''"]),
        t() if base else 'NULL', t(), sent, r.choice(['NULL', 'NULL', '0', '3']) if base else 'NULL', r.choice(['NULL', """'{"reason": "calibrated"}'"""]))


class Maker:
    def __init__(self, r, without):
        self.r = r
        self.without = without

    def insert_columns(self, t):
        r = self.r
        cols = [c for c in t.columns if c.generated is None]
        keep = [c for c in cols if c.name in t.key or not c.nullable or r.random() < 0.8]
        r.shuffle(keep)
        return keep

    def rows(self, t, cols, n, keys=None):
        return ', '.join('(%s)' % ', '.join(t.random_value(c) for c in cols) for _ in range(n))

    def assignments(self, t, alias=''):
        r = self.r
        free = t.plain()
        r.shuffle(free)
        out = []
        for c in free[:r.choice([1, 1, 1, 2, 3, len(free)])]:
            k = r.random()
            same = [d for d in t.columns if d.value.name == c.value.name and d.generated is None]
            if k < 0.15:
                out.append('%s = %s%s' % (ident(c.name), alias, ident(c.name)))
            elif k < 0.25 and c.nullable:
                out.append('%s = DEFAULT' % ident(c.name))
            elif k < 0.35 and (c.nullable or not r.choice(same).nullable):
                d = r.choice(same)
                if not c.nullable and d.nullable:
                    d = c
                out.append('%s = %s%s' % (ident(c.name), alias, ident(d.name)))
            elif c.value.name == 'integer' and c.name == 'n':
                out.append('n = coalesce(%sn, 0) %% 1000 + %d' % (alias, r.randint(0, 3)))
            else:
                out.append('%s = %s' % (ident(c.name), t.random_value(c)))
        return ', '.join(out)

    def where(self, t):
        r = self.r
        k = r.random()
        keys = ' AND '.join('%s = %s' % (ident(x), t.random_value(t.column(x))) for x in t.key)
        if k < 0.35:
            return ' WHERE ' + keys
        if k < 0.55:
            x = r.choice(t.key)
            return ' WHERE %s IN (%s)' % (ident(x), ', '.join(t.random_value(t.column(x)) for _ in range(3)))
        if k < 0.75:
            return ' WHERE n %% %d = %d' % (r.randint(2, 5), r.randint(0, 3))
        if k < 0.9 or t.partitioned:
            return ' WHERE %s > %s' % (ident(t.key[0]), t.random_value(t.column(t.key[0])))
        return ''

    def conflict_target(self, t):
        return '(%s)' % ', '.join(ident(k) for k in t.key)

    # each returns a statement, or a list that belongs together

    def insert(self, t):
        cols = self.insert_columns(t)
        names = ', '.join(ident(c.name) for c in cols)
        n = self.r.choice([1, 1, 1, 2, 4])
        if n == 1 or self.r.random() < 0.6:
            tail = ''
            if 'key' not in t.options and n > 1:
                tail = ' ON CONFLICT DO NOTHING'
            return 'INSERT INTO %s (%s) VALUES %s%s' % (t.name, names, self.rows(t, cols, n), tail)
        return 'INSERT INTO %s (%s) SELECT * FROM (VALUES %s) AS v' % (t.name, names, self.rows(t, cols, n))

    def upsert(self, t):
        cols = self.insert_columns(t)
        names = ', '.join(ident(c.name) for c in cols)
        if 'key' in t.options:
            return self.insert(t)
        if self.r.random() < 0.3:
            what = 'NOTHING'
        else:
            what = 'UPDATE SET ' + self.assignments(t, 'u.')
            if self.r.random() < 0.3:
                what += ' WHERE u.n % 2 = 0'
            if self.r.random() < 0.3:
                what = 'UPDATE SET ' + ', '.join('%s = EXCLUDED.%s' % (ident(c.name), ident(c.name)) for c in cols)
        return 'INSERT INTO %s AS u (%s) VALUES %s ON CONFLICT %s DO %s' % (
            t.name, names, self.rows(t, cols, self.r.randint(1, 3)), self.conflict_target(t), what)

    def update(self, t):
        return 'UPDATE %s AS u SET %s%s' % (t.name, self.assignments(t, 'u.'), self.where(t))

    def update_key(self, t):
        k = self.r.choice(t.key)
        kind = t.column(k).value.name
        if kind in ('integer', 'bigint', 'smallint', 'numeric', 'date') and self.r.random() < 0.5:
            return 'UPDATE %s SET %s = %s %s 1%s' % (t.name, ident(k), ident(k), self.r.choice('+-'), self.where(t))
        extra = self.assignments(t) if self.r.random() < 0.3 else ''
        if kind == 'numeric' and self.r.random() < 0.3:
            return 'UPDATE %s SET %s = %s + 0.00%s' % (t.name, ident(k), ident(k), self.where(t))
        return 'UPDATE %s SET %s = %s%s%s' % (t.name, ident(k), t.random_value(t.column(k)), ', ' + extra if extra else '', self.where(t))

    def swap_keys(self, t):
        """Two keys change places by way of a third, in one transaction."""
        k = t.key[0]
        a, b, c = (t.random_value(t.column(k)) for _ in range(3))
        u = 'UPDATE %s SET %s = %%s WHERE %s = %%s' % (t.name, ident(k), ident(k))
        return [u.replace('%s', '\0').replace('\0', c, 1).replace('\0', a, 1), u.replace('%s', '\0').replace('\0', a, 1).replace('\0', b, 1),
                u.replace('%s', '\0').replace('\0', b, 1).replace('\0', c, 1)]

    def delete(self, t):
        return 'DELETE FROM %s%s' % (t.name, self.where(t))

    def cte(self, t):
        """Two commands in one statement."""
        a = 'UPDATE %s AS u SET %s%s RETURNING 1' % (t.name, self.assignments(t, 'u.'), self.where(t))
        b = 'DELETE FROM %s%s RETURNING 1' % (t.name, self.where(t))
        cols = self.insert_columns(t)
        c = 'INSERT INTO %s (%s) VALUES %s RETURNING 1' % (t.name, ', '.join(ident(x.name) for x in cols), self.rows(t, cols, 1))
        x, y = self.r.sample([a, b, c], 2)
        return 'WITH x AS (%s), y AS (%s) SELECT count(*) FROM x, y' % (x, y)

    def reinsert(self, t):
        k = ' AND '.join('%s = %s' % (ident(x), t.random_value(t.column(x))) for x in t.key)
        cols = ', '.join(ident(c.name) for c in t.columns if c.generated is None)
        return 'WITH gone AS (DELETE FROM %s WHERE %s RETURNING %s) SELECT count(*) FROM gone' % (t.name, k, cols)

    def merge(self, t):
        r = self.r
        cols = self.insert_columns(t)
        keys = [t.column(k) for k in t.key]
        src = ', '.join('(%s, %d)' % (', '.join(t.random_value(c) for c in keys), r.randint(0, 9)) for _ in range(r.randint(1, 3)))
        names = ['k%d' % i for i in range(len(keys))]
        on = ' AND '.join('u.%s = s.%s' % (ident(c.name), n) for c, n in zip(keys, names))
        vals = ', '.join('s.' + names[t.key.index(c.name)] if c.name in t.key else t.random_value(c) for c in cols)
        return ('MERGE INTO %s AS u USING (VALUES %s) AS s (%s, m) ON %s '
                'WHEN MATCHED AND s.m < 2 THEN DELETE WHEN MATCHED AND s.m < 4 THEN DO NOTHING WHEN MATCHED THEN UPDATE SET %s '
                'WHEN NOT MATCHED AND s.m = 9 THEN DO NOTHING WHEN NOT MATCHED THEN INSERT (%s) VALUES (%s)' % (
                    t.name, src, ', '.join(names), on, self.assignments(t, 'u.'), ', '.join(ident(c.name) for c in cols), vals))

    def copy(self, t):
        """COPY: the driver gets the lines by COPY TO."""
        cols = self.insert_columns(t)
        return ('COPY', '%s (%s)' % (t.name, ', '.join(ident(c.name) for c in cols)),
                'SELECT * FROM (VALUES %s) AS v' % self.rows(t, cols, self.r.randint(1, 4)))

    def truncate(self, t):
        if t.partitioned and self.r.random() < 0.5:
            leaf = 'rnd.' + ident('p%d_%d' % (t.number, self.r.randint(0, 2)))
            return 'TRUNCATE %s' % leaf
        return 'TRUNCATE %s%s' % (t.name, ' CASCADE' if t.children else '')

    def plpgsql(self, t):
        """Statements within a function's subtransaction, one of which fails."""
        a, b = self.update(t), self.insert(t)
        return 'DO %s' % quote('BEGIN %s; BEGIN %s; %s; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END; %s; END' % (
            a, b, self.delete(t), self.update(t)))

    def kill_row(self, t):
        """By way of the tombstone."""
        d = t.options.get('tombstone')
        if not d:
            return self.update(t)
        return 'UPDATE %s SET %s = %s%s' % (t.name, ident(d), self.r.choice(['NULL', 'pg_catalog.now()', "'2025-11-20 00:00:00+00'"]), self.where(t))

    WEIGHTS = [('insert', 18), ('upsert', 10), ('update', 22), ('update_key', 7), ('swap_keys', 2), ('delete', 6), ('cte', 4), ('reinsert', 3),
               ('merge', 6), ('copy', 4), ('truncate', 1), ('plpgsql', 3), ('kill_row', 4)]

    def statement(self, tables):
        t = self.r.choice(tables)
        kinds = [(k, w) for k, w in self.WEIGHTS if k not in self.without]
        kind = self.r.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
        s = getattr(self, kind)(t)
        return t, s if isinstance(s, list) else [s]

    # ------------------------------------------------------------------ DDL

    def ddl(self, t):
        """(kind, statements, blind): blind ones change rows without telling; the state of t is changed already."""
        r = self.r
        k = r.random()
        special = [x for o in ('exclude', 'mask', 'last_modified') for x in t.options.get(o, [])]
        special += [t.options.get('tombstone'), t.options.get('tenant'), t.link]
        droppable = [c for c in t.plain() if c.name not in special and c.name not in ('n', 'part')]
        if k < 0.15:
            c = Column(t.fresh_name(), random_type(r, self.without))
            t.columns.append(c)
            return 'add', ['ALTER TABLE %s ADD COLUMN %s %s' % (t.name, ident(c.name), c.value.name)], False, None
        if k < 0.35 and 'fill' not in self.without:
            c = Column(t.fresh_name(), random_type(r, self.without))
            t.columns.append(c)
            s = ['ALTER TABLE %s ADD COLUMN %s %s DEFAULT %s' % (t.name, ident(c.name), c.value.name, c.value(r, 0))]
            if c.value.name in ('rnd.positive', 'rnd.twice', 'rnd.feeling'):
                return 'add rewritten', s, True, None       # a domain with constraints has the table rewritten
            return 'add', s, False, c
        if k < 0.42 and 'volatile' not in self.without:
            c = Column(t.fresh_name(), Value('double precision'))
            t.columns.append(c)
            return 'add volatile', ['ALTER TABLE %s ADD COLUMN %s double precision DEFAULT pg_catalog.random()' % (t.name, ident(c.name))], True, None
        if k < 0.57 and droppable and 'drop' not in self.without:
            c = r.choice(droppable)
            t.columns.remove(c)
            return 'drop', ['ALTER TABLE %s DROP COLUMN %s' % (t.name, ident(c.name))], False, None
        if k < 0.85 and 'rename' not in self.without:
            c = r.choice([c for c in t.columns if c.name not in ('n', 'part')])
            old, new = c.name, t.fresh_name()
            c.name = new
            t.key = [new if x == old else x for x in t.key]
            if old in t.pools:
                t.pools[new] = t.pools.pop(old)
            if t.link == old:
                t.link = new
            for o, v in t.options.items():
                if isinstance(v, list):
                    t.options[o] = [new if x == old else x for x in v]
                elif v == old and o in ('tombstone', 'tenant'):
                    t.options[o] = new
            return 'rename', ['ALTER TABLE %s RENAME COLUMN %s TO %s' % (t.name, ident(old), ident(new))], False, None
        if k < 0.95 and droppable and 'alter_type' not in self.without:
            c = r.choice(droppable)
            new = {'integer': ['bigint', 'text', 'numeric', 'oid'], 'smallint': ['integer', 'real'], 'text': ['bpchar', 'character varying(9000)'],
                   'timestamp': ['timestamptz', 'date'], 'timestamptz': ['timestamp'], 'numeric(8,3)': ['numeric', 'numeric(9,4)'],
                   'json': ['text'], 'jsonb': ['json', 'text'], 'rnd.mood': ['text'], 'rnd.short_text': ['text']}.get(c.value.name, ['text'])
            new = r.choice(new)
            c.value = Value(new)
            return 'alter type', ['ALTER TABLE %s ALTER COLUMN %s DROP DEFAULT, ALTER COLUMN %s TYPE %s USING %s::%s' % (
                t.name, ident(c.name), ident(c.name), new, ident(c.name), new)], True, c
        return 'rewrite', ['ALTER TABLE %s ALTER COLUMN n TYPE integer USING n + 0' % t.name] if not any(c.generated for c in t.columns) else [], True, None
