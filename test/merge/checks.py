"""What the server says, held against the model and against its own raw events."""
from model import NEVER
from server import COLUMNS, fold, us

FLAG_DELETED, FLAG_CONFLICT = 0x0001, 0x0080


def plain(row):
    """A row as the table or an answer has it, in the model's terms."""
    if row is None:
        return None
    row = {f: v for f, v in row.items() if f != 'id'}
    if 'deleted_at' in row:
        row['deleted_at'] = us(row['deleted_at'])
    return row


def columns(values):
    return {f: v for f, v in values.items() if f.split('/')[0] in COLUMNS}


def answer(sent, got):
    """What is wrong with one element of "results"."""
    status = 'conflict' if sent.clashes else 'accepted'
    if sent.clashes is None and got['status'] == 'conflict':
        status = 'conflict'     # the model does not say
    if got['status'] != status:
        yield 'answers %s, not %s: %s' % (got['status'], status, {k: got.get(k) for k in ('code', 'message', 'conflicts') if k in got})
        return
    if got['version'] != sent.version:
        yield 'answers version %s, not %s' % (got['version'], sent.version)
    effective = sent.event and sent.event.effective
    if us(got.get('effective_timestamp')) != effective:
        yield 'answers effective %s, not %s' % (got.get('effective_timestamp'), effective)
    if sent.clashes is not None and {c['field'] for c in got.get('conflicts', [])} != sent.clashes:
        yield 'answers conflicts %s, not of %s' % (got.get('conflicts'), sent.clashes)
    if got.get('row') is not None and plain(got['row']) != sent.row:
        yield 'answers row %s, not %s' % (got['row'], sent.row)
    if sent.with_row and sent.row is not None and got.get('row') is None:
        yield 'answers no row, although others wrote since base_version: %s' % got
    if sent.deleted and got.get('row') is not None and not got.get('deleted'):
        yield 'does not answer deleted: %s' % got


def same_events(agg, raw, tombstone):
    """The stream is what the model made of the edits."""
    if [x.version for x in raw] != [e.version for e in agg.events]:
        yield 'versions %s, not %s' % (raw, agg.events)
        return
    high = NEVER
    for e, x in zip(agg.events, raw):
        high = max(high, e.effective)
        for what, want, have in (('type', e.kind, x.kind), ('base', e.base if e.kind != 'Baseline' else x.base, x.base),
                                 ('device', e.device, x.device), ('seq', e.seq, x.seq), ('submit', e.submit, x.submit),
                                 ('effective', e.effective, x.effective), ('effective_high', high, x.high),
                                 ('patch', e.patch, columns(x.sets())), ('user', e.user or x.user, x.user)):
            if what in ('submit', 'seq') and want in (None, NEVER):
                continue
            if want != have:
                yield '%s of version %d is %s, not %s: %s' % (what, e.version, have, want, x)
        values, deleted = agg.state(agg.upto(e.version))
        if (tombstone or not deleted) and x.payload is None:
            yield 'no payload: %s' % x
        elif (tombstone or not deleted) and columns(x.payload) != values:
            yield 'payload of version %d is %s, not %s' % (e.version, x.payload, values)
    if bool(raw[-1].flags & FLAG_DELETED) != bool(agg.deleted()):
        yield 'flag deleted: %s' % raw[-1]


def same_conflicts(agg, raw, have):
    """The ledger is what the model makes of the set of events."""
    if bool(raw[-1].flags & FLAG_CONFLICT) != bool(have):
        yield 'flag conflict: %s' % raw[-1]
    if hasattr(agg, 'wrong_conflicts'):
        yield from agg.wrong_conflicts(raw, have)
        return
    want = agg.conflicts()
    if set(have) != set(want):
        yield 'open conflicts of %s, not of %s: %s' % (sorted(map(str, have)), sorted(map(str, want)), have)
        return
    fields = agg.fields() or {}
    for name, (kind, who) in want.items():
        row = have[name]
        ids = {e: raw[e.version - 1].event_id for e in who}
        got = {c['event_id']: c.get('value') for c in row['contenders']}
        if row['kind'] != kind:
            yield 'conflict of %s is %s, not %s' % (name, row['kind'], kind)
        if kind == 'constraint':
            got = {c['event_id']: c['value'] for c in row['contenders'] if 'constraint' in c}
            if any(e.refused[name[0]][0] != got.get(ids[e]) for e in who):      # with those that somebody answered, as long as one waits
                yield 'refused of %s are %s, not %s' % (name, row['contenders'], [(e, e.refused) for e in who])
            continue
        if set(got) != set(ids.values()):
            yield 'contenders of %s are %s, not %s' % (name, row['contenders'], who)
            continue
        for c in row['contenders']:
            if c['shown'] != (c['event_id'] == ids.get(agg.shown_event(name))):
                yield 'contender %s of %s: shown is not %r' % (c, name, agg.shown_event(name))
        if name is not None:
            for e in who:
                if got[ids[e]] != agg.registers_of(e)[name]:
                    yield 'contender %r of %s has value %r' % (e, name, got[ids[e]])
            shown = {f: fields[f] for f in agg.groups[name]} if name in agg.groups else fields[name]
            if row['shown_value'] != shown:
                yield 'shown_value of %s is %r, not %r' % (name, row['shown_value'], shown)
            if row['base_value'] != agg.base_value(name):
                yield 'base_value of %s is %r, not %r' % (name, row['base_value'], agg.base_value(name))


def same_history(agg, have):
    """Everything that anybody set is told, with its status."""
    for (field, version), status in agg.statuses().items():
        if (field, version) not in have:
            yield 'field_history lacks %s of version %d' % (field, version)
            continue
        value, got = have[field, version]
        want = agg.events[version - 1].patch[field]
        if value != want:
            yield 'field_history has %r for %s of version %d, not %r' % (value, field, version, want)
        if got != status and not (status == 'past' and got in ('lost', 'superseded')):
            yield 'field_history says %s of %s of version %d, not %s' % (got, field, version, status)


def everything(server, table, aggregates, tombstone=False):
    """(key, what is wrong) of a whole table."""
    rows, raw, conflicts = server.rows(table), server.events(table), server.conflicts(table)
    history = server.history(table, aggregates)
    for key, problem, detail in server.verify(table):
        yield int(key), 'esync_verify: %s %s' % (problem, detail)
    for key in sorted((set(rows) | set(raw)) - set(aggregates)):
        yield key, 'nobody wrote this row'
    for key, agg in aggregates.items():
        row, events = rows.get(key), raw.get(key, [])
        if plain(row) != agg.row():
            yield key, 'the row is %s, not %s' % (row, agg.row())
        if not events:
            if agg.events and not (len(agg.events) == 1 and agg.events[0].is_ground()):
                yield key, 'no events'
            continue
        folded = fold(events)
        if plain(folded) != plain(row):
            yield key, 'the row is %s, the fold of its raw events %s' % (row, folded)
        wrong = list(same_events(agg, events, tombstone))
        yield from ((key, w) for w in wrong)
        if len(events) == len(agg.events):
            yield from ((key, w) for w in same_conflicts(agg, events, conflicts.get(key, {})))
            yield from ((key, w) for w in same_history(agg, history.get(key, {})))
