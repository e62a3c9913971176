"""The simulation once more, one track, channel and event after the other, in plain loops."""

from math import erf, floor, hypot, sqrt

import numpy as np

from pipeline.experiments.ref10.simulate.helix import CURVATURE_GEV
from pipeline.experiments.ref10.simulate.streams import Purpose


def rk4(place, momentum, charge, field, way, steps):
    """Position and momentum after a transverse way, by integrating the Lorentz force in small steps."""
    state = np.concatenate([place, momentum])
    pt = hypot(momentum[0], momentum[1])
    h = way / pt / steps
    bend = CURVATURE_GEV * charge * field

    def rate(s):
        # dx/dl = p, dp/dl = q p x B, with l the transverse way over pT.
        return np.array([s[3], s[4], s[5], bend * s[4], -bend * s[3], 0.0])

    for _ in range(steps):
        a = rate(state)
        b = rate(state + h / 2 * a)
        c = rate(state + h / 2 * b)
        d = rate(state + h * c)
        state = state + h / 6 * (a + 2 * b + 2 * c + d)
    return state[:3], state[3:]


def crossings(geometry, frames, place, pt, eta, phi, charge, field):
    """All modules that one track crosses without scattering, up to where it turns: {row: (u, v, du, dv)}.

    Points along the helix every mm; where the side of a sensor's plane changes, bisection.
    """
    radius = pt / (CURVATURE_GEV * field)

    def at(s):
        angle = phi - charge * s / radius
        x = place[0] + charge * radius * (np.sin(phi) - np.sin(angle))
        y = place[1] - charge * radius * (np.cos(phi) - np.cos(angle))
        direction = np.array([np.cos(angle), np.sin(angle), np.sinh(eta) + 0 * s])
        return np.array([x, y, place[2] + s * np.sinh(eta)]), direction

    way = np.arange(0.0, 130.0, 0.1)
    points, directions = at(way)
    turned = (points[:2] * directions[:2]).sum(axis=0) < 0
    # The vertex lies off the axis: the first points may approach it.
    last = len(way) if not turned[5:].any() else 5 + int(np.argmax(turned[5:]))
    points = points[:, :last]
    found = {}
    for row in range(len(geometry)):
        centre, u, v, w = frames.centre[row], frames.u[row], frames.v[row], frames.w[row]
        side = w @ (points - centre[:, None]) > 0
        reach = hypot(geometry.width[row], geometry.length[row]) / 2 + 0.2
        for i in np.flatnonzero(side[1:] != side[:-1]):
            if np.linalg.norm(points[:, i] - centre) > reach:
                continue
            low, high = way[i], way[i + 1]
            for _ in range(50):
                middle = (low + high) / 2
                low, high = (middle, high) if (w @ (at(middle)[0] - centre) > 0) == side[i] else (low, middle)
            point, direction = at((low + high) / 2)
            a, b = u @ (point - centre), v @ (point - centre)
            if abs(a) <= geometry.width[row] / 2 and abs(b) <= geometry.length[row] / 2:
                found[row] = (a, b, u @ direction / (w @ direction), v @ direction / (w @ direction))
    return found


def phi_below(x):
    """The normal distribution function."""
    return 0.5 * (1 + erf(x / sqrt(2)))


def deposit(geometry, row, tangent, crossing, electrons, weights):
    """Charge by channel (row, column) of one crossing (u, v, du, dv): every step into every channel of the module."""
    u, v, du, dv = crossing
    thickness, steps = geometry.thickness[row], len(weights)
    found = {}
    for i, weight in enumerate(weights):
        height = thickness * ((i + 0.5) / steps - 0.5)
        drift = thickness / 2 - height
        sigma = 6e-4 * sqrt(drift / thickness) + 1e-4
        shares = []
        for at, pitch, number in (
            (u + du * height + drift * tangent, geometry.pitch_u[row], geometry.rows[row]),
            (v + dv * height, geometry.pitch_v[row], geometry.columns[row]),
        ):
            edge = -number / 2 * pitch
            if number == 1:
                shares.append({0: 1.0})
                continue
            middle = floor((at - edge) / pitch)
            near = [c for c in range(middle - 3, middle + 4) if 0 <= c < number]
            shares.append(
                {
                    c: phi_below((edge + (c + 1) * pitch - at) / sigma) - phi_below((edge + c * pitch - at) / sigma)
                    for c in near
                }
            )
        for line, part in shares[0].items():
            for column, other in shares[1].items():
                charge = electrons * weight / sum(weights) * part * other
                found[line, column] = found.get((line, column), 0.0) + charge
    return found


