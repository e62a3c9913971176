"""Toys of what is calibrated by channel: pedestals, their status, gains and Lorentz angles."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import poisson

from benchmarks import _toys_gain, _toys_lorentz
from benchmarks._calibration_toys import Floats, Found, Quantity, Share, Subject, Toys, alike
from benchmarks._toys_occupancy import found_dead, found_hot, hit_columns
from benchmarks._toys_pedestal import Adc, adc_samples, pedestal_columns
from calib.algorithms import gain as gains
from calib.algorithms import lorentz_angle as angles
from calib.algorithms import pedestal as pedestals
from calib.algorithms.channel_status import ChannelStatus
from calib.algorithms.channel_status import Status as CountStatus
from calib.algorithms.gain_shape import Shape, tables
from calib.algorithms.lorentz_fit import Sums, fit
from calib.algorithms.occupancy_status import OccupancyStatus
from calib.algorithms.occupancy_status import Status as HitStatus

BLOCK, GROUP = 768, 128
NOISE, COMMON, DIGITS = 4.0, 2.0, 1 / 12
"""ADC; and the variance of digitisation"""


# Pedestal. ------------------------------------------------------------------------------------------------------------


def pedestal(rng: np.random.Generator, size: int, small: bool) -> Found:
    """Every channel sampled so often, by as many events."""
    channels = BLOCK * (1 if small else 8)
    before = rng.normal(100, 10, channels)
    moved = np.repeat(rng.random(channels // GROUP) < 0.05, GROUP)
    place = rng.permutation(channels)
    dead, hot = np.sort(place[: channels // 300]), np.sort(place[-channels // 1000 :])
    truth = Adc(before + NOISE * moved, np.full(channels, NOISE), COMMON, BLOCK, GROUP, 1e-3, dead, hot)
    calibration = pedestals.Pedestal(channels=channels, block=BLOCK, group=GROUP)
    start = pedestals.nominal(channels, before, NOISE)
    every = np.tile(np.arange(channels // BLOCK, dtype=np.uint32), (size, 1))
    columns = pedestal_columns(every, adc_samples(rng, truth, size))
    payload = calibration.finalize(calibration.accumulate(columns, {"pedestal": start}), start)
    new = payload["status"] == pedestals.Status.NEW
    value, error = ({name: payload[f"{name}{of}"][new].astype(float) for name in ("mean", "noise")} for of in _BOTH)
    width = np.sqrt(NOISE**2 + COMMON**2 + DIGITS)
    alone = NOISE**2 + DIGITS
    kept, groups = int(np.count_nonzero(~new)), channels // GROUP
    shared = COMMON**2 / width**2
    return Found(
        {
            "mean": Toys(
                size,
                value["mean"] - truth.pedestal[new],
                error["mean"],
                width / np.sqrt(size),
                width / np.sqrt(size),
                kept=kept,
                of_mean=shared / groups + (1 - shared) / new.sum(),
                alone=float(new.sum() / (1 + (GROUP - 1) * shared**2)),
            ),
            "noise": Toys(
                size,
                value["noise"] - NOISE,
                alike(error["noise"]),
                alone / NOISE / np.sqrt(2 * size),
                NOISE / np.sqrt(2 * size),
                kept=kept,
            ),
        }
    )


_BOTH = ("", "_error")


# Status. --------------------------------------------------------------------------------------------------------------


def occupancy(rng: np.random.Generator, size: int, small: bool) -> Found:
    """Channels hit so often on average, some of them more often, some never; over runs, until all these are found."""
    groups, mean = (40 if small else 2000), float(size)
    rates = np.full((groups, GROUP), mean)
    # One of a group at most: another that is not found would make the rate of all larger.
    place, number = rng.permutation(groups), max(groups * GROUP // 1000, 1)
    sorts = {}
    for factor, first in ((10.0, 0), (5.0, number)):
        chosen = np.zeros(rates.shape, np.bool_)
        chosen[place[first : first + number], rng.integers(0, GROUP, number)] = True
        sorts[f"hot: {factor:g} times the mean"] = (factor, chosen)
    for factor, chosen in sorts.values():
        rates[chosen] *= factor
    good = np.ones(rates.shape, np.bool_) & ~sum(chosen for _, chosen in sorts.values()).astype(np.bool_)
    calibration = OccupancyStatus(channels=rates.size, group=GROUP, min_occupancy=0.0)
    columns = hit_columns(rng, rng.poisson(rates).ravel(), 500)
    payload = calibration.finalize(calibration.accumulate(columns, {}), None)
    hot = (payload["status"] & HitStatus.HOT).reshape(rates.shape) != 0
    p = calibration.probability
    shares = [
        Share(name, size, int(hot[some].sum()), int(some.sum()), found_hot(mean, factor, GROUP, p))
        for name, (factor, some) in {**sorts, "false: at the mean": (1.0, good)}.items()
    ]
    # Where none is hot: one that is not found makes its group's rate larger, as it should.
    clean = good.all(axis=1)
    rate, error = (payload[f"group_rate{of}"].astype(float)[clean] * 500 / mean * 100 for of in _BOTH)
    one = 100 / np.sqrt(mean * GROUP)
    toys = Toys(size, rate - 100, alike(error), one, one)
    return Found({"rate of a group": toys}, [*shares, *(silent(rng, small) if size == SILENT_AT else [])])


SILENT_AT = 3


def silent(rng: np.random.Generator, small: bool) -> list[Share]:
    """Channels that are never hit, run after run of three hits of a channel each."""
    groups = 30 if small else 300
    rates = np.full((groups, GROUP), float(SILENT_AT))
    dead = np.zeros(rates.shape, np.bool_)
    dead[np.arange(groups), rng.integers(0, GROUP, groups)] = True
    rates[dead] = 0.0
    calibration = OccupancyStatus(channels=rates.size, group=GROUP, min_occupancy=0.0)
    payload, shares = None, []
    for run in range(1, 9):
        columns = hit_columns(rng, rng.poisson(rates).ravel(), 100, run)
        payload = calibration.finalize(calibration.accumulate(columns, {}), payload)
        found = (payload["status"] & HitStatus.DEAD).reshape(rates.shape) != 0
        # The mean is of all channels, until what is dead is known.
        expected = SILENT_AT * run * (GROUP - 1) / GROUP
        chance = found_dead(expected, GROUP, calibration.probability)
        shares.append(Share("dead: never hit, over runs", SILENT_AT * run, int(found[dead].sum()), groups, chance))
    return shares


def counting(rng: np.random.Generator, size: int, small: bool) -> Found:
    """Channels that count so often by chance, some of them a twentieth of that, or two and a half times."""
    channels = 1000 if small else 20_000
    rates, kind = np.full(channels, float(size)), rng.random(channels)
    low, high = kind < 0.02, kind > 0.98
    rates[low] *= 0.05
    rates[high] *= 2.5
    calibration = ChannelStatus(channels=channels)
    one = np.ones(1, np.int64)
    columns = {"run": one, "lumi": one, "event": one, "counts": rng.poisson(rates)[None, :]}
    payload = calibration.finalize(calibration.accumulate(columns, {}), None)
    status, typical = payload["status"].ravel(), float(size)
    spread = typical**0.5
    above, below = typical + calibration.noisy_above * spread, calibration.dead_below * typical
    least = {"dead: a twentieth": (low, CountStatus.DEAD, float(poisson.cdf(np.ceil(below) - 1, 0.05 * typical)))}
    least["noisy: 2.5 times"] = (high, CountStatus.NOISY, float(poisson.sf(np.floor(above), 2.5 * typical)))
    shares = [
        Share(name, size, int((status[some] == flag).sum()), int(some.sum()), chance)
        for name, (some, flag, chance) in least.items()
    ]
    good = ~(low | high)
    wrong = float(poisson.sf(np.floor(above), typical) + poisson.cdf(np.ceil(below) - 1, typical))
    return Found({}, [*shares, Share("false: as all", size, int((status[good] != 0).sum()), int(good.sum()), wrong)])


# Gain. ----------------------------------------------------------------------------------------------------------------


PLAIN = _toys_gain.Sensor()
NOISY = _toys_gain.Sensor(_toys_gain.SMEARED)
THICK = _toys_gain.Sensor(Shape(0.064, 0.03), thickness=500.0, saturation=254 * 265.0)
"""a quarter of the clusters are saturated"""


def gain(rng: np.random.Generator, size: int, small: bool) -> Found:
    """Groups of so many clusters each, of three sensors."""
    sensors = {"of Landau's shape": PLAIN, "smeared by 5 %": NOISY, "a quarter saturated": THICK}
    return Found({name: gain_of(rng, size, 30 if small else 800, sensor) for name, sensor in sensors.items()})


def gain_of(rng: np.random.Generator, size: int, groups: int, sensor: _toys_gain.Sensor) -> Toys:
    """Of one sensor; off in per cent."""
    truth = 1 + 0.1 * rng.standard_normal(groups)
    calibration = gains.Gain(groups=groups, width=(sensor.shape.width,), smear=(sensor.shape.smear,))
    made = _toys_gain.clusters(rng, truth, size, sensor)
    state = calibration.accumulate(made.of_events(50), {"gain": gains.nominal(groups)})
    payload = calibration.finalize(state, gains.nominal(groups))
    new = payload["status"] == gains.Status.NEW
    off = payload["gain"][new] / truth[new] - 1
    edges = tuple(np.linspace(np.log(calibration.low), np.log(calibration.high), calibration.bins + 1).tolist())
    known = tables(sensor.shape, _toys_gain.PEAK, edges, (calibration.reach, 0.02), calibration.stray)
    bound = 100 / np.sqrt(known.information() * size)
    if np.isfinite(sensor.saturation):
        bound *= np.sqrt(lost(known, state, size))
    # What the kernel takes off the logarithm of the peak is on the gain the other way round.
    before = 100 * ((1 + off) * np.exp(-known.skew() / size) - 1)
    error = 100 * payload["gain_error"][new] / truth[new]
    expected = 11.5 / np.sqrt(size) if sensor is PLAIN else bound
    return Toys(size, 100 * off, error, bound, expected, before, kept=int(np.count_nonzero(~new)))


def lost(known: Any, state: Any, size: int) -> float:
    """Information of clusters that are all clear over that with those saturated: from how many there are of each."""
    clear, saturated = (state["clusters"].columns[name].sum(axis=0) for name in ("clear", "saturated"))
    middle = known.middle
    curved = clear[1:] @ known.clear[2, middle]
    curved += saturated[-1] * known.clear[2, middle, -1] + saturated[1:-1] @ known.saturated[2, middle]
    entries = clear[1:].sum() + saturated[1:].sum()
    return float(known.information() / (-curved / entries))


# Lorentz angle. -------------------------------------------------------------------------------------------------------

TANGENT = 0.40
LORENTZ_GROUPS = {1200: 2700, 2000: 1600, 4000: 800}
"""by size: the width of their pulls is then known to one per cent"""


def lorentz(rng: np.random.Generator, size: int, small: bool) -> Found:
    """Groups of so many clusters each. The bias is found by as many again, and given to the kernel as a setting."""
    groups = 4 if small else LORENTZ_GROUPS[size]
    plain = angles.LorentzAngle(groups=groups)
    start = angles.nominal(groups, 0.36)

    def state() -> Any:
        made = _toys_lorentz.clusters(rng, np.full(groups, TANGENT), size)
        return plain.accumulate(made.of_events(50), {})

    simulated, seen = state(), state()
    again = plain.finalize(simulated, start)
    some = again["tan"][again["status"] == angles.Status.NEW] / TANGENT - 1
    bias, bias_error = float(some.mean()), float(some.std() / np.sqrt(len(some)))
    known = angles.LorentzAngle(groups=groups, bias=(bias,), bias_error=(bias_error,))
    raw, payload = plain.finalize(seen, start), known.finalize(seen, start)
    new = payload["status"] == angles.Status.NEW
    toys = Toys(
        size,
        1e3 * (payload["tan"][new] - TANGENT),
        1e3 * payload["tan_error"][new],
        1e3 * angle_bound(simulated, size),
        300 / np.sqrt(size),
        1e3 * (raw["tan"][new] - TANGENT),
        1e3 * bias_error * TANGENT,
        int(np.count_nonzero(~new)),
    )
    return Found({"tangent": toys})


def angle_bound(state: Any, size: int) -> float:
    """From the information that mean sizes in bins of the slope have of the four numbers of the hyperbola, their
    variance taken from all clusters together."""
    total = state["sizes"].total().sum(axis=0).astype(np.float64)
    clusters, size_sum, squares, slope = total.T
    sums = Sums(*(part[None] for part in (total[:, 0], total[:, 1], total[:, 2], slope * angles.RESOLUTION)))
    found = fit(sums, np.array([[TANGENT, 0.9, 2.5, 0.1]]), np.ones((1, 4), np.bool_)).parameters[0]
    middle = slope * angles.RESOLUTION / clusters
    weight = clusters / np.maximum(squares / clusters - (size_sum / clusters) ** 2, 1e-3)
    off = middle - found[0]
    rounded = np.hypot(off, found[3])
    rows: Floats = np.stack([-found[2] * off / rounded, np.ones_like(off), rounded, found[2] * found[3] / rounded])
    variance = np.linalg.inv((rows * weight) @ rows.T)[0, 0]
    return float(np.sqrt(variance * clusters.sum() / size))


NOTE = "physics note, 10"
SUBJECTS = (
    Subject(
        "pedestal",
        "Pedestal and noise of every channel from samples without signal. Sums in a window about the pedestal in "
        "force; the noise without the common mode of its group, which is the median.",
        {
            "channels": "6144 in groups of 128, noise 4 ADC, common mode 2 ADC, digitised",
            "wrong": "5 % of the groups moved by 4 ADC, 0.3 % dead, 0.1 % hot; a sample in 1000 has a hit",
            "calibration": "as it comes: window 20 ADC, min_entries 100",
            "pulls": "of the noise by the root mean square of errors, which go with it",
        },
        (
            Quantity("mean", "ADC", "samples", "formula: width of samples / sqrt(N)", f"{NOTE}: the same"),
            Quantity("noise", "ADC", "samples", "formula: (s^2 + 1/12) / (s sqrt(2N))", f"{NOTE}: s / sqrt(2N)"),
        ),
        (120, 200, 400, 800),
        (120, 150),
        pedestal,
    ),
    Subject(
        "channel_status, by occupancy",
        "Hot and dead channels among many that are hit seldom, by Poisson's law within groups of 128. Dead ones are "
        "found over runs, from what should have hit them since they were last hit.",
        {
            "channels": "256 000 in groups of 128; one in 1000 hit 10 times as often, one in 1000 5 times, one a group",
            "rate": "of groups in which no channel is hot",
            "dead": "one in each of 300 groups, over 8 runs of three hits of a channel",
            "calibration": "min_occupancy = 0: judged by chance alone, probability 1e-7",
        },
        (
            Quantity(
                "rate of a group", "%", "hits of a channel", "formula: Poisson, 1 / sqrt(128 N)", "Poisson, the same"
            ),
        ),
        (1, 2, 3, 5, 10),
        (2, 3),
        occupancy,
        "hits of a channel",
    ),
    Subject(
        "channel_status, by counts",
        "Dead and noisy channels among those of their kind that count often, whatever the law. Judged against the "
        "median of the kind and its spread.",
        {
            "channels": "20 000 by Poisson's law; one in 50 counts a twentieth, one in 50 counts 2.5 times as often",
            "calibration": "as it comes: dead below a tenth, noisy above ten spreads",
        },
        (),
        (105, 205, 405),
        (105,),
        counting,
        "counts of a channel",
    ),
    Subject(
        "gain",
        "Gain of a group of channels from the peak of charge over path. Histograms of its logarithm and a likelihood "
        "with the shape known; saturated clusters count as no less than was seen.",
        {
            "clusters": "Landau of 6.4 % width about 79.5 e/um; gains spread by 10 %; 800 groups a size",
            "sensors": "that alone; smeared by 5 %; 500 um thick, smeared by 3 % and cut off at 67 300 e",
            "calibration": "as it comes, with width and smear of the sensor",
            "bias": "of order 1/N, which the kernel takes off by formula (Cox and Snell); before: put on again. "
            "Moyal's closed form, which the note has biased by 0.7 %, is not used",
        },
        (
            Quantity(
                "of Landau's shape", "%", "clusters", "Fisher's information of the bins", f"{NOTE}: 11.5 %/sqrt(N)"
            ),
            Quantity(
                "smeared by 5 %",
                "%",
                "clusters",
                "Fisher's information of the bins",
                "the bound: the note's 11.5 % is of Landau's shape alone",
            ),
            Quantity(
                "a quarter saturated",
                "%",
                "clusters",
                "Fisher's information of the bins, clear and saturated as they came",
                "the bound",
            ),
        ),
        (30, 100, 300, 1000),
        (30, 100),
        gain,
    ),
    Subject(
        "lorentz_angle",
        "Tangent of the Lorentz angle from the slope of tracks at which clusters are smallest. A hyperbola through "
        "mean sizes, of which the lowest point is freed of a bias that simulation tells.",
        {
            "clusters": "285 um thick, pitch 100 um, threshold 3000 e, tangent 0.40; 2700, 1600 and 800 groups",
            "tracks": "slopes from -0.8 to 0.8, evenly",
            "calibration": "as it comes, from a payload of 0.36",
            "bias": "of thresholds: found by as many clusters drawn independently, given as `bias` and `bias_error`",
        },
        (
            Quantity(
                "tangent",
                "10^-3",
                "clusters",
                "information of mean sizes of all groups together, hyperbola free",
                f"{NOTE}: 0.30/sqrt(N)",
            ),
        ),
        (1200, 2000, 4000),
        (1500,),
        lorentz,
    ),
)
