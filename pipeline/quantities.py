"""How settings write shares, times, sizes and runs, and what they mean."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Annotated, Any, NamedTuple

from pydantic import PlainSerializer, PlainValidator

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("min", "minute", "minutes"), _MINUTE),
    **dict.fromkeys(("h", "hour", "hours"), _HOUR),
    **dict.fromkeys(("d", "day", "days"), _DAY),
}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "kiB": 2**10, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Runs(NamedTuple):
    """Runs `first` to `last`, both included; `last` None is open.

    >>> Runs.parse("190456-193621"), Runs.parse("190456").last, Runs.parse("190456-").last
    (Runs(first=190456, last=193621), 190456, None)
    """

    first: int
    last: int | None

    @classmethod
    def parse(cls, text: str) -> Runs:
        """Read `run`, `first-last` or `first-`. Raises ValueError."""
        found = re.fullmatch(r"\s*(\d+)\s*(?:(-)\s*(\d*)\s*)?", text)
        if not found:
            raise ValueError(f"{text!r} is no run range; write '190456-193621', '190456' or '190456-'")
        first, dash, last = found.groups()
        runs = cls(int(first), int(last) if last else None if dash else int(first))
        if runs.last is not None and runs.last < runs.first:
            raise ValueError(f"the run range {text!r} ends before it begins")
        return runs

    def has(self, run: int) -> bool:
        """Whether a run is among them."""
        return self.first <= run and (self.last is None or run <= self.last)

    def overlaps(self, other: Runs) -> bool:
        """Whether some run is in both."""
        return self.has(other.first) or other.has(self.first)


def parse_share(value: Any) -> Fraction:
    """A share of the events, exactly as it is written: 0.1 is one tenth. Raises ValueError.

    >>> parse_share(0.1), parse_share("1/3")
    (Fraction(1, 10), Fraction(1, 3))
    """
    try:
        # Through the text, for a binary 0.1 is not one tenth.
        share = value if isinstance(value, Fraction) else Fraction(str(value).strip())
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if isinstance(value, bool) or not 0 < share <= 1:
        raise ValueError(f"{value!r} is no share above 0 and up to 1; write 0.1 or '1/3'")
    if share.denominator >= 1 << 31:
        raise ValueError(f"{value!r} has a denominator of 2^31 or more; write a simpler share")
    return share


def parse_seconds(value: Any) -> float:
    """A time in seconds: a number of them, or a text such as '48h', '1h 30min'. Raises ValueError.

    >>> parse_seconds("48h"), parse_seconds("1h 30min"), parse_seconds(10)
    (172800.0, 5400.0, 10.0)
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        seconds = float(_sum(value, _SECONDS, "a time; write '48h', '30min' or '10s'"))
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{value!r} is no time from now on; write '48h', '30min' or '10s'")
    return seconds


def parse_bytes(value: Any) -> int:
    """A size in bytes: a number of them, or a text such as '64 MB' or '1 GiB'. Raises ValueError.

    >>> parse_bytes("64 MB"), parse_bytes("1KiB")
    (64000000, 1024)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        size = int(_sum(value, _BYTES, "a size; write '64 MB' or '1 GiB'"))
    if size < 1:
        raise ValueError(f"{value!r} is no size; write '64 MB' or '1 GiB'")
    return size


def seconds_text(seconds: float) -> str:
    """A time as it is written in settings.

    >>> seconds_text(172800.0), seconds_text(90.0), seconds_text(0.5)
    ('48h', '90s', '0.5s')
    """
    for unit in ("h", "min"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds) // _SECONDS[unit]}{unit}"
    return f"{Decimal(repr(seconds)):f}".removesuffix(".0") + "s"


def bytes_text(size: float) -> str:
    """A size for people, in powers of a thousand.

    >>> bytes_text(512), bytes_text(64_000_000), bytes_text(1_234)
    ('512 B', '64 MB', '1.23 kB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"


def _sum(value: Any, units: dict[str, int], expected: str) -> Decimal:
    parts = re.findall(r"\s*([\d.]+)\s*([A-Za-z]+)\s*", value) if isinstance(value, str) else []
    rest = re.sub(r"\s*([\d.]+)\s*([A-Za-z]+)\s*", "", value) if isinstance(value, str) else "?"
    try:
        if not parts or rest:
            raise KeyError(value)
        return sum((Decimal(number) * units[unit] for number, unit in parts), Decimal(0))
    except (KeyError, InvalidOperation):
        raise ValueError(f"{value!r} is not {expected}") from None


Share = Annotated[Fraction, PlainValidator(parse_share), PlainSerializer(str)]
Seconds = Annotated[float, PlainValidator(parse_seconds), PlainSerializer(seconds_text)]
Size = Annotated[int, PlainValidator(parse_bytes)]
