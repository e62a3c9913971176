"""Random numbers: those of numpy's Philox at the stated key and counter, whatever is drawn with them."""

import numpy as np
import pytest

from pipeline.experiments.ref10.simulate.streams import Purpose, Streams, table_generator

EVENTS, COUNTS = np.array([7, 3, 900]), np.array([5, 0, 130])


def placed(seed, run, lumi, purpose, event):
    bits = np.random.Philox(key=[seed, run << 32 | lumi], counter=[0, 0, int(purpose), event])
    return np.random.Generator(bits)


def test_each_event_has_the_numbers_of_its_key_and_counter():
    streams = Streams(11, 4, 9)
    kinds = {
        "uniform": lambda generator, size: generator.random(size),
        "normal": lambda generator, size: generator.standard_normal(size),
        "gamma": lambda generator, size: generator.standard_gamma(4.0, size),
    }
    for name, draw in kinds.items():
        given = (4.0,) if name == "gamma" else ()
        found = getattr(streams, name)(*given, Purpose.CHARGE, EVENTS, COUNTS)
        sized = zip(EVENTS, COUNTS, strict=True)
        wanted = [draw(placed(11, 4, 9, Purpose.CHARGE, event), size) for event, size in sized]
        assert (found == np.concatenate(wanted)).all(), name


def test_an_event_has_its_numbers_alone_and_more_of_them_begin_alike():
    streams = Streams(11, 4, 9)
    together = streams.normal(Purpose.STEPS, EVENTS, COUNTS)
    assert (streams.normal(Purpose.STEPS, EVENTS[2:], COUNTS[2:]) == together[5:]).all()
    assert (streams.normal(Purpose.STEPS, EVENTS[:1], np.array([3])) == together[:3]).all()
    assert len(streams.normal(Purpose.STEPS, EVENTS[:0], COUNTS[:0])) == 0


@pytest.mark.parametrize("other", [(12, 4, 9), (11, 5, 9), (11, 4, 10)])
def test_other_keys_give_other_numbers(other):
    def drawn(key, purpose, event):
        return Streams(*key).uniform(purpose, np.array([event]), np.array([50]))

    own = drawn((11, 4, 9), Purpose.NOISE, 1)
    assert not np.isin(own, drawn(other, Purpose.NOISE, 1)).any()
    assert not np.isin(own, drawn((11, 4, 9), Purpose.NOISE, 2)).any()
    assert not np.isin(own, drawn((11, 4, 9), Purpose.PULSE, 1)).any()


def test_no_purpose_has_the_number_of_another():
    assert len(Purpose.__members__) == len({int(purpose) for purpose in Purpose})


def test_a_table_belongs_to_a_seed():
    drawn = table_generator(3, Purpose.GAIN).random(20)
    assert (drawn == placed(3, 0, 0, Purpose.GAIN, 0).random(20)).all()
    assert not np.isin(drawn, table_generator(4, Purpose.GAIN).random(20)).any()


@pytest.mark.parametrize(("key", "told"), [((-1, 1, 1), "a seed must lie"), ((1 << 64, 1, 1), "a seed must lie")])
def test_what_is_no_seed_is_refused(key, told):
    with pytest.raises(ValueError, match=told):
        Streams(*key)


@pytest.mark.parametrize("key", [(1, 1 << 32, 1), (1, 1, -1)])
def test_what_is_no_lumisection_is_refused(key):
    with pytest.raises(ValueError, match="run and lumisection must lie"):
        Streams(*key)
