"""IceCube's supernova data acquisition: counts of every optical module in bins of half a second.

One entry of tree `sn_all` is one bin, which is at once the unit and the event. Modules are numbered as their counts
stand in the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calib.algorithms.channel_status import ChannelStatus, all_good, is_good
from calib.calibration import Calibration
from calib.payload import Payload
from pipeline.experiments.collisions import require
from pipeline.experiments.interface import (
    Experiment,
    ExperimentSettings,
    MissingBranch,
    Processed,
    QualityHistogram,
    QualityTest,
    Wanted,
)
from pipeline.experiments.tracking import evenly
from pipeline.model import Columns, EventSource, Keys, Step

STANDARD, HIGH_EFFICIENCY = 0, 1
"""groups of modules"""

HIGH_EFFICIENCY_2011 = (
    (2143, 2143), (2145, 2145), (2147, 2158), (2574, 2574), (4709, 4710),
    (4712, 4719), (4721, 4721), (4723, 4723), (4769, 4782), (4800, 5159),
)  # fmt: skip
"""modules whose `Efficiency` in config/detector is 1.35, of the order of counts in use in 2011; closed ranges"""

BUFFER = ("buf_pos", "buf_loop")
BUFFER_BITS = 24


class SndaqSettings(ExperimentSettings):
    """The detector as it was wired, and how certification judges."""

    run: int | None = Field(None, ge=0, description="run number, for files that do not have it in their name")
    modules: int = Field(5160, ge=1)
    bin_seconds: float = Field(0.5, gt=0)
    high_efficiency: tuple[tuple[int, int], ...] = Field(
        HIGH_EFFICIENCY_2011, description="closed ranges of the modules of high quantum efficiency"
    )
    good_modules_min: int = Field(5000, ge=0, description="fewer good modules spoil a bin")
    standard_rate: tuple[float, float] = Field(
        (250.0, 330.0), description="Hz; where the mean rate of standard modules must lie"
    )


class IceCubeSndaq(Experiment):
    """Counts of modules; dead and noisy ones are found in express and left out in prompt."""

    name: ClassVar[str] = "icecube_sndaq"
    unit_name: ClassVar[str] = "half-second bin"
    tree: ClassVar[str] = "sn_all"
    versions: ClassVar[Mapping[Step, int]] = {Step.EXPRESS: 1, Step.PROMPT: 1}
    tiers: ClassVar[tuple[str, ...]] = ("RATES",)
    settings_model: ClassVar[type[ExperimentSettings]] = SndaqSettings
    judging: ClassVar[frozenset[str]] = frozenset({"good_modules_min", "standard_rate"})
    settings: SndaqSettings

    def identify(self, source: EventSource, start: int, stop: int) -> Keys:
        """The run of the file, and the place of each bin in it: its position in the ring buffer of the acquisition."""
        columns = source.arrays(self.tree, require(source.branches(self.tree), BUFFER), start, stop)
        position, loop = (np.asarray(columns[name]).astype(np.int64) for name in BUFFER)
        # A second time round the buffer its positions come again; nothing in the file says how long it is.
        bins = (loop << BUFFER_BITS) + position
        return Keys(np.full(len(bins), self._run(source), np.int64), bins, bins)

    def wanted(self, step: Step, branches: frozenset[str]) -> Wanted:
        """The counts."""
        return Wanted(require(branches, ("data",)))

    def process(self, step: Step, events: Columns, conditions: Mapping[str, Payload]) -> Processed:
        """Counts as they are; in prompt, rates of the modules that are good."""
        data = events["data"]
        wrong = np.asarray(ak.num(data)) != self.settings.modules
        counts = np.asarray(ak.flatten(data[~wrong])).astype(np.int64).reshape(-1, self.settings.modules)
        filtered = {f"not {self.settings.modules} modules": wrong}
        measured: dict[str, Any] = {"counts": counts}
        if step is Step.EXPRESS:
            return Processed({"COUNTS": {"Module_counts": counts.astype(np.uint16)}}, measured, filtered)
        rates = self._rates(counts, is_good(conditions["channel_status"]))
        standard = rates["Group_rate"][rates["Group_id"] == STANDARD]
        measured |= {"good_modules": rates["good_modules"], "standard_rate": standard}
        return Processed({"RATES": rates}, measured, filtered)

    def calibrations(self) -> tuple[Calibration, ...]:
        """The status of every module, judged among its own kind."""
        return (ChannelStatus(channels=self.settings.modules, groups=tuple(self.groups().tolist())),)

    def needs(self, step: Step) -> tuple[str, ...]:
        """Prompt leaves out what is not good."""
        return ("channel_status",) if step is Step.PROMPT else ()

    def initial_conditions(self) -> Mapping[str, Payload]:
        """All modules good."""
        return {"channel_status": all_good(self.settings.modules)}

    def histograms(self, step: Step) -> tuple[QualityHistogram, ...]:
        """In prompt, how many modules are good and how fast the standard ones count."""
        if step is Step.EXPRESS:
            return ()
        modules = evenly(0, 10 * (self.settings.modules // 10 + 1), self.settings.modules // 10 + 1)
        return (
            QualityHistogram("good_modules", "good_modules", modules, "", "good modules in the bin"),
            QualityHistogram("standard_rate", "standard_rate", evenly(0, 1000, 200), "Hz", "mean of standard modules"),
        )

    def quality_tests(self) -> tuple[QualityTest, ...]:
        """Enough good modules, counting at a rate of darkness."""
        low, high = self.settings.standard_rate
        return (
            QualityTest("good modules", "good_modules", self.settings.good_modules_min, self.settings.modules + 5),
            QualityTest("standard rate", "standard_rate", low, high),
        )

    def _run(self, source: EventSource) -> int:
        if self.settings.run is not None:
            return self.settings.run
        found = re.search(r"\d{5,}", source.path.stem)
        if found is None:
            message = f"{source.path}: no run number in its name; set `run` in [experiment.settings]"
            raise MissingBranch(message)
        return int(found.group())

    def groups(self) -> NDArray[np.int64]:
        """The group of every module."""
        group = np.full(self.settings.modules, STANDARD, np.int64)
        for first, last in self.settings.high_efficiency:
            group[first : last + 1] = HIGH_EFFICIENCY
        return group

    def _rates(self, counts: NDArray[np.int64], good: NDArray[np.bool_]) -> dict[str, Any]:
        """Rates [Hz] of good modules, their sum, and the mean of every group that has any."""
        seconds, group, bins = self.settings.bin_seconds, self.groups(), len(counts)
        members = {number: good & (group == number) for number in (STANDARD, HIGH_EFFICIENCY)}
        members = {number: mask for number, mask in members.items() if mask.any()}
        sizes = np.array([mask.sum() for mask in members.values()], np.int64)
        sums = (
            np.stack([counts[:, mask].sum(axis=1) for mask in members.values()], axis=1) if members else counts[:, :0]
        )
        return {
            "good_modules": np.full(bins, good.sum(), np.int32),
            "total_rate": counts[:, good].sum(axis=1) / seconds,
            "Module_id": _rows(np.tile(np.flatnonzero(good).astype(np.int32), (bins, 1))),
            "Module_rate": _rows((counts[:, good] / seconds).astype(np.float32)),
            "Group_id": _rows(np.tile(np.array(list(members), np.int32), (bins, 1))),
            "Group_modules": _rows(np.tile(sizes.astype(np.int32), (bins, 1))),
            "Group_rate": _rows(sums / (sizes * seconds)),
        }


def _rows(table: NDArray[Any]) -> ak.Array:
    """A table of one row a bin as a jagged column."""
    counts = np.full(table.shape[0], table.shape[1])
    return ak.unflatten(np.ascontiguousarray(table.reshape(-1)), counts)
