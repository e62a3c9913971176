"""The numerical class of a process: its libraries, its CPU level, and the last bits its functions give.

The same input gives the same bits on two hosts only where NumPy, BLAS and the C library pick the same code. NumPy and
OpenBLAS can be told by their own variables; glibc picks its exp, log, sin, atan and pow by the CPU as well, and only
its tunables turn that off. So a class is not believed from names: a digest of what the functions give is part of it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = ("awkward", "numpy", "scipy", "uproot")

# Two processes are of one class when these agree; the rest of the class is written down only.
COMPARED = (*LIBRARIES, "level", "digest")

NATIVE = "native"
BASELINES = (NATIVE, "x86-64-v2", "x86-64-v3")

# How NumPy names what a level holds; up to 2.3 it dispatched on single features, from 2.4 on whole levels.
_V2_FEATURES = frozenset(["CX16", "LAHF", "MMX", "POPCNT", "SSE", "SSE2", "SSE3", "SSE41", "SSE42", "SSSE3", "X86_V2"])
_V3_FEATURES = _V2_FEATURES | {"AVX", "AVX2", "BMI", "BMI2", "F16C", "FMA3", "LZCNT", "MOVBE", "X86_V3"}
_HELD = {"x86-64-v2": _V2_FEATURES, "x86-64-v3": _V3_FEATURES}
_BLAS_CORE = {"x86-64-v2": "Nehalem", "x86-64-v3": "Haswell"}

# Without FMA and AVX2 glibc falls back to its SSE2 functions; the names with _Usable are those before 2.33.
_GLIBC_V2 = "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable,-FMA4_Usable"

_FUNCTIONS = (
    "exp", "exp2", "expm1", "log", "log1p", "log2", "sin", "cos", "tan", "arctan", "sinh", "tanh", "sqrt", "cbrt",
)  # fmt: skip


def level_environment(baseline: str) -> dict[str, str]:
    """The variables that hold NumPy, OpenBLAS and glibc to a CPU level, if set before Python starts.

    `native` needs none. ValueError for a level that is not known, that this NumPy was built above, or that is of
    another kind of CPU.

    >>> level_environment("native")
    {}
    """
    if baseline == NATIVE:
        return {}
    if baseline not in BASELINES:
        raise ValueError(f"cpu_baseline is {baseline!r}: say one of {', '.join(BASELINES)}")
    if level_of(platform.machine(), {}) not in BASELINES:
        raise ValueError(f"cpu_baseline {baseline!r} is not for {platform.machine()}: say 'native'")
    umath = _umath()
    disabled = features_beyond(baseline, umath.__cpu_baseline__, umath.__cpu_dispatch__)
    variables = {"NPY_DISABLE_CPU_FEATURES": " ".join(disabled), "OPENBLAS_CORETYPE": _BLAS_CORE[baseline]}
    if baseline == "x86-64-v2":
        variables["GLIBC_TUNABLES"] = _GLIBC_V2
    return {name: value for name, value in variables.items() if value}


def numerical_class() -> dict[str, str]:
    """The numerical class of this process, as plain text that goes into JSON; takes 20 ms and imports NumPy."""
    umath = _umath()
    features: Mapping[str, bool] = umath.__cpu_features__
    return {
        **{name: _version(name) for name in LIBRARIES},
        "level": level_of(platform.machine(), features),
        "digest": _digest(),
        "features": " ".join(name for name in umath.__cpu_dispatch__ if features.get(name)),
        "libc": " ".join(platform.libc_ver()).strip(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> tuple[str, ...]:
    """In what two classes differ, one phrase for each; empty when results are the same to the last bit.

    >>> differences({"numpy": "2.4.6"}, {"numpy": "2.3.5"})
    ('numpy 2.4.6 instead of 2.3.5',)
    """
    pairs = ((name, found.get(name, "unknown"), wanted.get(name, "unknown")) for name in COMPARED)
    return tuple(f"{name} {one} instead of {other}" for name, one, other in pairs if one != other)


def as_text(numbers: Mapping[str, str]) -> str:
    """What is compared of a class, in one line that a shell variable can carry.

    >>> from_text(as_text({"numpy": "2.4.6", "level": "x86-64-v3", "libc": "glibc 2.36"}))
    {'numpy': '2.4.6', 'level': 'x86-64-v3'}
    """
    return " ".join(f"{name}={numbers[name]}" for name in COMPARED if name in numbers)


def from_text(text: str) -> dict[str, str]:
    """The class that `as_text` wrote."""
    parts = (part.partition("=") for part in text.split())
    return {name: value for name, _, value in parts}


def remedy(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """What to do about two classes that differ."""
    if any(found.get(name) != wanted.get(name) for name in LIBRARIES):
        return "start all workers from one Python environment"
    return "set cpu_baseline to a level that every host has ('x86-64-v3', or 'x86-64-v2' for the oldest)"


def _umath() -> Any:
    # NumPy has no public way to ask what it was built with and what is switched on.
    return import_module("numpy._core._multiarray_umath")


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


def features_beyond(baseline: str, built: Iterable[str], dispatched: Iterable[str]) -> list[str]:
    """What NumPy dispatches on beyond a level; ValueError if it is built with something beyond, and so cannot stop it.

    >>> features_beyond("x86-64-v3", ["X86_V2"], ["X86_V3", "X86_V4"])
    ['X86_V4']
    """
    if above := sorted(set(built) - _HELD[baseline]):
        raise ValueError(f"this NumPy is built with {' '.join(above)}, above {baseline}: say a higher cpu_baseline")
    return [name for name in dispatched if name not in _HELD[baseline]]


def level_of(machine: str, features: Mapping[str, bool]) -> str:
    """The highest level of which all is switched on, or the kind of CPU where there are no levels.

    >>> level_of("x86_64", {"AVX2": True, "FMA3": True}), level_of("aarch64", {})
    ('x86-64-v3', 'aarch64')
    """
    if machine not in ("x86_64", "AMD64"):
        return machine
    if features.get("X86_V4", features.get("AVX512_SKX", False)):
        return "x86-64-v4"
    if features.get("X86_V3", features.get("AVX2", False) and features.get("FMA3", False)):
        return "x86-64-v3"
    return "x86-64-v2"


def _digest() -> str:
    """SHA-256 over what elementary functions, sums and linear algebra give on fixed input, shortened."""
    import numpy as np  # late: `tier0 --help` comes by here

    found = hashlib.sha256()
    x = np.linspace(1e-3, 50.0, 20_001)
    with np.errstate(all="ignore"):
        for values in (x, x.astype(np.float32)):
            for name in _FUNCTIONS:
                found.update(getattr(np, name)(values).tobytes())
            for pair in (values**1.7, np.hypot(values, values[::-1]), np.arctan2(values, values[::-1])):
                found.update(pair.tobytes())
    # Well mixed, and made without any of the functions in question.
    a = (np.arange(1, 4097) * 2654435761 % 1000003 / 1000003 - 0.5).reshape(64, 64)
    for matrix in (a @ a, a[0] @ a, np.linalg.inv(a), np.linalg.eigvalsh(a + a.T), np.add.reduce(a), np.cumsum(a)):
        found.update(np.ascontiguousarray(matrix).tobytes())
    return found.hexdigest()[:16]


if __name__ == "__main__":
    json.dump(numerical_class(), sys.stdout)
