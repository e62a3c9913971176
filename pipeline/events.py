"""Event files, ROOT in and out: the only place that knows their format.

Handles are kept open, a bounded number in each process; a process reads with one thread.
"""

from __future__ import annotations

import difflib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray
from uproot.source.file import MultithreadedFileSource
from uproot.source.futures import TrivialExecutor

from calib.calibration import packed_units
from jobs.retry import BadData
from pipeline.experiments.interface import MissingBranch
from pipeline.model import Columns
from pipeline.whole import checksum_of, whole

HANDLES = 16
"""how many files a process keeps open"""
TREE = "Events"
HEADER = "tier0"
BASKET_EVENTS = 10_000
BASKET_BYTES = 4 << 20

_OPTIONS = {
    # Not mapped into memory: a mapped file that shrinks kills the process with SIGBUS.
    "handler": MultithreadedFileSource,
    "use_threads": False,
    "object_cache": None,
    "array_cache": None,
    "decompression_executor": TrivialExecutor(),
    "interpretation_executor": TrivialExecutor(),
}


class BadFile(BadData):
    """A file is not the event file it should be; the message says what is wrong and what to do."""


class VanishedFile(FileNotFoundError):
    """A file is not there, or no longer."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells a file from another one under the same path."""

    size: int
    modified_ns: int
    inode: int


def stamp_of(path: Path | str) -> Stamp:
    """The stamp of a file as it is now. Raises VanishedFile."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise VanishedFile(f"{path} is not there; bring it back, or take it out of the list of files") from None
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass
class _Handle:
    """An open file; what was read of its metadata, and of each column the last basket if the last read cut it."""

    file: Any
    trees: dict[str, Any] = field(default_factory=dict)
    branches: dict[str, dict[str, Any]] = field(default_factory=dict)
    ends: dict[tuple[str, str], NDArray[np.int64]] = field(default_factory=dict)
    rest: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)


_HANDLES: OrderedDict[tuple[str, Stamp], _Handle] = OrderedDict()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An event file of one moment (`pipeline.model.EventSource`): replaced under its path it is another one.

    Reading raises BadFile for what is not a sound ROOT file, VanishedFile, and MissingBranch.
    """

    path: Path
    stamp: Stamp

    @classmethod
    def open(cls, path: Path | str) -> SourceFile:
        """The file of that path as it is now."""
        source = cls(Path(path), stamp_of(path))
        source._handle()
        return source

    def branches(self, tree: str) -> frozenset[str]:
        """The columns a tree has: full names (`a/b`), and the last parts of them that are not ambiguous."""
        return frozenset(self._branches(tree))

    def entries(self, tree: str) -> int:
        """How many entries a tree has."""
        return int(self._tree(tree).num_entries)

    def breaks(self, tree: str) -> NDArray[np.int64]:
        """The entries at which something begins or ends that the file keeps together (a basket, a cluster), sorted."""
        found = [_ends(branch) for branch in self._branches(tree).values() if not getattr(branch, "branches", ())]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))

    def arrays(self, tree: str, columns: tuple[str, ...], start: int, stop: int) -> Columns:
        """These columns of entries `start` to `stop`, read-only: NumPy where flat and awkward where jagged."""
        entries = self.entries(tree)
        if not 0 <= start <= stop <= entries:
            raise BadFile(f"{self.path}: entries {start} to {stop} asked of {entries}; register the file again")
        return {name: self._column(tree, name, start, stop) for name in columns}

    def _handle(self) -> _Handle:
        key = (str(self.path), self.stamp)
        if _HANDLES and next(reversed(_HANDLES)) != key:
            # Kept baskets are for going on in the same file; a file that is left must not hold its own.
            next(reversed(_HANDLES.values())).rest.clear()
        if key not in _HANDLES:
            if stamp_of(self.path) != self.stamp:
                raise VanishedFile(f"{self.path} was replaced by another file; register it again")
            with _sound(self.path):
                _HANDLES[key] = _Handle(_opened(self.path, self.stamp))
            while len(_HANDLES) > HANDLES:
                _, oldest = _HANDLES.popitem(last=False)
                oldest.file.close()
        _HANDLES.move_to_end(key)
        return _HANDLES[key]

    def _tree(self, name: str) -> Any:
        handle = self._handle()
        if name not in handle.trees:
            with _sound(self.path):
                kinds = {key.partition(";")[0]: kind for key, kind in handle.file.classnames().items()}
                trees = sorted(key for key, kind in kinds.items() if kind in ("TTree", "ROOT::RNTuple"))
                if name in trees:
                    handle.trees[name] = handle.file[name]
            if name not in trees:
                there = f"it has {', '.join(trees)}" if trees else "it has no tree at all"
                raise BadFile(f"{self.path} has no tree {name!r}: {there}; is it a file of this experiment?")
        return handle.trees[name]

    def _branches(self, tree: str) -> dict[str, Any]:
        handle = self._handle()
        if tree not in handle.branches:
            found = self._tree(tree)
            with _sound(self.path):
                handle.branches[tree] = _by_name(found)
        return handle.branches[tree]

    def _column(self, tree: str, name: str, start: int, stop: int) -> Any:
        branch = self._branches(tree).get(name)
        if branch is None:
            near = difflib.get_close_matches(name, self._branches(tree), n=1)
            hint = f"; it has {near[0]!r}" if near else ""
            raise MissingBranch(f"{self.path}: tree {tree!r} has no column {name!r}{hint}")
        with _sound(self.path):
            return _whole(_read(self._handle(), (tree, name), branch, start, stop), stop - start)


