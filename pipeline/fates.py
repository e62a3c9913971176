"""What became of payloads that people brought in or took back, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from calib.late import Fate, FateKind
from pipeline.conditions_words import spoken

SEVERAL = 2
"""more lines than this are counted up: that many has one payload in both tags of its kind"""


@dataclass(frozen=True)
class Fates:
    """Fates in order; in words the payloads that were there already, or that their form or gates speak against, and
    what else there is to say."""

    fates: tuple[Fate, ...] = ()
    there: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all went in, 3 some stayed out: their form, the gates or the tag were against them."""
        return 3 if self.rejected or any(fate.kind is FateKind.REFUSED for fate in self.fates) else 0

    def __str__(self) -> str:
        lines = [*map(fate_text, self.fates), *_apart(self.fates), *self.there, *self.rejected]
        counts = Counter(fate.kind.value for fate in self.fates)
        counts.update({"there already": len(self.there), "rejected": len(self.rejected)})
        in_all = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        lines += [in_all] if len(lines) > SEVERAL else []
        return "\n".join([*lines, *self.notes]) or "there was no payload"

    __repr__ = __str__


def _apart(fates: Sequence[Fate]) -> Iterator[str]:
    """Tags that differ because one took a payload that another refused, each pair once."""
    taken: dict[str, list[Fate]] = {}
    for fate in fates:
        taken.setdefault(fate.payload_id, []).append(fate)
    found = {
        (one.tag, other.tag): one.asked
        for same in taken.values()
        for one in same
        for other in same
        if one.asked == other.asked and one.kind is FateKind.REFUSED and other.given is not None
    }
    for (one_tag, other_tag), asked in found.items():
        yield (
            f"{one_tag} and {other_tag} now differ from {spoken(asked)} on: see "
            f"`tier0 conditions diff {one_tag} {other_tag}`, or take it back with `withdraw --tag {other_tag}`"
        )


def fate_text(fate: Fate) -> str:
    """What became of a payload, with the settled runs it touches, which stay as they were."""
    where = f"from {spoken(fate.given)} on" if fate.given is not None else ""
    runs = f"; runs it touches: {', '.join(map(str, fate.runs))}" if fate.runs else ""
    words = " ".join(part for part in (f"{fate.tag}: {fate.kind.value}", where) if part)
    return f"{words}, payload {fate.payload_id[:12]}{': ' if fate.explanation else ''}{fate.explanation}{runs}"
