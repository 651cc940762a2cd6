"""Types of columns and random literals for them.

Every literal is written so that it can be read under any session setting, or
fails with a data exception, which the driver takes for what it is.
"""
import datetime
import string

WORDS = ['', 'a', 'A', 'alpha', 'Beta', 'ä', 'Ünïcödé', "it's", 'say "hi"', 'back\\slash',
         'tab\there', 'line\nbreak', ' lead', 'trail ', 'null', 'NULL', '***', '{}', '[]',
         '{"a":1}', '1', '1.0', 'NaN', 'true', '/slash', '~tilde', '~0~1', '%s', '$1', '𝄞',
         '\u0001', '\u007f', 'ß', '日本語', '\u2028', 'a' * 63, 'é' * 40]


def quote(s):
    """A string as an SQL literal, whatever standard_conforming_strings says."""
    if '\\' in s:
        return "E'" + s.replace('\\', '\\\\').replace("'", "''") + "'"
    return "'" + s.replace("'", "''") + "'"


def cast(s, t):
    return quote(s) + '::' + t


def word(r):
    k = r.random()
    if k < 0.6:
        return r.choice(WORDS)
    if k < 0.9:
        return ''.join(r.choice(string.ascii_letters + ' _-') for _ in range(r.randint(1, 30)))
    if k < 0.97:
        return ''.join(chr(r.randint(32, 0x24f)) for _ in range(r.randint(1, 100)))
    # does not compress well, so that it goes out of line
    return ''.join(r.choice(string.printable[:94]) for _ in range(r.randint(2500, 9000)))


def ints(bits):
    top = 2 ** (bits - 1)

    def make(r):
        return str(r.choice([0, 1, -1, 2, 3, 7, top - 1, -top, r.randint(-top, top - 1),
                             r.randint(-100, 100)]))
    return make


def numeric(r):
    k = r.random()
    if k < 0.35:
        return r.choice(['0', '0.0', '0.00', '1', '1.0', '1.00', '-1', '100', '1e2', '1e10', '-0',
                         'NaN', 'Infinity', '-Infinity', '1e-20', '123456789012345678901234567890',
                         '0.1', '0.10', '1e300', '1.5e-100', '9' * 80, '-' + '9' * 40 + '.' + '9' * 40])
    digits = ''.join(r.choice('0123456789') for _ in range(r.randint(1, 12)))
    scale = ''.join(r.choice('0123456789') for _ in range(r.randint(0, 8)))
    return r.choice(['', '-']) + digits + ('.' + scale if scale else '')


def small_numeric(r):
    return r.choice(['0', '1', '1.0', '1.5', '-2.25', '99', '12.345', '-0.005', '0.10', 'NaN'])


def floating(r):
    return r.choice(['0', '-0', '1', '1.5', '-2.25', '0.1', '1e10', '1e-10', 'NaN', 'Infinity',
                     '-Infinity', '3.4e38', '1.17e-38', '0.30000000000000004',
                     repr(r.uniform(-1e6, 1e6)), repr(r.random() * 10 ** r.randint(-20, 20))])


def float8(r):
    return r.choice(['1.7976931348623157e308', '5e-324', '2.2250738585072014e-308', floating(r),
                     floating(r), floating(r), floating(r)])


def date(r):
    return r.choice(['2025-11-17', '0001-01-01', '4713-01-01 BC', '5874897-12-31', 'infinity', '-infinity',
                     '0044-03-15 BC', '10000-01-01', '2024-02-29', '1582-10-10',
                     str(datetime.date(2000, 1, 1) + datetime.timedelta(r.randint(-20000, 20000)))])


def time(r):
    return r.choice(['00:00', '24:00:00', '23:59:59.999999', '12:34:56', '12:34:56.7',
                     '%02d:%02d:%02d.%06d' % (r.randint(0, 23), r.randint(0, 59), r.randint(0, 59),
                                              r.randint(0, 999999))])


def zone(r):
    return r.choice(['+00', '-05', '+05:30', '+14', '-11:45', '+01:02:03', 'Z'])


def timestamp(r):
    return r.choice(['infinity', '-infinity', '0001-01-01 00:00:00', '4713-01-01 00:00:00 BC',
                     '294276-12-31 23:59:58.25', '0044-03-15 12:00:00 BC', '2025-03-30 02:30:00',
                     '2025-10-26 02:30:00', '1883-11-18 12:03:58', '1900-01-01 00:00:00.000001',
                     '%s %s' % (datetime.date(2000, 1, 1) + datetime.timedelta(r.randint(-20000, 20000)),
                                time(r))])


