#!/usr/bin/env python3
"""The tests of test/merge/run, which tells of the options."""
import argparse
import json
import random
import sys
import time
import traceback

import checks
import examples
import followers
import guarded
import jsonmerge
import keys
import machine
import orders
import plays
import plainsql
import queues
from plays import CREATED, DELETED, all_plays, some_plays
from server import BATCH, Server, event_of, iso

AT_ONCE = 3000                  # plays in one table
SHOWN = 4                       # faults told of one test


def begin_rows(server, table, numbered, tombstone):
    """The rows that plays begin with, which were not there before the table was tracked."""
    created = [i for i, p in numbered if p.initial in ('created', 'deleted')]
    deleted = [i for i, p in numbered if p.initial == 'deleted']
    server.sql('BEGIN')
    server.context(device='seed', submit=CREATED)
    server.sql("""INSERT INTO {0} SELECT r.* FROM unnest(%s::bigint[]) i,
                  LATERAL jsonb_populate_record(NULL::{0}, jsonb_build_object('id', i) || %s) r""".format(table),
               created, json.dumps(numbered[0][1].first))
    server.sql('COMMIT; BEGIN')
    server.context(device='seed', submit=DELETED)
    if tombstone:
        server.sql('UPDATE %s SET deleted_at = %%s WHERE id = ANY (%%s)' % table, iso(DELETED), deleted)
    else:
        server.sql('DELETE FROM %s WHERE id = ANY (%%s)' % table, deleted)
    server.sql('COMMIT')


def deliver(server, table, numbered):
    """Commits of the same place in all plays go together, a device's in as few batches as they fit."""
    for k in range(max(len(p.sent) for _, p in numbered)):
        for u in range(3):
            due = [(i, sent) for i, p in numbered if k < len(p.sent) and p.sent[k][0].user == u for sent in p.sent[k]]
            for first in range(0, len(due), BATCH):
                part = due[first:first + BATCH]
                out = server.submit('u%d' % u, 'd%d' % u, [event_of(table, i, s.edit, s.branch) for i, s in part])
                for (i, sent), got in zip(part, out['results']):
                    yield from ((i, '%r %s' % (sent.edit, w)) for w in checks.answer(sent, got))


def outcome(play, row, events, conflicts):
    """What the server made of a play, free of numbers that depend on the order."""
    who = {e.event_id: (e.device, e.seq and e.seq - play.seq) for e in events}

    def value(x):
        return str(sorted((f, v) for f, v in x.items() if f != 'id') if isinstance(x, dict) else x)

    return (checks.plain(row), frozenset(
        (str(f), c['kind'], value(c['base_value']), value(c['shown_value']), frozenset((who.get(x['event_id']), value(x.get('value'))) for x in c['contenders']))
        for f, c in conflicts.items()))


def run_plays(server, made, deliver=deliver):
    """Acts the plays out on the server; yields what is wrong."""
    ends = {}                   # of the plays of a group, in whatever order they commit
    made = list(made)
    for tombstone, groups in sorted({(p.tombstone, json.dumps(p.groups)) for p in made}):
        of_kind = [p for p in made if (p.tombstone, json.dumps(p.groups)) == (tombstone, groups)]
        for first in range(0, len(of_kind), AT_ONCE):
            numbered = list(enumerate(of_kind[first:first + AT_ONCE], 1))
            p = of_kind[0]
            table = server.table(tombstone, [dict(p.first, id=i) for i, p in numbered if p.initial == 'ground'],
                                 p.columns, p.options + (", groups => '%s'" % groups if p.groups else ''))
            begin_rows(server, table, numbered, tombstone)
            by_number = dict(numbered)
            told = list(deliver(server, table, numbered))
            told += checks.everything(server, table, {i: p.agg for i, p in numbered}, tombstone)
            for i, wrong in told:
                yield '%s row %s: %s\n      %s' % (table, i, wrong, by_number[i].told if i in by_number else '')
            rows, raw, conflicts = server.rows(table), server.events(table), server.conflicts(table)
            for i, p in numbered:
                got = outcome(p, rows.get(i), raw.get(i, []), conflicts.get(i, {}))
                if ends.setdefault(p.group, (got, p))[0] != got:
                    yield '%s row %s: the order of commits matters: %s\n      %s\n      but %s\n      %s' % (
                        table, i, got, p.told, ends[p.group][0], ends[p.group][1].told)
            if not told:
                server.sql('DROP TABLE %s' % table)


def run_model(made):
    """The model alone: one outcome a group, and nothing that no rule may do."""
    ends = {}
    for p in made:
        out = p.outcome()
        if ends.setdefault(p.group, (out, p))[0] != out:
            yield 'the order of commits matters: %s\n      %s\n      but %s\n      %s' % (
                out, p.told, ends[p.group][0], ends[p.group][1].told)
        for fault in p.faults():
            yield '%s\n      %s' % (fault, p.told)


AB, ABC = ('a', 'b'), ('a', 'b', 'c')
GROUPS = {'pair': ['b', 'c']}


