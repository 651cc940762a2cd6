"""The rule by which edits are merged, in the plainest form.

Written from the texts, not from the C code, and slow on purpose: everything
is computed from the whole set of events, each time anew.  One Aggregate is
one row of a tracked table; accept() takes an edit as esync_submit does.

Times are integers (microseconds).  A version is an event's place in the order
of arrival; everything else must not depend on that order.
"""

NEVER = -10 ** 18               # -infinity
HEAD = object()                 # base of an edit that names none and may: the head


REMOVED = ('removed',)          # what a patch says of a member that is no longer there


def put(document, path, value):
    """Sets or removes one place.  What is on the way to a value and no object becomes one."""
    for name in path[:-1]:
        way = document.get(name)
        if not isinstance(way, dict) and value is REMOVED:
            return
        document[name] = dict(way) if isinstance(way, dict) else {}
        document = document[name]
    if value is REMOVED:
        document.pop(path[-1], None)
    else:
        document[path[-1]] = value


class Edit:
    """What an author did, as it is sent."""

    def __init__(self, op, submit, base=HEAD, device=None, seq=None, set=None, document=None, shown=None, user=None, mark=None):
        self.op = op            # create, update, delete, restore, save
        self.submit = submit    # as corrected
        self.base = base        # base_version; None: only `shown` is sent
        self.device = device
        self.seq = seq
        self.set = set
        self.document = document
        self.shown = shown      # what the contract calls base: a document, whole or in part
        self.user = user
        self.mark = mark        # what plain SQL writes into the tombstone column

    def __repr__(self):
        said = ['%s=%r' % (k, v) for k, v in sorted(self.__dict__.items()) if v is not None and k not in ('op', 'user')]
        return '%s(%s)' % (self.op, ', '.join(said))


class Event:
    """An accepted edit.  patch: field -> value set; deletes: what it writes to the delete register."""

    def __init__(self, version, kind, base, device, seq, submit, patch, deletes=None, defaults=None, user=None):
        self.version = version
        self.kind = kind        # Created, Updated, Deleted, Restored, Baseline
        self.base = base
        self.device = device
        self.seq = seq
        self.submit = submit
        self.patch = patch
        self.deletes = deletes
        self.defaults = defaults or {}
        self.user = user
        self.nothing_seen = False
        self.mark = None
        self.effective = None

    def stamp(self):
        """The greater one shows.  NULL is lowest; devices compare bytewise."""
        device = b'' if self.device is None else self.device.encode()
        return (self.effective, self.device is not None, device, self.seq or 0, self.version)

    def is_ground(self):
        return self.kind == 'Baseline'

    def __repr__(self):
        return '%d %s %s of %s/%s base %d eff %d' % (
            self.version, self.kind, self.patch, self.device, self.seq, self.base, self.effective)


def saw(e, x):
    """Had the author of e seen x?  The base, the device's own earlier edits, the ground."""
    if x is e:
        return False
    if x.is_ground() or x.version <= e.base:
        return True
    return follows(e, x)


def follows(e, x):
    """Is x an earlier edit of the device that e comes from?  Devices and numbers that are not there are not equal.

    Not one that came again with a newer base: assumed, that it names e among what it had seen counts for more.
    """
    return (e.device is not None and e.device == x.device and e.seq is not None and x.seq is not None and
            x.seq < e.seq and not (isinstance(e, Event) and isinstance(x, Event) and e.version <= x.base))


def clash(e, x):
    return not saw(e, x) and not saw(x, e)


class Rejected(Exception):
    """The code of the contract."""


