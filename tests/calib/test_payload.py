from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from calib.iov import RunLumi
from calib.payload import Conditions, Payload, PayloadDamaged, PayloadMissing, PayloadStore, open_store

ARRAYS = {"mean": np.arange(6.0).reshape(2, 3), "bad": np.array([True, False]), "n": np.array(7)}


@pytest.fixture
def payload() -> Payload:
    return Payload("pedestal", ARRAYS, {"mean": "ADC"})


@pytest.fixture
def store(tmp_path: Path) -> PayloadStore:
    return PayloadStore(tmp_path / "payloads")


def test_the_id_is_that_of_the_content(payload: Payload) -> None:
    big_endian_fortran = {**ARRAYS, "mean": np.asfortranarray(ARRAYS["mean"]).astype(">f8")}
    assert Payload("pedestal", dict(reversed(big_endian_fortran.items())), {"mean": "ADC"}).id == payload.id


@pytest.mark.parametrize(
    "other",
    [
        Payload("noise", ARRAYS, {"mean": "ADC"}),
        Payload("pedestal", ARRAYS, {"mean": "mV"}),
        Payload("pedestal", ARRAYS),
        Payload("pedestal", {**ARRAYS, "n": np.array(8)}, {"mean": "ADC"}),
        Payload("pedestal", {**ARRAYS, "n": np.array(7, np.int32)}, {"mean": "ADC"}),
        Payload("pedestal", {**ARRAYS, "n": np.array([7])}, {"mean": "ADC"}),
        Payload("pedestal", {**ARRAYS, "mean": ARRAYS["mean"].reshape(3, 2)}, {"mean": "ADC"}),
        Payload("pedestal", {"mean": ARRAYS["mean"]}, {"mean": "ADC"}),
        Payload("pedestal", {**ARRAYS, "mean": -0.0 * ARRAYS["mean"]}, {"mean": "ADC"}),
    ],
)
def test_any_change_changes_the_id(payload: Payload, other: Payload) -> None:
    assert other.id != payload.id


def test_arrays_are_own_and_read_only(payload: Payload) -> None:
    source = np.zeros(2)
    made = Payload("a", {"x": source})
    source[0] = 1
    assert made["x"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="read-only"):
        payload["mean"][0] = 1


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(ValueError, match=r"array 'name' has type <U1; use booleans, integers or floats"):
        Payload("a", {"name": np.array(["x"])})
    with pytest.raises(ValueError, match=r"units given for arrays it has not: \['y'\]"):
        Payload("a", {"x": np.zeros(1)}, {"y": "cm"})


def test_flags_are_single_booleans() -> None:
    arrays = {"bad": np.array([True]), "measured": np.array(True), "n": np.array(1), "carried": np.array(False)}
    assert Payload("a", arrays).flags == {"carried": False, "measured": True}


def test_a_payload_travels(payload: Payload) -> None:
    assert pickle.loads(pickle.dumps(payload)).id == payload.id


@settings(max_examples=25)
@given(hn.arrays(st.sampled_from([np.float64, np.int16, np.bool_]), hn.array_shapes(min_dims=0, min_side=0)))
def test_what_is_put_comes_back(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    store = PayloadStore(tmp_path_factory.mktemp("any"))
    payload = Payload("any", {"x": values}, {"x": "cm"})
    found = PayloadStore(store.root).get(store.put(payload))
    assert found.id == payload.id
    assert (found["x"].dtype, found["x"].shape, dict(found.units)) == (values.dtype, values.shape, {"x": "cm"})


def test_payloads_are_equal_byte_for_byte(payload: Payload, tmp_path: Path) -> None:
    def content(root: Path) -> dict[str, bytes]:
        return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}

    one, two = PayloadStore(tmp_path / "one"), PayloadStore(tmp_path / "two")
    one.put(payload)
    two.put(pickle.loads(pickle.dumps(payload)))
    assert content(one.root) == content(two.root)
    assert not list(tmp_path.rglob("*.partial"))


def test_putting_again_changes_nothing(store: PayloadStore, payload: Payload) -> None:
    path = store.path(store.put(payload))
    before = path.stat().st_mtime_ns
    assert store.put(payload) == payload.id
    assert path.stat().st_mtime_ns == before


