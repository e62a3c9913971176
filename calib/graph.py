"""The order of calibrations: which goes after which. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches

After = Mapping[str, Sequence[str]]
"""kind to the kinds whose fresh result it wants first"""


def before(after: After) -> dict[str, frozenset[str]]:
    """By kind, all that go before it. What is not calibrated here is left out: it goes before nothing.

    Raises ValueError where kinds go after each other.

    >>> found = before({"gain": ["pedestal"], "beamspot": ["gain", "magnet"], "pedestal": []})
    >>> sorted(found["beamspot"]), sorted(found["pedestal"])
    (['gain', 'pedestal'], [])
    """
    found: dict[str, frozenset[str]] = {}
    for kind in in_order(after):
        first = [other for other in after[kind] if other in after]
        found[kind] = frozenset(first).union(*(found[other] for other in first))
    return found


def levels(after: After) -> dict[str, int]:
    """By kind, how many passes go before its own where all of them find something: the longest way to it.

    >>> levels({"beamspot": ["alignment"], "alignment": ["gain"], "gain": [], "status": []})
    {'gain': 0, 'status': 0, 'alignment': 1, 'beamspot': 2}
    """
    found: dict[str, int] = {}
    for kind in in_order(after):
        found[kind] = max((found[other] + 1 for other in after[kind] if other in after), default=0)
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


def in_order(after: After) -> list[str]:
    """The kinds, each behind all that go before it. Raises ValueError where kinds go after each other."""
    left, found = dict.fromkeys(sorted(after)), dict[str, None]()
    while left:
        free = [kind for kind in left if not any(other in left for other in after[kind])]
        if not free:
            raise ValueError(f"calibrations go after each other: {_cycle(after, left)}")
        for kind in free:
            del left[kind]
        found.update(dict.fromkeys(free))
    return list(found)


def _cycle(after: After, left: Collection[str]) -> str:
    way = [min(left)]
    while way[-1] not in way[:-1]:
        way.append(min(other for other in after[way[-1]] if other in left))
    return " -> ".join(reversed(way[way.index(way[-1]) :]))


def wrong_order(after: After, known: Collection[str]) -> Iterator[str]:
    """What is wrong with an order, in words; `known` are all kinds of conditions, also those not calibrated.

    A kind that is not known is one that this detector does not have, unless it is all but the name of one that it has.
    """
    kinds = {*known, *after}
    for kind, others in sorted(after.items()):
        for other in others:
            near = get_close_matches(other, sorted(kinds - {kind}), 1, cutoff=0.8) if other not in kinds else ()
            if near:
                yield f"{kind} goes after {other!r}, which is no kind: did you mean {near[0]!r}?"
    try:
        in_order(after)
    except ValueError as cycle:
        yield str(cycle)