class Aggregate:
    """One row and all that happened to it."""

    def __init__(self, defaults, groups=None, tombstone=False):
        self.defaults = defaults        # column -> its default; the key is no column here
        self.groups = groups or {}      # name of the group -> its columns
        self.tombstone = tombstone      # deletes are soft
        self.events = []

    # -------------------------------------------------------------- the past

    def head(self):
        return self.events[-1].version if self.events else 0

    def upto(self, version):
        return [x for x in self.events if x.version <= version]

    def ground(self, row):
        """The row was there before any event."""
        e = Event(1, 'Baseline', 0, None, None, NEVER, dict(self.defaults, **row), False)
        e.effective = NEVER
        self.events.append(e)

    # -------------------------------------------------------------- the fold

    @staticmethod
    def registers(events):
        """field -> (stamp, value, event): the greatest stamp.  Defaults lie below everything."""
        found = {}
        for e in events:
            for values, stamp in ((e.defaults, (NEVER - 1, False, b'', 0, e.version)), (e.patch, e.stamp())):
                for field, value in values.items():
                    if field not in found or stamp > found[field][0]:
                        found[field] = (stamp, value, e)
        return found

    @staticmethod
    def delete_register(events):
        """The event whose word on the row's life counts; None: there never was one."""
        writers = [e for e in events if e.deletes is not None]
        return max(writers, key=Event.stamp) if writers else None

    def state(self, events):
        """The fields, and is the row deleted?  (None, None) where there never was a row."""
        word = self.delete_register(events)
        if word is None:
            return None, None
        values = {f: None for f in self.defaults}
        values.update((f, r[1]) for f, r in self.registers(events).items())
        return values, word.deletes

    def fields(self):
        """What the row holds, or would hold if it were not deleted."""
        return self.state(self.events)[0]

    def deleted(self):
        return self.state(self.events)[1]

    def row(self, events=None):
        """The row of the table: None where it is gone; a soft delete keeps it."""
        events = self.events if events is None else events
        values, deleted = self.state(events)
        if values is None or (deleted and not self.tombstone):
            return None
        if self.tombstone:
            word = self.delete_register(events)
            values['deleted_at'] = (word.mark or word.effective) if deleted else None
        return values

    # ------------------------------------------------------------- an edit

    def shown_at(self, version, edit):
        """What the device showed: the row at that version, its own edits beyond it laid over."""
        values, deleted = self.state(self.upto(version))
        own = [x for x in self.events if x.version > version and follows(edit, x)]
        for x in sorted(own, key=lambda x: x.seq):
            values = dict(values or {}, **x.patch)
            if x.deletes is not None:
                deleted = x.deletes
        return values, deleted

    def base_of(self, edit):
        """The version that the author had seen, and whether not even that."""
        if edit.base is HEAD:
            return self.head(), False
        if edit.base is not None:
            return min(edit.base, self.head()), False
        created = any(follows(edit, x) and x.deletes is False for x in self.events)
        nothing = [0] if created and not self.events[0].is_ground() else []
        for version in nothing + [x.version for x in self.events]:
            values, deleted = self.shown_at(version, edit)
            if values is not None and (self.tombstone or not deleted) and all(f in values and values[f] == v for f, v in edit.shown.items()):
                return version, False
        sent = edit.document if edit.document is not None else edit.set or {}
        if edit.op != 'delete' and not set(sent) <= set(edit.shown):
            raise Rejected('base_unknown')
        return 1 if self.events and self.events[0].is_ground() else 0, True

    def changes(self, values, edit):
        """The sent members that differ from what was shown; of a group all members, as the author saw them."""
        sent = edit.document if edit.document is not None else edit.set or {}
        patch = {f: v for f, v in sent.items() if f not in (values or {}) or values[f] != v}
        for members in self.groups.values():
            if any(f in patch for f in members):
                for f in members:
                    patch.setdefault(f, (values or {}).get(f))
        return patch

    def accept(self, edit):
        """The event that an edit makes; None: it changed nothing."""
        base, nothing = self.base_of(edit)
        values, deleted = self.shown_at(base, edit)
        if edit.shown is not None:
            values = dict(values or {}, **edit.shown)
            deleted = bool(deleted)
        if edit.op not in ('create', 'save') and not self.events:
            raise Rejected('not_found')
        kind, patch, deletes, defaults = self.meaning(edit, values, deleted)
        if kind is None:
            return None
        e = Event(self.head() + 1, kind, base, edit.device, edit.seq, edit.submit, patch, deletes, defaults, edit.user)
        e.nothing_seen = nothing
        e.mark = edit.mark
        e.effective = self.effective(e)
        self.events.append(e)
        return e

    def meaning(self, edit, values, deleted):
        """What an edit does, given what its author was shown: kind, patch, deletes, defaults."""
        if edit.op == 'delete':
            return (None,) * 4 if deleted else ('Deleted', {}, True, None)
        if edit.op == 'restore':
            return ('Restored', {}, False, None) if deleted else (None,) * 4
        sent = edit.document if edit.document is not None else edit.set or {}
        if edit.op == 'create' and values is not None and deleted is False:
            raise Rejected('constraint')
        if edit.op == 'create' or (edit.op == 'save' and values is None):
            # where others were there first, no default was ever given: what is not named is as they leave it
            rest = {f: v for f, v in self.defaults.items() if f not in sent}
            if deleted:
                return 'Created', dict(rest, **sent), False, None
            whole = {f for members in self.groups.values() if set(members) & set(sent) for f in members}
            patch = dict({f: rest.pop(f) for f in whole if f in rest}, **sent)
            return 'Created', patch, False, {} if self.events else rest
        patch = self.changes(values, edit)
        if edit.op == 'save' and deleted:
            return 'Restored', patch, False, None
        return ('Updated', patch, None, None) if patch else (None,) * 4

    def effective(self, e):
        """Never before what its author had seen; never beyond what the device did later."""
        submit = min([e.submit] + [x.effective for x in self.events if follows(x, e)])
        return max([submit] + [x.effective + 1 for x in self.events if saw(e, x) and x.effective > NEVER])

    # ------------------------------------------------------------- conflicts

    @staticmethod
    def maximal(events):
        """Those that none of the others had seen."""
        return [x for x in events if not any(saw(y, x) for y in events)]

    def registers_of(self, e):
        """What an event sets, a group being one thing: name -> value."""
        sets = {}
        for f, v in e.patch.items():
            if self.register_of(f) in self.groups:
                sets.setdefault(self.register_of(f), {})[f] = v
            else:
                sets[f] = v
        return sets

    def register_of(self, field):
        """The name of its group, or its own."""
        return next((g for g, members in self.groups.items() if field in members), field)

    def contenders(self, name):
        """Who sets that field, unseen by any other who does."""
        return self.maximal([e for e in self.events if not e.is_ground() and name in self.registers_of(e)])

    def delete_contenders(self):
        """Deletes, and what they and it had not seen of each other: other words on life, edits."""
        writers = [e for e in self.events if e.deletes is not None]
        words = self.maximal(writers)
        edits = [e for e in self.events if e.deletes is None and not any(saw(w, e) for w in writers)]
        pairs = [(d, x) for d in words if d.deletes
                 for x in [h for h in words if not h.deletes and clash(d, h)] + self.maximal([e for e in edits if clash(d, e)])]
        return sorted({e for pair in pairs for e in pair}, key=lambda e: e.version)

    def conflicts(self):
        """field (None: the row as a whole) -> (kind, contenders), of what is open."""
        found = {}
        for name in {n for e in self.events if not e.is_ground() for n in self.registers_of(e)}:
            who = self.contenders(name)
            values = [self.registers_of(e)[name] for e in who]
            if any(v != values[0] for v in values):
                kind = 'create_create' if all(e.kind == 'Created' for e in who) else 'field'
                found[name] = (kind, who)
        who = self.delete_contenders()
        if who:
            found[None] = ('delete_edit', who)
        return found

    def in_conflict(self, e):
        """The fields in which an event is a contender."""
        return {f for f, (_, who) in self.conflicts().items() if e in who}

    def shown_event(self, name):
        """Whose value of a field the row shows; of None: whose word on its life counts among the contenders."""
        if name is None:
            return self.delete_register(self.delete_contenders())
        return self.registers(self.events)[self.groups.get(name, [name])[0]][2]

    def base_value(self, name):
        """A field before all contenders: at the lowest of their bases."""
        values, _ = self.state(self.upto(min(e.base for e in self.contenders(name))))
        if name in self.groups:
            return None if values is None else {f: values[f] for f in self.groups[name]}
        return None if values is None else values[name]

    def statuses(self):
        """(field, version) -> current, conflict or past, of everything that anyone set."""
        current = {f: r[2] for f, r in self.registers(self.events).items()}
        open_ = self.conflicts()
        found = {}
        for e in self.events:
            for f in e.patch:
                if current[f] is e:
                    found[f, e.version] = 'current'
                elif e in open_.get(self.register_of(f), (None, []))[1]:
                    found[f, e.version] = 'conflict'
                else:
                    found[f, e.version] = 'past'
        return found

    def sees_others(self, edit_base, device):
        """Did anything but that device's own happen beyond the base?"""
        return any(x.version > edit_base and (device is None or x.device != device) for x in self.events)
