"""Pixels over threshold and strips' signals, against loops and what thresholds and noise say."""

import numpy as np
from scipy.stats import norm

from pipeline.experiments.ref10.geometry import geometry_of, mini_geometry
from pipeline.experiments.ref10.simulate.cells import Cells
from pipeline.experiments.ref10.simulate.channels import channels
from pipeline.experiments.ref10.simulate.faults import Faults
from pipeline.experiments.ref10.simulate.response import Digis, in_order, pixel_digis, strip_signal
from pipeline.experiments.ref10.simulate.scenario import Scenario, tables_of
from pipeline.experiments.ref10.simulate.streams import Streams

MINI = geometry_of(mini_geometry())
PIXELS = int(MINI.pixel.sum())
NO_DEAD = np.zeros((PIXELS, 36), bool)


def cells(charge, event=None, row=0, channel=None):
    n = len(charge)
    event = np.zeros(n, np.int64) if event is None else event
    channel = np.arange(n) % 100 | (np.arange(n) // 100) << 16 if channel is None else channel
    return Cells(event, np.full(n, row), channel, np.asarray(charge, float), np.arange(n))


def draws(events=1):
    return Streams(5, 1, 1), np.arange(1, events + 1)


def test_pixels_pass_the_threshold_with_the_efficiency_of_their_noise():
    n = 20_000
    for charge in (2600.0, 2900.0, 3000.0, 3200.0, 3500.0):
        digis = pixel_digis(MINI, cells(np.full(n, charge)), NO_DEAD, 200.0, draws())
        wanted = norm.cdf((charge - 3000) / 200)
        assert abs(len(digis.adc) / n - wanted) < 4.5 * np.sqrt(wanted * (1 - wanted) / n)
        assert digis.adc.min() >= 20
    assert len(pixel_digis(MINI, cells(np.full(n, 1300.0)), NO_DEAD, 200.0, draws()).adc) == 0


def test_pixels_send_their_charge_in_counts_and_saturate():
    charge = np.linspace(4000, 60_000, 2000)
    digis = pixel_digis(MINI, cells(charge), NO_DEAD, 0.0, draws())
    assert (digis.adc == np.minimum(np.rint(charge / 150), 255)).all()
    assert (digis.adc == 255).sum() > 500
    noisy = pixel_digis(MINI, cells(np.full(20_000, 20_000.0)), NO_DEAD, 200.0, draws())
    rest = noisy.adc.astype(float) - 20_000 / 150
    assert abs(rest.mean()) < 4.5 * 1.37 / np.sqrt(20_000)
    assert abs(rest.std() - np.hypot(200 / 150, np.sqrt(1 / 12))) < 4.5 * 1.4 / np.sqrt(40_000)


def test_a_dead_readout_chip_sends_nothing():
    rows = int(MINI.rows[0])
    line, column = (part.ravel() for part in np.meshgrid(np.arange(0, rows, 9), np.arange(0, 432, 11), indexing="ij"))
    found = cells(np.full(len(line), 1e4), channel=line | column << 16)
    dead = NO_DEAD.copy()
    dead[0, 9 + 2] = True
    digis = pixel_digis(MINI, found, dead, 200.0, draws())
    gone = (line // 80 == 1) & (column // 52 == 2)
    assert gone.sum() > 10
    assert sorted(digis.channel) == sorted((line | column << 16)[~gone])
    other = NO_DEAD.copy()
    other[1] = True
    assert len(pixel_digis(MINI, found, other, 200.0, draws()).adc) == len(line)


def test_charge_of_strips_is_counts_by_the_gain_of_their_chip():
    strips = channels(Scenario(faults=Faults(dead_strips=0.3)), MINI, 1, 1, 1)
    gain, dead = tables_of(Scenario(faults=Faults(dead_strips=0.3)), MINI, 1).gain, strips.dead
    block = 5
    row = int(MINI.strip_rows[block])
    found = cells(np.full(768, 26_500.0), row=row, channel=np.arange(768))
    pixel = cells(np.full(3, 1e4))
    both = Cells(
        *(
            np.concatenate([getattr(a, k), getattr(b, k)])
            for a, b, k in ((pixel, found, k) for k in ("event", "row", "channel", "charge", "particle"))
        )
    )
    signal = strip_signal(MINI, strips, both)
    strip = block * 768 + np.arange(768)
    assert signal.key.tolist() == strip[~dead[strip]].tolist()
    assert np.allclose(signal.counts, 100.0 / gain[signal.key // 128])


def test_pixels_come_before_strips_in_every_event():
    def digis(event, row):
        n = len(event)
        return Digis(np.array(event), np.array(row), np.arange(n), np.arange(n).astype(np.uint16), np.arange(n))

    found = in_order([digis([0, 0, 2], [1, 4, 1]), digis([0, 1, 2, 2], [9, 8, 8, 9])])
    assert found.event.tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert found.row.tolist() == [1, 4, 9, 8, 1, 8, 9]
