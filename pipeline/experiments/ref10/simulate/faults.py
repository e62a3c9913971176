"""What is wrong with the simulated detector, how much of it, and when."""

from __future__ import annotations

from dataclasses import dataclass, field

from calib.iov import IOV, RunLumi

Six = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class When:
    """From `since` until before `until` (run or run:lumi), and in each of these runs from a lumisection on.

    >>> When(since="3", from_lumi=7).holds(RunLumi(4, 6)), When(since="3:7").holds(RunLumi(4, 6))
    (False, True)
    """

    since: str = "0:0"
    until: str | None = None
    from_lumi: int = 0

    def __post_init__(self) -> None:
        self._interval()

    def holds(self, at: RunLumi) -> bool:
        """Whether it is so in a lumisection."""
        return self._interval().contains(at) and at.lumi >= self.from_lumi

    @property
    def of_whole_runs(self) -> bool:
        """Whether it begins and ends with a run."""
        interval = self._interval()
        edges = [interval.since, *([interval.until] if interval.until is not None else [])]
        return self.from_lumi == 0 and all(edge.lumi == 0 for edge in edges)

    def _interval(self) -> IOV:
        return IOV(RunLumi.parse(self.since), None if self.until is None else RunLumi.parse(self.until))


@dataclass(frozen=True)
class Faults:
    """Faults of channels; shares are of all channels or chips."""

    dead_strips: float = 0.003
    """share of strips that always send their pedestal"""
    dead_chips: int = 2
    """strip chips all of whose strips are dead"""
    dead: When = field(default_factory=When)
    hot_strips: float = 0.001
    """share of strips that send pulses by themselves"""
    hot_factor: float = 10.0
    """how often: times the occupancy a good strip of the layer is expected to have"""
    hot: When = field(default_factory=When)
    dead_rocs: int = 1
    """pixel readout chips that send nothing"""
    dead_roc: When = field(default_factory=lambda: When(from_lumi=7))
    pedestal_shift: float = 1.0
    """in units of the strip's noise: by how much pedestals have moved since the DAQ's tables were made"""
    pedestal_shift_chips: float = 0.05
    """share of strip chips whose pedestals have moved so"""
    shifted: When = field(default_factory=When)
    pedestal_drift: float = 0.05
    """ADC a run, rms over the strips: by how much each pedestal drifts, in a direction of its own"""

    def __post_init__(self) -> None:
        for name in ("dead_strips", "hot_strips", "pedestal_shift_chips"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, between 0 and 1, not {getattr(self, name)}")
        for name in ("dead_chips", "dead_rocs", "hot_factor", "pedestal_drift"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative, as {getattr(self, name)} is")


LARGEST = (500.0, 500.0, 200.0, 100.0, 200.0, 1000.0)
"""half barrels, ladders, modules: shift [um] and rotation [urad]"""


@dataclass(frozen=True)
class Misalignment:
    """Where structures are, beside where they were drawn: rms of each of three shifts [um] and rotations [urad].

    Pairs are (pixels, strips). Raises ValueError for more than LARGEST: sensors are looked for near their drawn place.
    """

    half_barrels: tuple[Six, Six, Six, Six] = (
        (50.0, -30.0, 40.0, 0.0, 0.0, 0.0),
        (-20.0, 60.0, -80.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    )
    """shift [um] and rotation [urad] of each itself"""
    ladder_um: tuple[float, float] = (20.0, 50.0)
    ladder_urad: tuple[float, float] = (20.0, 20.0)
    module_um: tuple[float, float] = (3.0, 10.0)
    module_urad: tuple[float, float] = (50.0, 50.0)

    def __post_init__(self) -> None:
        given = {
            "half_barrels, shift in um": [abs(value) for six in self.half_barrels for value in six[:3]],
            "half_barrels, rotation in urad": [abs(value) for six in self.half_barrels for value in six[3:]],
            **{name: getattr(self, name) for name in ("ladder_um", "ladder_urad", "module_um", "module_urad")},
        }
        for (name, values), largest in zip(given.items(), LARGEST, strict=True):
            if not all(0 <= value <= largest for value in values):
                raise ValueError(f"{name} must lie between 0 and {largest:g}, as sensors are looked for within 2.5 mm")

    @classmethod
    def none(cls) -> Misalignment:
        """Everything where it was drawn."""
        still: Six = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        nothing = (0.0, 0.0)
        return cls((still,) * 4, nothing, nothing, nothing, nothing)