def test_a_write_that_was_killed_leaves_no_payload(store: PayloadStore, payload: Payload) -> None:
    path = store.path(payload.id)
    (path.parent / f"{path.name}.dead.partial").mkdir(parents=True)
    assert not store.has(payload.id)
    assert PayloadStore(store.root).get(store.put(payload)).id == payload.id


def test_a_writer_killed_before_the_rename_leaves_a_partial_that_is_found_after_a_grace(
    store: PayloadStore, payload: Payload
) -> None:
    root = str(store.root)
    program = (
        "import os, pickle, signal, sys\n"
        "from calib.payload import PayloadStore\n"
        "payload = pickle.load(sys.stdin.buffer)\n"
        f"PayloadStore({root!r}).put(payload, lambda point: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(payload), check=False)
    assert done.returncode == -signal.SIGKILL
    assert not store.has(payload.id)
    (left,) = store.root.rglob("*.partial")
    assert PayloadStore.read(left).id == payload.id
    newest = max(path.stat().st_mtime for path in (left, *left.rglob("*")))
    os.utime(left, (newest - 1000, newest - 1000))
    assert store.partials(60.0, newest + 59.0) == []
    assert store.partials(60.0, newest + 61.0) == [left]
    store.put(payload)
    assert store.partials(60.0, newest + 61.0) == [left]
    assert PayloadStore(store.root).get(payload.id).id == payload.id


def test_the_probe_is_asked_when_all_is_written_and_nothing_in_place(store: PayloadStore, payload: Payload) -> None:
    seen: list[tuple[str, bool, str]] = []

    def probe(point: str) -> None:
        (partial,) = store.root.rglob("*.partial")
        seen.append((point, store.has(payload.id), PayloadStore.read(partial).id))

    store.put(payload, probe)
    store.put(payload, probe)
    assert seen == [("payload", False, payload.id)]
    assert store.partials(0.0, float("inf")) == []


def test_a_missing_payload_is_named(store: PayloadStore) -> None:
    with pytest.raises(PayloadMissing, match=f"no payload abc in {store.root}"):
        store.get("abc")


def test_a_changed_payload_is_refused(store: PayloadStore, payload: Payload) -> None:
    path = store.path(store.put(payload))
    zarr.open_group(str(path), mode="a")["n"][...] = 8  # type: ignore[index]
    with pytest.raises(PayloadDamaged, match="has changed since it was written"):
        store.get(payload.id)


@pytest.mark.parametrize("part", ["zarr.json", "n/zarr.json", "n/c"])
def test_a_payload_that_cannot_be_decoded_is_refused(store: PayloadStore, payload: Payload, part: str) -> None:
    file = store.path(store.put(payload)) / part
    file.write_bytes(b"{" + file.read_bytes()[::-1])
    with pytest.raises(PayloadDamaged, match="has changed since it was written"):
        store.get(payload.id)


def test_the_cache_is_limited_and_gives_the_last_used(tmp_path: Path) -> None:
    store = PayloadStore(tmp_path, keep_bytes=2000)
    ids = [store.put(Payload("a", {"x": np.full(100, float(i))})) for i in range(3)]
    first = store.get(ids[0])
    store.get(ids[1])
    assert store.get(ids[0]) is first
    store.get(ids[2])  # the least lately used, 1, goes
    shutil.rmtree(store.path(ids[1]))
    assert store.get(ids[0]) is first
    with pytest.raises(PayloadMissing):
        store.get(ids[1])


def test_a_process_has_one_store_a_folder(tmp_path: Path) -> None:
    assert open_store(tmp_path) is open_store(str(tmp_path))


def test_conditions_travel_as_ids_and_read_where_used(store: PayloadStore, payload: Payload) -> None:
    conditions = Conditions(RunLumi(3, 7), {"pedestal": store.put(payload)}, str(store.root))
    sent = pickle.dumps(conditions)
    assert len(sent) < 1000
    found = pickle.loads(sent)
    assert (list(found), len(found), "pedestal" in found) == (["pedestal"], 1, True)
    assert found["pedestal"].id == payload.id
    with pytest.raises(KeyError, match=r"no conditions of kind 'noise' at 3:7; there are \['pedestal'\]"):
        found["noise"]