def _opened(path: Path, stamp: Stamp) -> Any:
    file = uproot.open(path, **_OPTIONS)
    end = int(file.file.fEND)
    # The last bytes may be needed for nothing that is read; a file without them is cut short all the same.
    if not 0 < end <= stamp.size:
        file.close()
        raise ValueError(f"{stamp.size} bytes of {end}")
    return file


def _whole(values: Any, entries: int) -> Any:
    if len(values) != entries:
        raise ValueError(f"a column ends early: {len(values)} entries of {entries}")
    return values


def _by_name(tree: Any) -> dict[str, Any]:
    full = {str(name): branch for name, branch in tree.iteritems(recursive=True, full_paths=True)}
    last: dict[str, list[Any]] = {}
    for name, branch in full.items():
        last.setdefault(name.rpartition("/")[2], []).append(branch)
    return {name: found[0] for name, found in last.items() if len(found) == 1} | full


def _read(handle: _Handle, key: tuple[str, str], branch: Any, start: int, stop: int) -> Any:
    """Entries of a branch. Baskets are always read whole, so that whether one can be read does not depend on which
    entries of it are wanted; what is left of the last one is kept for the next read: chunks smaller than a basket
    then cost no more than reading the file in one go."""
    if key not in handle.ends:
        handle.ends[key] = _ends(branch)
    ends = handle.ends[key]
    first, kept = handle.rest.get(key, (0, None))
    if kept is None or not first <= start < first + len(kept):
        begins = int(ends[max(0, int(np.searchsorted(ends, start, side="right")) - 1)])
        first, kept = begins if stop > start else start, None
    held = first + (0 if kept is None else len(kept))
    if kept is None or stop > held:
        end = int(ends[min(int(np.searchsorted(ends, stop)), len(ends) - 1)]) if stop > start else start
        more = _plain(branch.array(entry_start=held, entry_stop=end, library="ak"))
        kept = more if kept is None else _concatenate([kept, more])
        last = int(ends[max(0, int(np.searchsorted(ends, end)) - 1)])
        since = max(first, last)
        handle.rest[key] = (since, kept if since == first else _copied(_part(kept, since - first, len(kept))))
    return _part(kept, start - first, stop - first)


