"""The reconstruction as one would write it down first: event by event, channel by channel. Slow, and easy to check."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calib.payload import Payload
from pipeline.experiments.ref10.geometry import geometry_of
from pipeline.experiments.ref10.layers import LAYERS
from pipeline.experiments.ref10.reconstruct import positions
from pipeline.experiments.ref10.reconstruct.flags import ClusterFlag, EventFlag
from pipeline.experiments.ref10.reconstruct.thresholds import Thresholds
from tests.pipeline.experiments.ref10.reconstruct.raw import Event

F = np.float32


@dataclass
class Hit:
    """One channel above threshold."""

    module: int
    row: int
    column: int
    charge: Any
    noise: Any = None
    saturated: bool = False


@dataclass
class Seen:
    """What became of one event."""

    pixels: list[Hit] = field(default_factory=list)
    strips: list[Hit] = field(default_factory=list)
    flags: int = 0
    bad_digis: int = 0
    bad_nzs: int = 0


class Naive:
    """The detector under some conditions."""

    def __init__(self, conditions: Mapping[str, Payload], thresholds: Thresholds) -> None:
        self.conditions, self.thresholds = conditions, thresholds
        self.geometry = geometry_of(conditions["geometry"])
        self.place = {int(module): place for place, module in enumerate(self.geometry.module)}
        self.ladders = sorted({int(module) >> 8 for module in self.geometry.module})
        self.pixel_place = {int(m): i for i, m in enumerate(self.geometry.module[self.geometry.pixel])}

    # unpack -----------------------------------------------------------------------------------------------------------

    def unpack(self, event: Event) -> Seen:
        seen = Seen()
        if len(event.digi_module) + len(event.nzs_adc) > self.thresholds.digis:
            seen.flags = int(EventFlag.TOO_MANY_DIGIS)
            return seen
        blocks = self._blocks(event, seen)
        for module, chan, adc in self._digis(event, seen):
            if module in blocks:
                self._bad(seen)
            elif self._is_pixel(module):
                self._pixel(module, chan, adc, seen)
            else:
                above = F(adc) - self._mean(module, chan)
                self._strip(module, chan, above, above, seen)
        for module, counts in blocks.items():
            raw = [F(count) - self._mean(module, strip) for strip, count in enumerate(counts)]
            for chip in range(6):
                strips = range(128 * chip, 128 * chip + 128)
                mode = self._common_mode(module, chip, raw)
                for strip in strips:
                    self._strip(module, strip, raw[strip] - mode, raw[strip], seen)
        seen.pixels.sort(key=lambda hit: (hit.module, hit.column, hit.row))
        seen.strips.sort(key=lambda hit: (hit.module, hit.row))
        return seen

    def _digis(self, event: Event, seen: Seen) -> list[tuple[int, int, int]]:
        columns = (event.digi_module, event.digi_chan, event.digi_adc)
        if len({len(column) for column in columns}) > 1:
            for _ in range(max(map(len, columns))):
                self._bad(seen)
            return []
        first: dict[tuple[int, int], int] = {}
        order = []
        for module, chan, adc in zip(*columns, strict=True):
            if not self._possible(module, chan, adc):
                self._bad(seen)
                continue
            order.append((module, chan >> 16, chan & 0xFFFF))
            if (module, chan) in first:
                self._bad(seen)
            first.setdefault((module, chan), adc)
        if order != sorted(order):
            seen.flags |= EventFlag.UNSORTED
        return [(module, chan, adc) for (module, chan), adc in first.items()]

    def _possible(self, module: int, chan: int, adc: int) -> bool:
        if module not in self.place:
            return False
        place = self.place[module]
        if chan & 0xFFFF >= self.geometry.rows[place] or chan >> 16 >= self.geometry.columns[place]:
            return False
        return 1 <= adc <= 255 if self._is_pixel(module) else 0 <= adc <= 1023

    def _blocks(self, event: Event, seen: Seen) -> dict[int, list[int]]:
        modules, values = len(event.nzs_module), len(event.nzs_adc)
        if values != 768 * modules:
            seen.flags |= EventFlag.BAD_NZS
            seen.bad_nzs += max(modules, math.ceil(values / 768))
            return {}
        found: dict[int, list[int]] = {}
        listed: set[int] = set()
        for i, module in enumerate(event.nzs_module):
            counts = event.nzs_adc[768 * i : 768 * i + 768]
            good = module in self.place and not self._is_pixel(module) and max(counts) <= 1023
            if good and module not in listed:
                found[module] = counts
            else:
                seen.flags |= EventFlag.BAD_NZS
                seen.bad_nzs += 1
            listed.add(module)
        return found

    def _common_mode(self, module: int, chip: int, raw: Sequence[Any]) -> Any:
        good = [strip for strip in range(128 * chip, 128 * chip + 128) if not self._masked(module, strip)]
        if not good:
            return F(0)
        noise = F(math.sqrt(sum(float(self._noise(module, strip)) ** 2 for strip in good) / len(good)))
        mode = statistics.median([raw[strip] for strip in good])
        for _ in range(3):
            mode = statistics.median([raw[strip] for strip in good if raw[strip] <= mode + F(3) * noise])
        return mode

    def _strip(self, module: int, strip: int, above: Any, raw: Any, seen: Seen) -> None:
        if self._masked(module, strip) or not above > F(self.thresholds.channel) * self._noise(module, strip):
            return
        electrons = self._gain(module, strip) * F(265)
        noise = self._noise(module, strip) * electrons
        seen.strips.append(Hit(module, strip, 0, above * electrons, noise, bool(raw >= 254 - 8)))

    def _pixel(self, module: int, chan: int, adc: int, seen: Seen) -> None:
        row, column = chan & 0xFFFF, chan >> 16
        if not self._masked_pixel(module, row, column):
            seen.pixels.append(Hit(module, row, column, F(adc) * F(150), None, adc == 255))

    @staticmethod
    def _bad(seen: Seen) -> None:
        seen.flags |= EventFlag.BAD_DIGIS
        seen.bad_digis += 1

    def _is_pixel(self, module: int) -> bool:
        return bool(self.geometry.pixel[self.place[module]])

    def _channel(self, module: int, strip: int) -> int:
        return int(self.geometry.strip_block[self.place[module]]) * 768 + strip

    def _mean(self, module: int, strip: int) -> Any:
        return self.conditions["pedestal"]["mean"][self._channel(module, strip)]

    def _noise(self, module: int, strip: int) -> Any:
        return self.conditions["pedestal"]["noise"][self._channel(module, strip)]

    def _gain(self, module: int, strip: int) -> Any:
        return self.conditions["gain"]["gain"][self._channel(module, strip) // 128]

    def _masked(self, module: int, strip: int) -> bool:
        return bool(self.conditions["strip_status"]["status"][self._channel(module, strip)] != 0)

    def _masked_pixel(self, module: int, row: int, column: int) -> bool:
        chip = row // 80 * 9 + column // 52
        return bool(self.conditions["pixel_status"]["status"][self.pixel_place[module], chip] != 0)

    # clusters ---------------------------------------------------------------------------------------------------------

    def clusters(self, seen: Seen) -> list[dict[str, Any]]:
        found = [self._described(group, pixels=True) for group in self._touching(seen.pixels)]
        found += [self._described(group, pixels=False) for group in self._in_line(seen.strips)]
        return [cluster for cluster in found if cluster is not None]

    def _touching(self, hits: list[Hit]) -> list[list[Hit]]:
        """Grown pixel by pixel."""
        left, groups = list(range(len(hits))), []
        while left:
            group = {left.pop(0)}
            while True:
                more = {i for i in left if any(self._touch(hits[i], hits[j]) for j in group)}
                if not more:
                    break
                group |= more
                left = [i for i in left if i not in more]
            groups.append([hits[i] for i in sorted(group)])
        return groups

    @staticmethod
    def _touch(one: Hit, other: Hit) -> bool:
        near = max(abs(one.row - other.row), abs(one.column - other.column)) == 1
        return one.module == other.module and near

    def _in_line(self, hits: list[Hit]) -> list[list[Hit]]:
        groups: list[list[Hit]] = []
        for hit in hits:
            last = groups[-1][-1] if groups else None
            gap = hit.row - last.row if last is not None and last.module == hit.module else 0
            if gap == 1 or (gap == 2 and self._masked(hit.module, hit.row - 1)):
                groups[-1].append(hit)
            else:
                groups.append([hit])
        return groups

    def _described(self, group: list[Hit], *, pixels: bool) -> dict[str, Any] | None:
        module = group[0].module
        layer = module >> 16
        charge = math.fsum(float(hit.charge) for hit in group)
        limits = self.thresholds
        if pixels:
            strong = charge > (limits.pixels_layer_1 if layer == 1 else limits.pixels)
        else:
            noise = math.sqrt(math.fsum(float(hit.noise) ** 2 for hit in group))
            seeded = any(hit.charge > F(limits.seed) * hit.noise for hit in group)
            strong = seeded and charge > limits.cluster * noise
        if not strong:
            return None
        found = {"module": module, "size": len(group), "charge": charge, "flags": self._flags(group, pixels)}
        for axis, name in (("u", "row"), ("v", "column")):
            lines = [getattr(hit, name) for hit in group]
            low, high = min(lines), max(lines)
            ends = [math.fsum(float(hit.charge) for hit in group if getattr(hit, name) == line) for line in (low, high)]
            found[name] = math.fsum(float(hit.charge) * getattr(hit, name) for hit in group) / charge
            found[f"first_{name}"] = low
            found[f"size_{axis}"] = high - low + 1
            found[f"skew_{axis}"] = (ends[1] - ends[0]) / (ends[1] + ends[0])
        return found

    def _flags(self, group: list[Hit], pixels: bool) -> int:
        module, flags = group[0].module, 0
        place = self.place[module]
        sides = [(self.geometry.rows[place], "row")] + [(self.geometry.columns[place], "column")] * pixels
        for channels, name in sides:
            if any(getattr(hit, name) in (0, channels - 1) for hit in group):
                flags |= ClusterFlag.EDGE
        if any(hit.saturated for hit in group):
            flags |= ClusterFlag.SATURATED
        if len(group) > (self.thresholds.large_pixels if pixels else self.thresholds.large_strips):
            flags |= ClusterFlag.LARGE
        if pixels:
            around = {(h.row + i, h.column + j) for h in group for i in (-1, 0, 1) for j in (-1, 0, 1)}
            inside = [(r, c) for r, c in around if 0 <= r < sides[0][0] and 0 <= c < sides[1][0]]
            near = any(self._masked_pixel(module, r, c) for r, c in inside)
        else:
            rows = [hit.row for hit in group]
            beside = [strip for strip in (min(rows) - 1, max(rows) + 1) if 0 <= strip < 768]
            near = any(self._masked(module, strip) for strip in beside)
            if max(rows) - min(rows) + 1 > len(rows):
                flags |= ClusterFlag.BRIDGED
        return int(flags | (ClusterFlag.NEAR_MASKED if near else 0))

    # positions and placed ---------------------------------------------------------------------------------------------

    def tangent(self, place: int) -> float:
        """In the field of the events."""
        angle = self.conditions["lorentz_angle"]
        field = float(self.conditions["field"]["tesla"]) / float(angle["tesla"])
        return float(angle["tan"][self.geometry.layer[place] - 1]) * field

    def placed(self, cluster: dict[str, Any]) -> dict[str, float]:
        place = self.place[cluster["module"]]
        is_pixel, thickness = bool(self.geometry.pixel[place]), float(self.geometry.thickness[place])
        measured = positions.PIXEL_U if is_pixel else positions.THIN if thickness < 0.04 else positions.THICK
        pitch = float(self.geometry.pitch_u[place])
        line, u_error = self._estimate(cluster, "u", int(self.geometry.rows[place]), measured)
        drift = thickness / 2 * self.tangent(place)
        u = (line - (int(self.geometry.rows[place]) - 1) / 2) * pitch - drift
        pitch_v = float(self.geometry.pitch_v[place])
        v, v_error = 0.0, 1 / math.sqrt(12)
        if is_pixel:
            columns = int(self.geometry.columns[place])
            line, v_error = self._estimate(cluster, "v", columns, positions.PIXEL_V)
            v = (line - (columns - 1) / 2) * pitch_v
        x, y, z = self._in_space(cluster["module"], u, v)
        return {"u": u, "v": v, "u_error": u_error * pitch, "v_error": v_error * pitch_v, "x": x, "y": y, "z": z}

    def _in_space(self, module: int, u: float, v: float) -> list[float]:
        """Drawn from the table of layers, then carried along by the module, its ladder, and its half barrel."""
        number, ladder, along = module >> 16, module >> 8 & 0xFF, module & 0xFF
        layer = LAYERS[number - 1]
        phi = 2 * math.pi * (ladder + 0.5) / layer.ladders
        outward, around = (math.cos(phi), math.sin(phi), 0.0), (-math.sin(phi), math.cos(phi), 0.0)
        flip = -1 if ladder % 2 else 1
        c, s = math.cos(layer.stereo), math.sin(layer.stereo)
        axes = [
            [flip * (c * around[i] + s * (i == 2)) for i in range(3)],
            [c * (i == 2) - s * around[i] for i in range(3)],
            [flip * outward[i] for i in range(3)],
        ]
        centre = [layer.radius * outward[0], layer.radius * outward[1], (along - 4.5) * layer.spacing]
        point = [centre[i] + u * axes[0][i] + v * axes[1][i] for i in range(3)]
        alignment = self.conditions["alignment"]
        six = alignment["module"][self.place[module]].tolist()
        own = [sum(six[3 * part + k] * axes[k][i] for k in range(3)) for part in (0, 1) for i in range(3)]
        half = (0 if number <= 4 else 2) + (0 if math.cos(phi) > 0 else 1)
        for about, moved in (
            (centre, own),
            ([centre[0], centre[1], 0.0], alignment["ladder"][self.ladders.index(module >> 8)].tolist()),
            ([0.0, 0.0, 0.0], alignment["half_barrel"][half].tolist()),
        ):
            point = carried(point, about, moved)
        return point

    @staticmethod
    def _estimate(cluster: dict[str, Any], axis: str, channels: int, measured: int) -> tuple[float, float]:
        size, flags = cluster[f"size_{axis}"], cluster["flags"]
        name = "row" if axis == "u" else "column"
        first = cluster[f"first_{name}"]
        if size == 2:
            line = first + 0.5 + cluster[f"skew_{axis}"] / 2 * positions.WIDTH_OF_TWO[measured]
        elif size > 4 or flags & ClusterFlag.BRIDGED:
            line = first + (size - 1 + cluster[f"skew_{axis}"]) / 2
        else:
            line = cluster[name]
        errors = [positions.SPREAD[measured][min(size, 6) - 1]]
        if flags & ClusterFlag.SATURATED:
            errors.append(0.13)
        if flags & ClusterFlag.BRIDGED:
            errors.append(0.15)
        if flags & ClusterFlag.NEAR_MASKED:
            errors.append(0.5 if size == 1 else 0.3)
        if flags & ClusterFlag.EDGE:
            errors.append(0.3)
        if first == 0 or first + size == channels:
            errors.append(0.5 + 0.1 * (size - 1))
        return line, size / math.sqrt(12) if flags & ClusterFlag.LARGE else max(errors)


def carried(point: list[float], about: list[float], six: list[float]) -> list[float]:
    """A point after a shift, and a turn about a centre by a rotation vector: along it, and around it by its length."""
    shift, turn = six[:3], six[3:]
    angle = math.sqrt(sum(t * t for t in turn))
    arm = [point[i] - about[i] for i in range(3)]
    if angle:
        n = [t / angle for t in turn]
        along = sum(n[i] * arm[i] for i in range(3))
        cross = [n[i - 2] * arm[i - 1] - n[i - 1] * arm[i - 2] for i in range(3)]
        arm = [n[i] * along + math.cos(angle) * (arm[i] - n[i] * along) + math.sin(angle) * cross[i] for i in range(3)]
    return [about[i] + shift[i] + arm[i] for i in range(3)]