def make_tests(opts):
    """name -> a function of the server and a random.Random that yields what is wrong."""
    few = 1 if not opts.full else 40
    tests = {'model: ' + k: v for k, v in {
        'two users': lambda s, r: run_model(all_plays(r, 2, 'PSC', AB)),
        'two rounds': lambda s, r: run_model(some_plays(r, 2, 'PSCPSC', AB, 4 * few)),
        'queues': lambda s, r: run_model(some_plays(r, 2, 'PSPSC', AB, 12 * few)),
        'histories': lambda s, r: run_model(plays.histories(r, 200 * few, 6)),
        'three users': lambda s, r: run_model(some_plays(r, 3, 'PSC', ABC, 6 * few)),
        'groups': lambda s, r: run_model(some_plays(r, 2, 'PSCPSC', ABC, 3 * few, groups=GROUPS)),
    }.items()}
    tests.update({'example: ' + k: v for k, v in examples.ALL.items()})
    tests.update({
        'two users, two fields, every order': lambda s, r: run_plays(s, all_plays(r, 2, 'PSC', AB)),
        'two users, three fields': lambda s, r: run_plays(s, some_plays(r, 2, 'PSC', ABC, 60 * few)),
        'two users, with branches': lambda s, r: run_plays(s, some_plays(r, 2, 'PBSC', AB, 15 * few)),
        'two users, two rounds': lambda s, r: run_plays(s, some_plays(r, 2, 'PSCPSC', AB, 2 * few)),
        'two users, two saves a commit': lambda s, r: run_plays(s, some_plays(r, 2, 'PSPSC', AB, 4 * few)),
        'three users, two fields': lambda s, r: run_plays(s, some_plays(r, 3, 'PSC', AB, 2 * few)),
        'three users, three fields': lambda s, r: run_plays(s, some_plays(r, 3, 'PSC', ABC, 20 * few, 60)),
        'groups': lambda s, r: run_plays(s, some_plays(r, 3, 'PSC', ABC, 30 * few, 60, GROUPS)),
        'groups, two rounds': lambda s, r: run_plays(s, some_plays(r, 2, 'PSCPSC', ABC, 2 * few, groups=GROUPS)),
        'groups in plain SQL': lambda s, r: run_plays(s, plainsql.some_plays(r, 3, 15 * few, 60, GROUPS), plainsql.deliver),
        'json_merge': lambda s, r: run_plays(s, jsonmerge.some_plays(r, 2, 'PSC', 80 * few)),
        'json_merge, two rounds': lambda s, r: run_plays(s, jsonmerge.some_plays(r, 2, 'PSCPSC', 2 * few)),
        'json_merge, three users': lambda s, r: run_plays(s, jsonmerge.some_plays(r, 3, 'PSC', 40 * few, 60)),
        'queues of devices': lambda s, r: queues.run(s, r, 60 * few),
        'queues in another order': lambda s, r: orders.run(s, r, 12 * few),
        'state machine: conflicts stay open': lambda s, r: machine.run(s, r, 12 * few, 14, ('merge',)),
        'state machine: policies': lambda s, r: machine.run(s, r, 6 * few, 14, machine.POLICIES[1:]),
        'state machine: constraints': lambda s, r: guarded.run(s, r, 12 * few, 14),
        'keys: rows that leave and take them': lambda s, r: keys.run(s, r, 300 * few, 14),
        'followers: readers of esync_changes': lambda s, r: followers.run(s, r, 60 * few, 80),
        'plain SQL': lambda s, r: run_plays(s, plainsql.some_plays(r, 3, 15 * few, 60), plainsql.deliver),
    })
    return tests


def run(name, test, server, r, shown):
    """True if nothing is wrong; tells the first few faults and the time."""
    start = time.time()
    wrong = []
    try:
        wrong += test(server, r)
    except Exception as e:      # whatever it is, the other tests shall run
        wrong.append(''.join(traceback.format_exception_only(type(e), e)) + traceback.format_exc(limit=-4))
        server.again()
    print('%-6s %s (%.1f s)' % ('ok' if not wrong else 'FAILED', name, time.time() - start), flush=True)
    for w in wrong[:shown]:
        print('    ' + w)
    if len(wrong) > shown:
        print('    and %d more' % (len(wrong) - shown))
    return not wrong


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--host', required=True)
    p.add_argument('--port', default='5432')
    p.add_argument('--user', default='postgres')
    p.add_argument('--database', default='postgres')
    p.add_argument('--seed', type=int, required=True)
    p.add_argument('--only', default='')
    p.add_argument('--full', action='store_true')
    p.add_argument('--list', action='store_true')
    p.add_argument('--all', action='store_true')
    opts = p.parse_args()
    tests = {k: v for k, v in make_tests(opts).items() if opts.only in k}
    if opts.list:
        print('\n'.join(tests))
        tests = {}
    server = Server(opts)
    server.sql('CREATE EXTENSION IF NOT EXISTS esync')
    passed = sum(run(k, v, server, random.Random('%d %s' % (opts.seed, k)), 10 ** 9 if opts.all else SHOWN) for k, v in tests.items())
    print('%d passed, %d failed' % (passed, len(tests) - passed))
    return 0 if passed == len(tests) > 0 else 1


if __name__ == '__main__':
    sys.exit(main())