def _ends(branch: Any) -> NDArray[np.int64]:
    """Where what is compressed together begins and ends: baskets of a TTree, clusters of an RNTuple."""
    if hasattr(branch, "entry_offsets"):
        return np.asarray(branch.entry_offsets, np.int64)
    clusters = [cluster.num_first_entry for cluster in branch.ntuple.cluster_summaries]
    return np.array([*(clusters or [0]), branch.ntuple.num_entries], np.int64)


def _plain(values: Any) -> Any:
    if values.ndim == 1 or values.layout.is_regular or values.layout.is_numpy:
        flat: NDArray[Any] = ak.to_numpy(values)
        return flat
    return values


def _concatenate(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return ak.concatenate(parts)


def _part(values: Any, start: int, stop: int) -> Any:
    """Some entries of a column, read-only and, where jagged, with a content that holds just them."""
    if isinstance(values, np.ndarray):
        part = values[start:stop]
        part.flags.writeable = False
        return part
    layout = values.layout
    if not (layout.is_list and not layout.is_regular and hasattr(layout, "offsets")):
        return ak.to_packed(values[start:stop])
    # What to_packed does in general, without its cost: chunks may be small.
    offsets = layout.offsets.data[start : stop + 1]
    content = layout.content[int(offsets[0]) : int(offsets[-1])]
    packed = ak.contents.ListOffsetArray(ak.index.Index64(offsets - offsets[0]), content, parameters=layout.parameters)
    return ak.Array(packed)


def _copied(values: Any) -> Any:
    """The same in memory of its own, so that what it was cut from can go."""
    return values.copy() if isinstance(values, np.ndarray) else ak.Array(ak.copy(values.layout))


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes uproot raise becomes BadFile; trouble of the system stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise VanishedFile(f"{path} is not there; bring it back, or take it out of the list of files") from None
    except BadData:
        raise
    except Exception as problem:
        # Damaged bytes come out as almost any exception, a MemoryError for a wild length among them.
        if isinstance(problem, OSError) and problem.errno:
            raise
        word = " ".join(str(problem).split())[:200]
        advice = "it is damaged, cut short, or no ROOT file; fetch it again from its source"
        raise BadFile(f"{path}: {advice} ({type(problem).__name__}: {word})") from problem


def write_tier(
    path: Path | str, columns: Columns, header: Mapping[str, Any], probe: Callable[[str], None]
) -> tuple[int, str, int]:
    """Write output columns as one file, whole or not at all; gives its size, SHA-256 and number of events.

    Jagged columns with the same prefix (`Track_pt`, `Track_eta`) share one counter (`nTrack`). The probe is called at
    `write` and `rename`. Raises TypeError for a column that is neither flat numbers nor lists of numbers, ValueError
    for columns that do not fit together.
    """
    events = len(columns["event"])
    branches = _grouped({name: _writable(name, values) for name, values in columns.items()}, events)
    types = {name: _type(values) for name, values in branches.items()}
    target = Path(path)
    with whole(target, probe) as partial:
        with uproot.recreate(partial, compression=uproot.ZSTD(1)) as file:
            tree = file.mktree(TREE, types)
            for start, stop in _baskets(branches, events):
                tree.extend({name: values[start:stop] for name, values in branches.items()})
            file[HEADER] = json.dumps(header, allow_nan=False)
        size, checksum = partial.stat().st_size, checksum_of(partial)
    return size, checksum, events


def written_keys(path: Path | str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Packed unit and number of every event in a file just written: read anew, beside the files kept open."""
    with uproot.open(path, **_OPTIONS) as file:
        columns = {name: file[TREE][name].array(library="np") for name in ("run", "lumi", "event")}
    return packed_units(columns), columns["event"]


def read_tier(path: Path | str) -> dict[str, Any]:
    """All columns of a file that `write_tier` wrote."""
    source = SourceFile.open(path)
    names = tier_columns(source)
    return dict(source.arrays(TREE, names, 0, source.entries(TREE)))


def read_header(path: Path | str) -> dict[str, Any]:
    """The header of a file that `write_tier` wrote: how it was made."""
    source = SourceFile.open(path)
    with _sound(source.path):
        file = source._handle().file
        text = str(file[HEADER]) if HEADER in file else None
    if text is None:
        raise BadFile(f"{path} has no header {HEADER!r}: this program did not write it")
    found: dict[str, Any] = json.loads(text)
    return found


def tier_columns(source: SourceFile) -> tuple[str, ...]:
    """The columns of a file that `write_tier` wrote, without the counters of the jagged ones."""
    branches = source._branches(TREE)
    counters = {branch.count_branch.name for branch in branches.values() if branch.count_branch is not None}
    return tuple(name for name in branches if name not in counters)


def _writable(name: str, values: Any) -> Any:
    """A column as ROOT can hold it: NumPy, or lists of numbers without gaps."""
    array = values if isinstance(values, np.ndarray) else ak.to_packed(ak.Array(values))
    if not isinstance(array, np.ndarray):
        layout = array.layout
        text = layout.purelist_parameter("__array__") is not None
        if layout.is_list and not (layout.is_regular or text) and layout.content.is_numpy and array.ndim == 2:
            _check_dtype(name, layout.content.dtype)
            return array
        if text or not (layout.is_numpy or layout.is_regular):
            raise TypeError(f"column {name!r} is {array.type}: a tier holds numbers, or one list of numbers an event")
        array = ak.to_numpy(array)
    _check_dtype(name, array.dtype)
    return array


def _check_dtype(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf" or (dtype.kind == "f" and dtype.itemsize not in (4, 8)):
        raise TypeError(f"column {name!r} is {dtype}: a tier holds booleans, integers, float32 and float64")


def _grouped(columns: Columns, events: int) -> dict[str, Any]:
    """Branches to write: jagged columns with a common prefix as one record, so that they share a counter."""
    groups: dict[str, dict[str, Any]] = {}
    branches: dict[str, Any] = {}
    for name, values in columns.items():
        if len(values) != events:
            raise ValueError(f"column {name!r} has {len(values)} entries for {events} events")
        prefix, _, rest = name.partition("_")
        if not isinstance(values, np.ndarray) and rest:
            groups.setdefault(prefix, {})[rest] = values
        else:
            branches[name] = values
    for prefix, fields in groups.items():
        lengths = [ak.to_numpy(ak.num(values)) for values in fields.values()]
        if any(not np.array_equal(lengths[0], other) for other in lengths[1:]):
            names = ", ".join(f"{prefix}_{rest}" for rest in fields)
            raise ValueError(f"{names} share the name {prefix} but not their lengths; give them names of their own")
        branches[prefix] = ak.zip(fields, depth_limit=2)
    counted = [name for name, values in branches.items() if not isinstance(values, np.ndarray)]
    taken = [name for name in branches if name in {f"n{other}" for other in counted}]
    if taken:
        raise ValueError(f"column {taken[0]!r} has the name of the counter that is written by itself; leave it out")
    return branches


def _type(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return np.dtype((values.dtype, values.shape[1:]))
    return values.type.content


def _baskets(branches: Mapping[str, Any], events: int) -> Iterator[tuple[int, int]]:
    """Ranges of events written at a time: up to a size, and ending where a lumisection does if one is near."""
    if not events:
        return
    widest = max(values.nbytes for values in branches.values()) / events
    most = int(min(BASKET_EVENTS, max(1, BASKET_BYTES // max(widest, 1))))
    run, lumi = np.asarray(branches["run"]), np.asarray(branches["lumi"])
    ends = np.append(np.flatnonzero((np.diff(run) != 0) | (np.diff(lumi) != 0)) + 1, events)
    start = 0
    while start < events:
        near = int(ends[np.searchsorted(ends, start + most, side="right") - 1]) if ends[0] <= start + most else 0
        stop = near if near > start + most // 2 else min(start + most, events)
        yield start, stop
        start = stop