def landau(x):
    """Landau's distribution function by his own integral, of lambda (mode -0.22278, width at half maximum 4.018)."""
    # Gil-Pelaez inversion of the characteristic function exp(-pi t / 2 - i t ln t).
    log_t = np.linspace(-30, 3.5, 20_001)
    t = np.exp(log_t)
    return 0.5 + np.trapezoid(np.exp(-np.pi / 2 * t) * np.sin(t * log_t + t * x), log_t) / np.pi


def generator(seed, run, lumi, purpose, event):
    """Random numbers of one event and purpose."""
    bits = np.random.Philox(key=[seed, run << 32 | lumi], counter=[0, 0, int(purpose), event])
    return np.random.Generator(bits)


def suppress(adc, online, noise, usual):
    """What the DAQ sends of a module, {strip: adc}: common mode by chip, 4 sigma, or 2 beside one over 4.

    `usual`: where the median of the strip's chip usually lies.
    """
    adc, online, noise, height = list(adc), list(online), list(noise), []
    for chip in range(0, len(adc), 128):
        own = [adc[c] - online[c] for c in range(chip, chip + 128)]
        ordered = sorted(own)
        median = (ordered[63] + ordered[64]) / 2
        height += [value - (median - usual[chip]) for value in own]
    kept = {}
    for c, value in enumerate(height):
        over = value > 4 * noise[c]
        beside = any(0 <= n < len(adc) and height[n] > 4 * noise[n] for n in (c - 1, c + 1))
        if over or (beside and value > 2 * noise[c]):
            kept[c] = round(online[c] + value)
    return kept


def strips_of_event(channels, signal, drawn, uniform):
    """The zero-suppressed strips of one event, {strip: adc}, from the same random numbers.

    `signal`: {strip: counts}; `drawn(purpose)`: a generator; `uniform`: the number that says how many strips fire.
    """
    from scipy.special import ndtri
    from scipy.stats import poisson

    def module(strip):
        return strip // 768

    height, chips = {}, {}
    noise = drawn(Purpose.STRIP_NOISE).standard_normal(len(signal))
    for (strip, counts), normal in zip(sorted(signal.items()), noise, strict=True):
        height[strip] = channels.centre[strip] + min(counts + channels.own_spread[strip] * normal, 254)
        chips.setdefault(strip // 128, []).append(counts > 2 * channels.noise[strip])
    for chip, normal in zip(sorted(chips), drawn(Purpose.COMMON_MODE).standard_normal(len(chips)), strict=True):
        error = channels.median_error[chip] * (normal + max(sum(chips[chip]) - 1, 0) / sqrt(128))
        for strip in signal:
            if strip // 128 == chip:
                height[strip] -= error
    total = channels.noise_rate[-1]
    both = drawn(Purpose.NOISE).random(2 * int(poisson.ppf(uniform, total))).reshape(-1, 2)
    noisy = {}
    for place, size in both:
        strip = int(np.searchsorted(channels.noise_rate, place * total, side="right"))
        if strip not in signal and strip not in noisy:
            noisy[strip] = channels.centre[strip] - channels.spread[strip] * ndtri((1 - size) * channels.firing[strip])
    height.update(noisy)
    over = {strip for strip, value in height.items() if value > 4 * channels.threshold[strip]}
    beside = set()
    for strip in over:
        for other in (strip - 1, strip + 1):
            there = 0 <= other < len(channels.dead) and module(other) == module(strip)
            if there and other not in height and not channels.dead[other]:
                beside.add(other)
    for strip, size in zip(sorted(beside), drawn(Purpose.BESIDE).random(len(beside)), strict=True):
        height[strip] = channels.centre[strip] + channels.spread[strip] * ndtri(size * (1 - channels.firing[strip]))
    kept = {}
    for strip, value in sorted(height.items()):
        near = any(o in over and module(o) == module(strip) for o in (strip - 1, strip + 1))
        if strip in over or (near and value > 2 * channels.threshold[strip]):
            kept[strip] = min(max(round(channels.online[strip] + value), 0), 1023)
    return kept
