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
                        return x
                if name is not None:
                    return None     # what the row shows was said by none of them

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

    def follow_policy(self, e, submit):
        """What the table's policy makes of an edit that conflicts: the decision, or None."""
        names = self.in_conflict(e)
        if self.policy == 'merge' or not names:
            return None
        if self.policy == 'reject':
            self.events.remove(e)
            raise Rejected('conflict')
        values, deletes, confirms = {}, None, {}
        for name in names:
            if self.policy == 'server_wins':
                before = self.upto(e.version - 1)
                said = ({}, bool(self.state(before)[1])) if name is None else (self.in_fold(name, before), None)
            elif self.policy == 'client_wins':
                said = self.by_strategy(name, 'client_wins')
            else:
                said, confirms[name] = self.latest(name)
            values.update(said[0])
            deletes = said[1] if said[1] is not None else deletes
        d = self.decide(values, deletes, submit, strategy=self.policy, user=e.user)
        d.confirms = confirms
        return d

    def latest(self, name):
        """What the latest edit wants, and which that is: a decision is as late as the edit that it confirmed."""
        def speaks_for(x):
            if not of(x, 'confirms'):
                return x
            if name is not None:
                return x.confirms.get(name) or x
            # whether the row lives is said by all edits that came before the decision, of any field
            side = [y for y in self.events if y.version < x.version and not y.is_ground() and bool(y.deletes) == bool(x.deletes) and not of(y, 'confirms')]
            return max(side, key=Event.stamp) if side else x
        x = max(self.conflicts()[name][1], key=lambda x: speaks_for(x).stamp())
        if name is None:
            return ({}, bool(x.deletes)), speaks_for(x)
        return (self.values_of(name, self.registers_of(x)[name]), None), speaks_for(x)

    # ------------------------------------------------------------------ undo

    def undo(self, target, submit, user=None):
        """Takes an event back: the undo, or None where nothing can be; and the fields that were put back."""
        before = self.withdrawn()
        if target in before:
            raise Rejected('undone already')
        gone = self.withdrawn(target)
        taken = gone - before
        births = [e for e in self.events if e.kind in ('Created', 'Baseline')]
        unborn = set(births) <= gone
        out = gone - (set(births) - taken if unborn else set())     # what a row held whose creation was undone before is its ground
        left = [self.without_stand_ins(e, out) for e in self.events if e not in out]
        deletes, mark, origins, patch = None, None, {}, {}
        unborn = unborn and bool(set(births) & taken)
        word, then = self.delete_register(self.events), self.delete_register(left)
        if word in taken or self.source(word, None) in taken:
            living = then is not None and not then.deletes
            if not living and not word.deletes and any(
                    e.version > target.version and e not in gone and not undoes(e) and (e.patch or e.kind == 'Created') for e in self.events):
                return None, []
            deletes = not living
            if then is not None and not unborn:
                origins[None] = self.source(of(then, 'real', then), None)
                mark = (then.mark or then.effective) if deletes else None
        if not unborn:
            now, below = self.registers(self.events), self.registers(left)
            for f in self.chain_fields(target):
                if now[f][2] in taken or self.source(now[f][2], f) in taken:
                    patch[f] = below[f][1] if f in below else None
                    if f in below:
                        origins[f] = self.source(of(below[f][2], 'real', below[f][2]), f)
        e = self.decide(patch, deletes, submit, strategy='undo', user=user)
        e.undone, e.origins, e.mark = target, {f: o for f, o in origins.items() if o not in gone}, mark
        return e, sorted(patch) + ([None] if deletes is not None else [])

    def chain_fields(self, e):
        """What it set, and where it is an undo, what it undid."""
        fields = {f: True for f in e.patch}
        return dict(fields, **(self.chain_fields(undoes(e)) if undoes(e) else {}))

    @staticmethod
    def without_stand_ins(e, gone):
        """An undo without what it put back of those who are gone."""
        origins = of(e, 'origins', {})
        if not any(o in gone for o in origins.values()):
            return e
        copy = Event(e.version, e.kind, e.base, e.device, e.seq, e.submit,
                     {f: v for f, v in e.patch.items() if origins.get(f) not in gone},
                     None if origins.get(None) in gone else e.deletes)
        copy.effective, copy.mark, copy.real = e.effective, e.mark, e
        return copy
