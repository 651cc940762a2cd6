"""Decisions in the model: resolutions, policies, undos.

A decision is an edit whose author had seen all that its base says; it says
what it sets, changed or not.  An undo takes an event back: each field that the
row still shows from it gets what the fold has without it, and the event, being
withdrawn, contends no more.  What an undo puts back is another event's, its
origin: where that one speaks for itself, the undo has nothing to say.
"""
from model import Aggregate, Event, Rejected, clash, saw

STRATEGIES = ('server_wins', 'client_wins', 'last_write_wins', 'event_sourced')


def of(e, what, default=None):
    """What decisions alone have."""
    return getattr(e, what, default)


def undoes(e):
    return of(e, 'undone')


class Decided(Aggregate):
    """A row about which somebody decides, or its table's policy."""

    def __init__(self, defaults, groups=None, tombstone=False, policy='merge'):
        super().__init__(defaults, groups, tombstone)
        self.policy = policy
        self.past = {}          # version -> what was open after it

    def violation(self):
        """The SQLSTATE with which the table refuses the row as it is now; None: it takes it."""

    # ------------------------------------------------------------- withdrawn

    def withdrawn(self, also=None):
        """The events that were undone; who undoes comes later, so the last go first."""
        found = {also} - {None}
        for e in reversed(self.events):
            if e not in found and undoes(e):
                found.add(undoes(e))
        return found

    @staticmethod
    def source(e, field):
        """From which event its value of a field is; None: the row as a whole."""
        return of(e, 'origins', {}).get(field) or e

    def origin(self, e, name):
        """The same of a register; None: the event speaks for itself."""
        for f in self.groups.get(name, [name]):
            if f in of(e, 'origins', {}):
                return e.origins[f]
        return None

    def speaks(self, e, name, gone):
        """Is what it says of a register its own, or from somebody who stands?"""
        return e not in gone and self.origin(e, name) not in gone

    def is_default_gone(self):
        """Does an undo stand in for a default of a creation that was undone since?"""
        gone = self.withdrawn()
        return any(o in gone and f is not None and f not in o.patch for e in self.events for f, o in of(e, 'origins', {}).items())

    def unreplaced(self, events, name):
        """Those whom nobody replaced who had seen them.  An undo replaces nobody, and stands in for its origin."""
        left = [x for x in events if not any(saw(y, x) for y in events if not undoes(y))]
        return [x for x in left if self.origin(x, name) not in left and not (name and self.is_last_word(x, left))
                and self.is_first(x, left, name)]

    def is_first(self, x, others, name):
        """Of undos that put back the same one counts."""
        origin = self.origin(x, name)
        return origin is None or not any(y.version < x.version and self.origin(y, name) is origin for y in others)

    @staticmethod
    def is_last_word(x, others):
        """An undo whose author had seen all others contradicts nobody."""
        return undoes(x) and all(undoes(y) or saw(x, y) for y in others)

    # ------------------------------------------------------------- conflicts

    def contenders(self, name):
        gone = self.withdrawn()
        return self.unreplaced([e for e in self.events if not e.is_ground() and name in self.registers_of(e) and self.speaks(e, name, gone)], name)

    def delete_contenders(self):
        gone = self.withdrawn()
        writers = [e for e in self.events if e.deletes is not None and self.speaks(e, None, gone)]
        words = self.unreplaced(writers, None)
        edits = [e for e in self.events if e.deletes is None and e.patch and e not in gone and not undoes(e)
                 and not any(saw(w, e) for w in writers if not undoes(w))]
        pairs = [(d, x) for d in words if d.deletes
                 for x in [h for h in words if not h.deletes and clash(d, h)] + self.maximal([e for e in edits if clash(d, e)])]
        return sorted({e for pair in pairs for e in pair}, key=lambda e: e.version)

    def shown_event(self, name):
        """The contender whose value the row shows: by itself, or by the last undo that stands in for it."""
        field = self.groups.get(name, [name])[0]
        who = self.delete_contenders() if name is None else self.contenders(name)
        for e in sorted(self.events, key=Event.stamp, reverse=True):
            if e.deletes is not None if name is None else field in e.patch:
                for x in who:
                    if x is e or x is self.origin(e, name) or self.origin(x, name) is self.origin(e, name) is not None:
                        return x if name is not None or bool(x.deletes) == bool(self.deleted()) else None
                if name is not None:
                    return None     # what the row shows was said by none of them

    def ledger_at(self, version):
        """name -> kind, contenders and the one that showed, of what was open after that version."""
        if version not in self.past:
            now, self.events = self.events, self.upto(version)
            self.past[version] = {name: (kind, who, self.shown_event(name)) for name, (kind, who) in self.conflicts().items()}
            self.events = now
        return self.past[version]

    def closed_at(self, version):
        """The same of what an event closed, with those of whom one showed; where a policy decided, whom it let win."""
        took = of(self.events[version - 1], 'took', {})
        after = self.ledger_at(version)
        return {name: (kind, who, took[name] if name in took else [shown]) for name, (kind, who, shown) in self.ledger_at(version - 1).items() if name not in after}

    # ------------------------------------------------------------- decisions

    def decide(self, values, deletes, submit, base=None, strategy=None, user=None, device=None):
        """A decision as an event."""
        base = self.head() if base is None else base
        shown = self.state(self.upto(base))[0] or {}
        patch = dict(values)
        for members in self.groups.values():
            if any(f in patch for f in members):
                for f in members:
                    patch.setdefault(f, shown.get(f))
        e = Event(self.head() + 1, 'Resolved', base, device, None, submit, patch, deletes, None, user)
        e.strategy = strategy
        e.effective = self.effective(e)
        self.events.append(e)
        return e

    def values_of(self, name, value):
        return dict(value) if name in self.groups else {name: value}

    def in_fold(self, name, events):
        """What a register is in the fold of some events."""
        values = self.state(events)[0] or dict.fromkeys(self.defaults)
        return {f: values[f] for f in self.groups.get(name, [name])}

    def by_strategy(self, name, strategy):
        """What a strategy makes of an open conflict: fields, and whether the row is deleted."""
        who = self.conflicts()[name][1]
        disputed = max(who, key=lambda e: e.version)
        before = None
        if strategy == 'server_wins':
            before = self.upto(disputed.version - 1)
        elif strategy == 'event_sourced':
            before = self.events
        elif strategy == 'last_write_wins':
            disputed = max(who, key=Event.stamp)
        if before is not None:
            return ({}, bool(self.state(before)[1])) if name is None else (self.in_fold(name, before), None)
        if name is None:
            return {}, bool(disputed.deletes)
        return self.values_of(name, self.registers_of(disputed)[name]), None

    def contends(self, decided, deletes, expected):
        """Lies anything beyond that version which the decider should have seen?"""
        for e in self.events:
            if e.version > expected and not e.is_ground() and (
                    e.deletes is not None or deletes is not None or set(decided) & set(self.registers_of(e))):
                return True
        return expected > self.head()

    # -------------------------------------------------------------- policies

    def follow_policy(self, e, now):
        """What the table's policy makes of an edit that conflicts: the decision, or None.  What confirms an edit is of its time."""
        names = self.in_conflict(e)
        if self.policy == 'merge' or not names:
            return None
        if self.policy == 'reject':
            self.events.remove(e)
            raise Rejected('conflict')
        values, deletes, confirms, took = {}, None, {}, {}
        for name in names:
            if self.policy == 'server_wins':
                before = self.upto(e.version - 1)
                said = ({}, bool(self.state(before)[1])) if name is None else (self.in_fold(name, before), None)
            elif self.policy == 'client_wins':
                said = self.by_strategy(name, 'client_wins')
            else:
                said, confirms[name] = self.latest(name)
            took[name] = self.who_says(e, name, *said)
            values.update(said[0])
            deletes = said[1] if said[1] is not None else deletes
        d = self.decide(values, deletes, max([x.submit for x in confirms.values()], default=now), strategy=self.policy, user=e.user)
        d.confirms, d.took = confirms, took
        return d

    def who_says(self, e, name, values, deleted):
        """Whom a policy may have let win: those who say what it decides, of whom server_wins takes the one that showed; of the row it may be nobody."""
        who = self.conflicts()[name][1]
        if name is None:
            return [None] + [x for x in who if bool(x.deletes) == deleted]
        found = [x for x in who if self.values_of(name, self.registers_of(x)[name]) == values]
        if self.policy != 'server_wins':
            return found
        now, self.events = self.events, self.upto(e.version - 1)
        shown, self.events = self.shown_event(name), now
        return [shown] if shown in found else found + [None]    # what the row had may be of none of them

    def latest(self, name):
        """What the latest edit wants, and which that is."""
        if name is None:
            x = max(self.votes(), key=Event.stamp)
            return ({}, bool(x.deletes)), x

        def speaks_for(x):          # a decision is as late as the edit that it confirmed
            return of(x, 'confirms', {}).get(name) or x
        x = max(self.conflicts()[name][1], key=lambda x: speaks_for(x).stamp())
        return (self.values_of(name, self.registers_of(x)[name]), None), speaks_for(x)

    def votes(self):
        """Who says whether the row lives: all who deleted or edited it, of any field, but who had seen it deleted and left it so."""
        gone = self.withdrawn()

        def had_seen_deleted(e):
            word = self.delete_register([x for x in self.events if saw(e, x) and self.speaks(x, None, gone)])
            return word is not None and word.deletes
        said = [e for e in self.events if not e.is_ground() and not of(e, 'confirms') and self.speaks(e, None, gone)]
        return [e for e in said if e.deletes is not None or not undoes(e) and not had_seen_deleted(e)]

    # ------------------------------------------------------------------ undo

    def undo(self, target, submit, user=None):
        """Takes an event back: the undo, or None where nothing can be; the fields that were put back; (field, why, for whom) of those that were not."""
        before = self.withdrawn()
        if target in before:
            raise Rejected('undone already')
        gone = self.withdrawn(target)
        births = {e for e in self.events if e.kind in ('Created', 'Baseline')}
        unborn = births <= gone
        ground = births & gone & before         # what a row held whose creations were undone before is its ground
        out = gone - (births if unborn and not ground else ground if unborn else set())
        deletes, mark, origins, patch, kept = None, None, {}, {}, []
        word = self.delete_register(self.events)
        then = self.delete_register([e for e in self.events if e not in gone and not self.is_void(e, None, gone, gone)])
        lives = then is not None and not then.deletes
        if any(e.deletes is not None for e in before ^ gone) and (word in gone or self.is_void(word, None, gone, gone)):
            since = [e for e in self.events if e.version > target.version and e not in gone and not undoes(e) and (e.patch or e.kind == 'Created') and (births & gone - before or saw(e, target))]
            if not lives and not word.deletes and since:
                return None, [], [(f, 'row', None) for f in target.patch] + [(None, 'changed', since[-1])]
            if lives or not word.deletes or then and (word in gone or self.source(word, None) is not word):
                deletes = not lives
                if then is not None:
                    origins[None] = self.source(then, None)
                    mark = (then.mark or then.effective) if deletes else None
        elif target.deletes is not None:
            kept.append((None, self.why_kept(word, target), word))
        if lives or not unborn or not births & gone - before:
            left = [self.without_void(e, out, gone) for e in self.events if e not in out]
            now, below = self.registers(self.events), self.registers(left)
            for f in sorted(now):
                e = now[f][2]
                if f in e.patch and (e in out or self.is_void(e, f, out, gone)):
                    patch[f] = below[f][1] if f in below else None
                    if f in below:
                        origins[f] = self.source(of(below[f][2], 'real', below[f][2]), f)
                elif any(f in x.patch for x in self.chain(target)) and e not in self.chain(target):
                    kept.append((f, self.why_kept(now[f][2], target), now[f][2]))
        e = self.decide(patch, deletes, submit, strategy='undo', user=user)
        e.undone, e.origins, e.mark, e.gone = target, {f: o for f, o in origins.items() if o not in gone}, mark, gone
        return e, sorted(patch) + ([None] if deletes is not None else []), kept

    def is_void(self, e, f, out, gone):
        """Has what an undo put back no ground any more?  Who said it is out, or somebody later is back."""
        if not undoes(e):
            return False
        o = of(e, 'origins').get(f)
        if o is None and f is None or o in out:
            return True
        return any(x.version < e.version and x not in gone and not undoes(x) and (o is None or x.stamp() > o.stamp())
                   and (x.deletes is not None if f is None else f in x.patch) for x in e.gone)

    @staticmethod
    def why_kept(by, target):
        return 'changed' if saw(by, target) else 'lost'

    @staticmethod
    def chain(e):
        """An event, and where it is an undo, what it undid, and so on."""
        found = [e]
        while undoes(found[-1]):
            found.append(undoes(found[-1]))
        return found

    def without_void(self, e, out, gone):
        """An undo without what it put back and has no ground any more."""
        if not undoes(e):
            return e
        copy = Event(e.version, e.kind, e.base, e.device, e.seq, e.submit,
                     {f: v for f, v in e.patch.items() if not self.is_void(e, f, out, gone)})
        copy.effective, copy.mark, copy.real = e.effective, e.mark, e
        return copy
