"""The conditions database: tags that only grow, settling, and the fate of late payloads."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count, pairwise
from typing import Any

from sqlalchemy import Row, insert, select, update

from calib import lookup
from calib.iov import Clock
from calib.late import Asked, Fate, FateKind, Ruling, SettledRun, Withdrawal, rule, rule_withdrawal
from calib.payload import Payload
from calib.reading import WRITES, ConditionsReader, fate_of
from calib.schema import entries, fates, global_tags, last_sequence, members, settled, tags
from calib.tags import (
    BadName,
    Beginning,
    Moment,
    Snapshot,
    SnapshotOutdated,
    Stamp,
    Sync,
    Tag,
    TagExists,
    WrongKind,
    microseconds,
)


class ConditionsDB(ConditionsReader):
    """Reads and writes conditions in the caller's transaction; nothing is there before the caller commits.

    Writers take turns: the first write of a transaction waits for the one before to commit, so an append always
    sees what was settled, and the other way round.
    """

    def create_tag(self, name: str, kind: str, clock: Clock, sync: Sync) -> Tag:
        """A new empty tag. The same again is no error; TagExists when the name means something else."""
        self._take_turn()
        asked = {"kind": kind, "clock": Clock(clock).value, "sync": Sync(sync).value}
        row = self._connection.execute(select(tags).where(tags.c.name == name)).one_or_none()
        if row is None:
            self._connection.execute(insert(tags).values(name=_name(name), **asked))
        elif asked != {key: row._mapping[key] for key in asked}:
            raise TagExists(
                f"tag {name!r} exists, of kind {row.kind}, by {row.clock}, for {row.sync}; take another name"
            )
        return self.tag(name)

    def define_global_tag(self, name: str, tag_of_kind: Mapping[str, str]) -> None:
        """Name a set of tags, one a kind, for ever. The same again is no error.

        Raises TagExists when the name means another set, UnknownTag, and WrongKind for a tag of another kind.
        """
        self._take_turn()
        chosen = {kind: self.tag(tag) for kind, tag in tag_of_kind.items()}
        for kind, tag in chosen.items():
            if tag.kind != kind:
                raise WrongKind(f"tag {tag.name} holds {tag.kind!r}, not {kind!r}")
        if name in self.global_tags():
            if self.global_tag(name) != chosen:
                raise TagExists(f"global tag {name!r} exists and never changes; define one of another name")
            return
        added = self._connection.execute(insert(global_tags).values(name=_name(name)).returning(global_tags.c.id))
        number = added.scalar_one()
        rows = [{"global_tag_id": number, "kind": kind, "tag_id": tag.number} for kind, tag in chosen.items()]
        if rows:
            self._connection.execute(insert(members), rows)

    def append(
        self,
        tag: str,
        since: Moment,
        payload: Payload | str,
        stamp: Stamp,
        info: Mapping[str, Any] | None = None,
    ) -> Fate:
        """Enter a payload, or the id of one in the store, from `since` to the next entry of the tag.

        No settled answer changes; the Fate says what came of it. `info` (JSON: run, lineage, flags) is kept with it.
        Raises UnknownTag, WrongKind, PayloadMissing, and ValueError for a moment of another clock.
        """
        known = self.tag(tag)
        position = known.position(since)
        payload_id = self._stored(known, payload)
        self._take_turn()
        self._stored(known, payload)  # again: while others had the turn it may have been deleted, as nothing named it
        asked = self._asked(known, position)
        note = _Note(known, stamp, dict(info or {}))
        ruling = rule(asked)
        sequence = None
        if ruling.since is not None:
            before = None if ruling.until is None else self._in_force(known, ruling.until)
            into = replace(note, tag=ruling.into or known)
            sequence = self._enter(into, ruling.since, payload_id, {"asked": position})
            if ruling.until is not None:
                self._enter_again(note.because(sequence, "keeps the answer of a settled run"), ruling.until, before)
        return self._told(note, payload_id, ruling, _Late(position, asked.touched), sequence)

    def fill(self, tag: str, history: Sequence[Beginning], stamp: Stamp) -> None:
        """Enter a whole history, of payloads in the store, into a tag that is empty.

        Raises UnknownTag, TagExists when the tag has entries or settled runs, WrongKind, PayloadMissing, and ValueError
        for moments out of order.
        """
        known = self.tag(tag)
        positions = [known.position(one.since) for one in history]
        if any(before >= after for before, after in pairwise(positions)):
            raise ValueError(f"the entries for tag {tag} must be in order, each moment once")
        self._take_turn()  # first, so that no payload is deleted any more
        for payload_id in sorted({one.payload_id for one in history if one.payload_id is not None}):
            if (kind := self.store.kind_of(payload_id)) != known.kind:
                raise WrongKind(f"tag {tag} holds {known.kind!r}; payload {payload_id} is of kind {kind!r}")
        used = select(entries.c.sequence).where(entries.c.tag_id == known.number).limit(1)
        if self._connection.execute(used).first() is not None or self.settled_runs(tag):
            raise TagExists(f"tag {tag!r} is in use already; only an empty one can be filled: take another name")
        first = self._newest() + 1
        rows = [
            {"sequence": number, "since": at, "payload_id": one.payload_id, "asked": at, "origin": number}
            | _Note(known, stamp, one.info).columns()
            for number, at, one in zip(count(first), positions, history, strict=False)
        ]
        if rows:
            self._connection.execute(update(last_sequence).values(last=last_sequence.c.last + len(rows)))
            self._connection.execute(insert(entries), rows)

    def withdraw(self, tag: str, since: Moment, stamp: Stamp) -> Fate:
        """Take back the payload that begins at `since`: where no run is settled, what was there before it holds again.

        In settled runs it stays the answer; it ends where the first unsettled moment after each begins. Raises
        UnknownTag, and ValueError without a reason or when no payload begins there.
        """
        if not stamp.reason.strip():
            raise ValueError("a withdrawal needs a reason")
        known = self.tag(tag)
        position = known.position(since)
        self._take_turn()
        entry = self._in_force(known, position)
        if entry is None or entry.since != position or entry.payload_id is None:
            begins = "none" if entry is None else str(known.moment(entry.since))
            raise ValueError(f"no payload of {tag} begins at {since}; the entry that holds there begins at {begins}")
        return self._withdraw(_Note(known, stamp, {}), entry)

    def settle(
        self,
        run: int,
        snapshot: Snapshot,
        now: datetime,
        times: tuple[int, int] | None = None,
        kinds: Collection[str] | None = None,
    ) -> list[str]:
        """Fix what the tags of the snapshot, of these kinds or all, answer for a run; gives those for which it is new.

        `times`, begin and end of the run in ns since 1970, are needed by tags that go by time. Raises
        SnapshotOutdated when a tag has since been given another answer for this run: nothing is settled then. Raises
        ValueError for a kind that the global tag has not.
        """
        self._take_turn()
        newest = self._newest()
        if snapshot.sequence > newest:
            raise ValueError(f"snapshot {snapshot} is of another database; the newest entry here is {newest}")
        new, rows = [], []
        for tag in self._chosen(snapshot.global_tag, kinds):
            since, until = tag.range_of(run, times)
            if self._steps(tag, since, until, snapshot.sequence) != self._steps(tag, since, until, newest):
                raise SnapshotOutdated(f"tag {tag.name} has a newer answer for run {run} than {snapshot}")
            if self._newly_settled(tag, SettledRun(run, since, until)):
                new.append(tag.name)
                rows.append({"tag_id": tag.number, "since": since, "until": until})
        record = {"run": run, "recorded_us": microseconds(now), **snapshot._asdict()}
        if rows:
            self._connection.execute(insert(settled), [row | record for row in rows])
        return new

    def _chosen(self, global_tag: str, kinds: Collection[str] | None) -> list[Tag]:
        of_kind = self.global_tag(global_tag)
        if unknown := sorted(set(kinds or ()) - of_kind.keys()):
            raise ValueError(f"global tag {global_tag!r} has no kind {', '.join(unknown)}")
        return [tag for kind, tag in of_kind.items() if kinds is None or kind in kinds]

    def _take_turn(self) -> None:
        # An update that changes nothing takes the write lock on SQLite and the row lock on PostgreSQL.
        turn = update(last_sequence).values(last=last_sequence.c.last)
        if self._connection.execute(turn).rowcount != 1:
            raise RuntimeError("the conditions tables are not set up; create conditions_metadata with create_all")
        self._connection.info[WRITES] = weakref.ref(self._connection.get_transaction())

    def _stored(self, tag: Tag, payload: Payload | str) -> str:
        content = self.store.get(payload) if isinstance(payload, str) else payload
        if content.kind != tag.kind:
            raise WrongKind(f"tag {tag.name} holds {tag.kind!r}; this payload is of kind {content.kind!r}")
        return self.store.put(content)

    def _asked(self, tag: Tag, position: int) -> Asked:
        following = self._following(tag, position)
        touched = self._settled_in(tag, position, following)
        if not touched:
            return Asked(tag, position, following, touched, first_safe=position)
        first_safe = self._first_safe(tag)
        holds = self._in_force(tag, first_safe)
        newer = None if holds is None or holds.payload_id is None else holds.asked
        unused = self._unused(tag) if tag.sync is Sync.OFFLINE else None
        return Asked(tag, position, following, touched, first_safe, newer, unused)

    def _newly_settled(self, tag: Tag, asked: SettledRun) -> bool:
        known = select(settled.c.run, settled.c.since, settled.c.until).where(
            settled.c.tag_id == tag.number, settled.c.run == asked.run
        )
        row = self._connection.execute(known).one_or_none()
        if row is not None and tuple(row) != asked:
            raise ValueError(f"tag {tag.name}: run {asked.run} is settled with other times, {row.since} to {row.until}")
        return row is None

    def _withdraw(self, note: _Note, entry: Row[Any]) -> Fate:
        if self._is_recalled(entry):
            settled_only = Ruling(FateKind.REFUSED, None, None, "withdrawn before; it holds in settled runs only")
            touched = self._settled_in(note.tag, entry.since, self._following(note.tag, entry.since))
            return self._told(note, entry.payload_id, settled_only, _Late(entry.since, touched))
        # Copies of the payload made to keep settled answers go with it, else they would bring it back in later runs.
        family = self._connection.execute(lookup.FAMILY, {"origin": entry.origin, "as_of": self._newest()}).all()
        planned = [(member, *self._withdrawal(note.tag, member)) for member in family]
        plans = {member.sequence: plan for member, plan, _ in planned}
        own = plans[entry.sequence]
        takes = {"withdraws": entry.sequence} if own.whole else {}
        sequence = self._enter(note, entry.since, None, {"recalls": entry.origin} | takes)
        for member in family:
            if plans[member.sequence].whole and member.sequence != entry.sequence:
                self._enter(
                    note.because(sequence, "withdrawn with it"), member.since, None, {"withdraws": member.sequence}
                )
        for member in family:
            self._carry_out(note, sequence, member, plans[member.sequence])
        touched = sorted({run for _, _, runs in planned for run in runs})
        ruling = rule_withdrawal(note.tag, own, plans.values())
        return self._told(note, entry.payload_id, ruling, _Late(entry.since, touched), sequence)

    def _withdrawal(self, tag: Tag, entry: Row[Any]) -> tuple[Withdrawal, list[SettledRun]]:
        following = self._following(tag, entry.since)
        top = self._in_force(tag, entry.since)
        if top is not None and top.sequence != entry.sequence:
            return Withdrawal(entry.since, following, whole=True, hidden=True), []
        touched = self._settled_in(tag, entry.since, following)
        return Withdrawal.of(entry.since, following, touched), touched

    def _carry_out(self, note: _Note, because: int, entry: Row[Any], plan: Withdrawal) -> None:
        if plan.whole and not plan.hidden:
            uncovered = self._in_force(note.tag, entry.since)
            # What a settled run before keeps must not spread to here.
            if uncovered is not None and self._is_recalled(uncovered):
                self._enter_sound(note, because, entry.since)
        for position, ends in plan.steps:
            if ends:
                self._enter_sound(note, because, position)
            else:
                self._enter_again(note.because(because, "keeps the answer of a settled run"), position, entry)

    def _enter_sound(self, note: _Note, because: int, position: int) -> None:
        asked = {"tag": note.tag.number, "at": position, "as_of": self._newest()}
        holds = self._connection.execute(lookup.SOUND, asked).one_or_none()
        self._enter_again(note.because(because, "holds since the withdrawal"), position, holds)

    def _is_recalled(self, entry: Row[Any]) -> bool:
        return bool(self._connection.execute(lookup.IS_RECALLED, {"sequence": entry.sequence}).scalar_one())

    def _in_force(self, tag: Tag, position: int) -> Row[Any] | None:
        asked = {"tag": tag.number, "at": position, "as_of": self._newest()}
        return self._connection.execute(lookup.IN_FORCE, asked).one_or_none()

    def _following(self, tag: Tag, position: int) -> int | None:
        asked = {"tag": tag.number, "at": position, "as_of": self._newest()}
        return self._connection.execute(lookup.FOLLOWING, asked).scalar_one_or_none()

    def _enter_again(self, note: _Note, position: int, holds: Row[Any] | None) -> None:
        if holds is None or holds.payload_id is None:
            self._enter(note, position, None)
        else:
            self._enter(note, position, holds.payload_id, {"asked": holds.asked, "origin": holds.origin})

    def _enter(self, note: _Note, position: int, payload_id: str | None, more: Mapping[str, int] | None = None) -> int:
        grown = update(last_sequence).values(last=last_sequence.c.last + 1).returning(last_sequence.c.last)
        sequence = int(self._connection.execute(grown).scalar_one())
        row = {"sequence": sequence, "since": position, "payload_id": payload_id, "asked": position, "origin": sequence}
        self._connection.execute(insert(entries), row | dict(more or {}) | note.columns())
        return sequence

    def _told(self, note: _Note, payload_id: str, ruling: Ruling, late: _Late, sequence: int | None = None) -> Fate:
        tag, runs = note.tag, [touched.run for touched in late.touched]
        row = {
            "kind": ruling.kind.value,
            "payload_id": payload_id,
            "asked": late.asked,
            "given": ruling.since,
            "until": ruling.until,
            "sequence": sequence,
            "runs": runs,
            "explanation": ruling.explanation,
        }
        if runs:
            self._connection.execute(insert(fates), row | note.columns())
        return fate_of(tag, row | {"into": None if ruling.into is None else ruling.into.name})


@dataclass(frozen=True)
class _Late:
    asked: int
    touched: Sequence[SettledRun]


@dataclass(frozen=True)
class _Note:
    """What an entry says beside its payload."""

    tag: Tag
    stamp: Stamp
    info: Mapping[str, Any]

    def because(self, sequence: int, why: str) -> _Note:
        return replace(self, info={"because_of": sequence, "why": why})

    def columns(self) -> dict[str, Any]:
        return {
            "tag_id": self.tag.number,
            "author": self.stamp.author,
            "recorded_us": microseconds(self.stamp.now),
            "reason": self.stamp.reason,
            "info": dict(self.info),
        }


def _name(name: str) -> str:
    if not name or name != name.strip() or "@" in name:
        raise BadName(f"{name!r} is no name for a tag; use words without @ and without spaces around them")
    return name