def timestamptz(r):
    t = timestamp(r)
    if 'infinity' in t:
        return t
    if t.endswith(' BC'):
        return t[:-3] + zone(r) + ' BC'
    return t + zone(r)


def interval(r):
    return r.choice(['0', '1 day', '24:00:00', '1 mon', '30 days', '-1 day 02:03:04', '1 year -2 mons +3 days -04:05:06.789',
                     '178000000 years', '-178000000 years', '0.000001 sec', 'P1Y2M3DT4H5M6S', '1 year 25 hours',
                     '%d days %d secs' % (r.randint(-999, 999), r.randint(-99999, 99999))])


def uuid(r):
    return r.choice(['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff',
                     'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '%032x' % r.getrandbits(128)])


def json_text(r, depth=0):
    import json as j
    k = r.random()
    if depth > 3 or k < 0.45:
        return r.choice(['null', 'true', 'false', '0', '1', '1.0', '1.00', '-0', '1e3', '1E-3', '12345678901234567890.5',
                         '""', '"a"', '"1"', '"null"', '"\\u00e4"', '"\\"q\\""', '"a/b~c"', '{}', '[]', '[[]]',
                         '[null]', '{"":null}', j.dumps(word(r)[:200])])
    if k < 0.7:
        return '[' + ', '.join(json_text(r, depth + 1) for _ in range(r.randint(0, 5))) + ']'
    return '{' + ', '.join('%s: %s' % (j.dumps(r.choice(['a', 'b', 'ab', 'a/b', 'm~n', '', 'é', 'Zz', 'list', '0', '-'])),
                                       json_text(r, depth + 1)) for _ in range(r.randint(0, 6))) + '}'


def json_bad(r):
    """What json takes and jsonb does not."""
    if r.random() < 0.25:
        return r.choice(['"\\u0000"', '{"a":"x\\u0000y"}', '["\\ud800"]', '{"\\u0000":1}', '1e400000'])
    if r.random() < 0.2:
        return r.choice([' {"a" : 1 } ', '{"b":1,"a":2,"b":3}', '{"a":1e5}', ' 1 ', '"x"'])
    return json_text(r)


def xml(r):
    return r.choice(['', '<a/>', '<a b="1">x</a>', 'text', '<a>ä&amp;</a><b/>', '<!-- c --><x/>',
                     '<?xml version="1.0" encoding="UTF-8"?><a>1</a>', '<a><![CDATA[<>]]></a>'])


def inet(r):
    return r.choice(['10.0.0.1', '10.0.0.1/8', '192.168.1.0/24', '::1', '2001:db8::/32', '::ffff:1.2.3.4/128', '0.0.0.0/0',
                     '%d.%d.%d.%d' % tuple(r.randint(0, 255) for _ in range(4))])


def cidr(r):
    return r.choice(['10.0.0.0/8', '192.168.1.0/24', '::1/128', '2001:db8::/32', '0.0.0.0/0', '1.2.3.4'])


def macaddr(r):
    return ':'.join('%02x' % r.randint(0, 255) for _ in range(6))


def macaddr8(r):
    return ':'.join('%02x' % r.randint(0, 255) for _ in range(8))


def bits(n):
    def make(r):
        return ''.join(r.choice('01') for _ in range(n))
    return make


def varbits(r):
    return ''.join(r.choice('01') for _ in range(r.randint(0, 24)))


def bytea(r):
    n = r.choice([0, 1, 4, 30, 300, 300, 5000]) if r.random() < 0.5 else r.randint(0, 20)
    return '\\x' + ''.join('%02x' % r.randint(0, 255) for _ in range(n))


def money(r):
    return r.choice(['0', '1', '-1', '12', '123456789', '-42', '92233720368547758'])


def pt(r):
    return '(%s,%s)' % (r.choice(['0', '1.5', '-2', '1e300', 'Infinity', '0.1', '-0', repr(r.uniform(-9, 9))]),
                        r.choice(['0', '1.5', '-2', '1e-300', 'NaN', '0.1', repr(r.uniform(-9, 9))]))


def line(r):
    return '{%d,%d,%d}' % (r.randint(1, 5), r.randint(-5, 5), r.randint(-5, 5))


def seg(r):
    return '[%s,%s]' % (pt(r), pt(r))


def box(r):
    return '%s,%s' % (pt(r), pt(r))


def path(r):
    a, b = r.choice([('[', ']'), ('(', ')')])
    return a + ','.join(pt(r) for _ in range(r.randint(1, 4))) + b


def polygon(r):
    return '(' + ','.join(pt(r) for _ in range(r.randint(1, 4))) + ')'


def circle(r):
    return '<%s,%s>' % (pt(r), r.choice(['0', '1.5', '1e10', '0.1']))


def tsvector(r):
    return r.choice(['', 'a', "a:1 b:2A,3 c", "'quo''te':1", 'fat:2A cat:3B', "'ä x':1"])


def tsquery(r):
    return r.choice(['', 'a', 'a & b | !c', 'a:*AB', "'x y' <-> z", '(a|b)&c'])


def bounds(a, b, r):
    return r.choice('[(') + a + ',' + b + r.choice('])')


def ranges(kind):
    def make(r):
        k = r.random()
        if k < 0.1:
            return 'empty'
        if kind == 'num':
            a, b = sorted([r.uniform(-99, 99), r.uniform(-99, 99)])
            a, b = r.choice([('1.0', '2.50'), ('1', '2.5'), ('%.3f' % a, '%.3f' % b), ('1.00', 'Infinity')])
        elif kind == 'int':
            a, b = sorted([r.randint(-99, 99), r.randint(-99, 99)])
            a, b = str(a), str(b)
        else:
            d = datetime.date(2000, 1, 1) + datetime.timedelta(r.randint(0, 9999))
            a, b = str(d), str(d + datetime.timedelta(r.randint(0, 99)))
            if kind == 'ts':
                a, b = '"%s 12:34:56.5"' % a, '"%s 12:34:57"' % b
            elif kind == 'tstz':
                a, b = '"%s 12:34:56%s"' % (a, '+05:30'), '"%s 18:34:57%s"' % (b, '-05')
        if k < 0.2:
            a = ''
        elif k < 0.3:
            b = ''
        return bounds(a, b, r)
    return make


def multiranges(kind):
    one = ranges(kind)

    def make(r):
        return '{' + ','.join(one(r) for _ in range(r.randint(0, 3))) + '}'
    return make


def constant(*values):
    return lambda r: r.choice(values)


def chars(r):
    return r.choice(['', 'a', 'Z', ' ', '0', '\\'])


# name of the type -> text of a random value
SCALARS = {
    'boolean': constant('t', 'f'),
    'smallint': ints(16), 'integer': ints(32), 'bigint': ints(64),
    'numeric': numeric, 'numeric(8,3)': small_numeric, 'numeric(5,-1)': small_numeric,
    'real': floating, 'double precision': float8,
    'text': word, 'character varying(40)': lambda r: word(r)[:40], 'character(7)': lambda r: word(r)[:7],
    'bpchar': lambda r: word(r)[:50], 'name': lambda r: word(r)[:20], '"char"': chars,
    'bytea': bytea, 'date': date, 'time': time, 'time(1)': time,
    'time with time zone': lambda r: time(r) + zone(r),
    'timestamp': timestamp, 'timestamp(2)': timestamp, 'timestamptz': timestamptz, 'timestamptz(0)': timestamptz,
    'interval': interval, 'interval day to second': interval, 'interval(3)': interval,
    'uuid': uuid, 'json': json_bad, 'jsonb': json_text, 'xml': xml,
    'inet': inet, 'cidr': cidr, 'macaddr': macaddr, 'macaddr8': macaddr8,
    'bit(5)': bits(5), 'bit varying': varbits, 'bit varying(30)': varbits, 'money': money,
    'point': pt, 'line': line, 'lseg': seg, 'box': box, 'path': path, 'polygon': polygon, 'circle': circle,
    'tsvector': tsvector, 'tsquery': tsquery, 'pg_lsn': constant('0/0', '16/B374D848', 'FFFFFFFF/FFFFFFFF'),
    'xid': constant('0', '1', '4294967295'), 'xid8': constant('0', '18446744073709551615', '77'),
    'cid': constant('0', '42'), 'tid': constant('(0,1)', '(42,7)'), 'oid': constant('0', '4294967295', '16384'),
    'oidvector': constant('', '1 2 3'), 'int2vector': constant('', '1 -2 3'),
    'jsonpath': constant('$', '$.a[*] ? (@ > 1.0)', 'strict $."a b"'),
    'pg_snapshot': constant('10:20:10,14,15', '1:1:'), 'aclitem': constant('=r/postgres', 'postgres=arwdDxt/postgres'),
    'refcursor': word, 'regclass': constant('pg_catalog.pg_class', '-', '999999', 'rnd.reg_target', 'rnd."Reg Type"'),
    'regtype': constant('integer', 'rnd.mood', '-', 'rnd.pair', 'timestamp with time zone'),
    'regproc': constant('pg_catalog.now', '-', 'rnd.reg_function'),
    'regprocedure': constant('pg_catalog.abs(integer)', 'rnd.reg_function(rnd.mood)', '-'),
    'regoper': constant('pg_catalog.||/', '-'), 'regoperator': constant('pg_catalog.+(integer,integer)', '0'),
    'regrole': constant('postgres', '-', '"Reg Role"'), 'regnamespace': constant('pg_catalog', 'rnd', '-'),
    'regconfig': constant('pg_catalog.simple', 'rnd.reg_config'), 'regdictionary': constant('pg_catalog.simple'),
    'regcollation': constant('"C"', '-'),
    'int4range': ranges('int'), 'int8range': ranges('int'), 'numrange': ranges('num'), 'daterange': ranges('date'),
    'tsrange': ranges('ts'), 'tstzrange': ranges('tstz'),
    'int4multirange': multiranges('int'), 'nummultirange': multiranges('num'), 'datemultirange': multiranges('date'),
    'tsmultirange': multiranges('ts'), 'tstzmultirange': multiranges('tstz'),
    'rnd.floatrange': ranges('num'), 'rnd.mood': constant('sad', 'ok', 'happy', "It's \\ \"odd\"", 'ÄÖ'),
    'rnd.positive': constant('1', '2', '77'), 'rnd.short_text': lambda r: word(r)[:9],
    'rnd.moment': timestamptz, 'rnd.doc': json_text, 'rnd.rawdoc': json_text, 'rnd.amount': small_numeric,
    'rnd.feeling': constant('ok', 'happy'), 'rnd.twice': constant('5', '6'),
}

# row types: their fields
COMPOSITES = {
    'rnd.pair': ['integer', 'text'],
    'rnd.wide': ['timestamptz', 'bytea', 'numeric', 'rnd.pair', 'integer[]', 'interval', 'double precision'],
    'rnd.checked_pair': ['integer', 'text'],
    'rnd."Mixed Case"': ['rnd.mood', 'json', 'money', 'regclass'],
}

# types that only ALTER TYPE gives, and whose values fit
ALTERED = {'character varying(9000)': 'text'}

NO_ARRAYS = {'oidvector', 'int2vector', '"char"'}


class Value:
    """Makes literals of one type."""

    def __init__(self, name):
        self.name = name

    def scalar(self, r, name):
        if name in COMPOSITES:
            return 'ROW(%s)::%s' % (', '.join(self.any(r, f, 0.2) for f in COMPOSITES[name]), name)
        text = SCALARS[ALTERED.get(name, name)](r)
        if name == 'json' and self.name != 'json':
            text = json_text(r)         # inside of another value
        return cast(text, name)

    def any(self, r, name, nulls):
        if r.random() < nulls:
            return 'NULL::' + name
        if name in ('rnd.numbers', 'rnd.matrix'):
            return self.array(r, 'integer') + '::' + name
        if name.endswith('[]'):
            return self.array(r, name[:-2])
        return self.scalar(r, name)

    def array(self, r, element):
        k = r.random()
        if k < 0.15:
            return "'{}'::%s[]" % element
        if k < 0.75:
            inner = [self.any(r, element, 0.15) for _ in range(r.randint(1, 5))]
            return 'ARRAY[%s]::%s[]' % (', '.join(inner), element)
        if k < 0.9:
            n, m = r.randint(1, 3), r.randint(1, 3)
            rows = ['[%s]' % ', '.join(self.any(r, element, 0.1) for _ in range(m)) for _ in range(n)]
            return 'ARRAY[%s]::%s[]' % (', '.join(rows), element)
        # odd lower bounds
        return 'pg_catalog.array_fill(%s, ARRAY[%d,%d], ARRAY[%d,%d])' % (
            self.any(r, element, 0.05), r.randint(1, 2), r.randint(1, 3), r.randint(-3, 5), r.randint(-3, 5))

    def __call__(self, r, nulls=0.12):
        return self.any(r, self.name, nulls)


JSONS = {'json', 'jsonb', 'rnd.doc', 'rnd.rawdoc'}


def random_type(r, without=()):
    if 'json_arrays' in without:
        while True:
            v = random_type(r)
            if v.name[:-2] not in JSONS or not v.name.endswith('[]'):
                return v
    k = r.random()
    if k < 0.70:
        return Value(r.choice(list(SCALARS)))
    if k < 0.78:
        return Value(r.choice(list(COMPOSITES)))
    if k < 0.82:
        return Value('rnd.numbers')
    if k < 0.86:
        return Value(r.choice(list(COMPOSITES)) + '[]')
    return Value(r.choice([t for t in SCALARS if t not in NO_ARRAYS]) + '[]')


# types of keys, each with a pool of few values, so that keys meet again
KEYS = {
    'uuid': ['%08x-0000-4000-8000-%012x' % (i * 7919, i) for i in range(14)],
    'integer': [str(i) for i in range(-3, 12)],
    'bigint': [str(i) for i in range(0, 12)] + ['9223372036854775807', '-9223372036854775808'],
    'smallint': [str(i) for i in range(0, 14)],
    'text': ['', 'a', 'A', 'b', 'ä', '["a"]', '{"k": 1}', 'null', "it's", 'x/y~z', 'line\nbreak', '"q"', ' a', 'back\\slash',
             'k' * 300],
    'character varying(20)': ['v%d' % i for i in range(10)] + ['', 'ä"'],

    'numeric': ['0', '0.0', '1', '1.0', '1.00', '10', '100', '1e2', '0.1', '0.10', '-5', '2.50', '2.5', 'NaN',
                '1e30', '123456789012345678901234.5'],
    'numeric(10,2)': ['0', '1', '1.5', '100', '2.50', '3.33', '-1'],
    'date': ['2025-11-%02d' % i for i in range(10, 20)] + ['0044-03-15 BC', 'infinity', '10000-01-01'],
    'timestamptz': ['2025-11-17 0%d:00:00+00' % i for i in range(8)] + ['2025-11-17 06:00:00.123456+05:30', 'infinity',
                                                                    '0044-03-15 00:00:00+00 BC'],
    'timestamp': ['2025-11-17 0%d:00:00' % i for i in range(8)] + ['-infinity', '2025-11-17 01:02:03.4'],
    'rnd.mood': ['sad', 'ok', 'happy', "It's \\ \"odd\"", 'ÄÖ'],
    'rnd.positive': ['1', '2', '3', '4', '5', '6', '7', '8'],
    'boolean': ['t', 'f'],
    'bytea': ['\\x', '\\x00', '\\xdeadbeef', '\\x01', '\\x02', '\\x0102'],
    'double precision': ['0', '-0', '1', '1.5', 'NaN', 'Infinity', '0.1', '1e300', '2', '3'],
    'name': ['n1', 'n2', 'N3', 'n"4', ''],
    'oid': ['1', '2', '3', '4294967295', '0'],
    'macaddr': ['08:00:2b:01:02:0%d' % i for i in range(8)],
    'int4range': ['[1,5)', '[1,6)', 'empty', '(,3)', '[5,)', '[7,9)'],
    'integer[]': ['{}', '{1}', '{1,2}', '{2,1}', '{NULL}', '{{1},{2}}'],
    'time': ['00:00', '24:00', '12:34:56.7', '12:00', '13:00'],
    'pg_lsn': ['0/1', '0/2', '1/0', '2/0'],
    'inet': ['10.0.0.1', '10.0.0.1/8', '::1', '10.0.0.2'],
}
# chosen first, the others now and then
COMMON_KEYS = ['uuid', 'uuid', 'integer', 'integer', 'bigint', 'text', 'text', 'numeric', 'numeric', 'date', 'timestamptz', 'rnd.mood']

PRELUDE = r"""
CREATE SCHEMA rnd;
CREATE TYPE rnd.mood AS ENUM ('sad', 'ok', 'happy', 'It''s \ "odd"', 'ÄÖ');
CREATE DOMAIN rnd.positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN rnd.twice AS rnd.positive CHECK (VALUE > 4);
CREATE DOMAIN rnd.short_text AS varchar(9);
CREATE DOMAIN rnd.moment AS timestamptz;
CREATE DOMAIN rnd.doc AS jsonb;
CREATE DOMAIN rnd.rawdoc AS json;
CREATE DOMAIN rnd.amount AS numeric(12,4);
CREATE DOMAIN rnd.feeling AS rnd.mood CHECK (VALUE <> 'sad');
CREATE DOMAIN rnd.numbers AS integer[];
CREATE TYPE rnd.pair AS (i integer, t text);
CREATE TYPE rnd.wide AS (at timestamptz, b bytea, n numeric, p rnd.pair, list integer[], "iv Al" interval, f float8);
CREATE DOMAIN rnd.checked_pair AS rnd.pair;
CREATE TYPE rnd."Mixed Case" AS ("Mood" rnd.mood, "j/s" json, m money, c regclass);
CREATE TYPE rnd.floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TABLE rnd.reg_target (a int);
CREATE TABLE rnd."Reg Type" (a int);
CREATE FUNCTION rnd.reg_function(rnd.mood) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE TEXT SEARCH CONFIGURATION rnd.reg_config (COPY = pg_catalog.simple);
"""
