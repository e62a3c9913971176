"""The numerical class tells apart what gives other bits, and the levels pin what they promise."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from jobs.numerics import (
    BASELINES,
    COMPARED,
    LIBRARIES,
    as_text,
    differences,
    features_beyond,
    from_text,
    level_environment,
    level_of,
    numerical_class,
    remedy,
)

x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="levels are of x86-64")


def class_under(variables: dict[str, str]) -> dict[str, str]:
    """The class of a fresh process, every warning of which is an error."""
    command = [sys.executable, "-W", "error", "-m", "jobs.numerics"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_class_is_complete_and_repeats() -> None:
    found = numerical_class()
    assert found == numerical_class() == json.loads(json.dumps(found))
    assert set(COMPARED) <= set(found)
    assert all(found[name] != "none" for name in LIBRARIES)


def test_fresh_process_has_the_same_class() -> None:
    one = class_under({"OPENBLAS_NUM_THREADS": "1"})
    assert one == class_under({"OPENBLAS_NUM_THREADS": "1"})
    assert differences(one, class_under({"OPENBLAS_NUM_THREADS": "2"})) == ()


@x86
@pytest.mark.parametrize("baseline", [level for level in BASELINES if level != "native"])
def test_level_is_in_force(baseline: str) -> None:
    if baseline == "x86-64-v3" and numerical_class()["level"] == "x86-64-v2":
        pytest.skip("this host has no x86-64-v3")
    assert class_under(level_environment(baseline))["level"] == baseline


@x86
def test_each_part_of_the_oldest_level_changes_bits() -> None:
    """NumPy, OpenBLAS and glibc each choose by themselves: none of the three variables is enough."""
    if numerical_class()["level"] == "x86-64-v2":
        pytest.skip("this host has nothing above x86-64-v2")
    variables = level_environment("x86-64-v2")
    assert set(variables) == {"NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE", "GLIBC_TUNABLES"}
    whole = class_under(variables)["digest"]
    parts = [class_under({k: v for k, v in variables.items() if k != left_out})["digest"] for left_out in variables]
    assert len({whole, *parts, class_under({})["digest"]}) == 5


def test_native_sets_nothing() -> None:
    assert level_environment("native") == {}


def test_numpy_built_above_the_level_is_refused() -> None:
    with pytest.raises(ValueError, match="built with AVX2, above x86-64-v2"):
        features_beyond("x86-64-v2", ["SSE2", "AVX2"], [])


@pytest.mark.parametrize(
    ("on", "level"),
    [
        (["X86_V2", "X86_V3", "X86_V4"], "x86-64-v4"),
        (["X86_V2", "X86_V3"], "x86-64-v3"),
        (["X86_V2"], "x86-64-v2"),
        (["SSE42", "AVX2", "FMA3", "AVX512_SKX"], "x86-64-v4"),
        (["SSE42", "AVX2", "FMA3"], "x86-64-v3"),
        (["SSE42", "AVX2"], "x86-64-v2"),
    ],
)
def test_level_from_the_names_of_new_and_old_numpy(on: list[str], level: str) -> None:
    names = ["SSE42", "AVX2", "FMA3", "AVX512_SKX"] if "SSE42" in on else ["X86_V2", "X86_V3", "X86_V4"]
    assert level_of("x86_64", {name: name in on for name in names}) == level


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="say one of native, x86-64-v2, x86-64-v3"):
        level_environment("x86-64-v9")


@pytest.mark.parametrize("name", COMPARED)
def test_every_part_that_is_compared_tells_classes_apart(name: str) -> None:
    found = numerical_class()
    other = {**found, name: "other"}
    assert differences(found, found) == ()
    (why,) = differences(other, found)
    assert why == f"{name} other instead of {found[name]}"
    assert ("environment" in remedy(other, found)) == (name in LIBRARIES)


def test_what_is_written_down_only_is_not_compared() -> None:
    found = numerical_class()
    assert differences({**found, "python": "3.14.0", "libc": "glibc 2.41"}, found) == ()


def test_text_brings_back_what_is_compared() -> None:
    found = numerical_class()
    assert differences(from_text(as_text(found)), found) == ()
    assert from_text("") == {}
