"""Groups of channels of several sorts, one sort after the other, such as those of thin and of thick sensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sorts:
    """Each sort by its first group, of so many groups in all. Raises ValueError where the first do not rise from 0."""

    first: tuple[int, ...]
    groups: int

    def __post_init__(self) -> None:
        if self.first[:1] != (0,) or sorted({*self.first, self.groups}) != [*self.first, self.groups]:
            raise ValueError(f"`first` must rise from 0 and stay below {self.groups}, not {self.first}")

    def __iter__(self) -> Iterator[slice]:
        """The groups of each sort."""
        return map(slice, self.first, (*self.first[1:], self.groups))

    def by_group(self, of_sort: Sequence[float]) -> NDArray[np.float64]:
        """What each group has of its sort, [groups].

        >>> Sorts((0, 2), 5).by_group([0.5, 2.0])
        array([0.5, 0.5, 2. , 2. , 2. ])
        """
        return np.repeat(np.asarray(of_sort, np.float64), np.diff([*self.first, self.groups]))
