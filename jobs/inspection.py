"""What is really in force on a cluster, against what the promises of this package rest on."""

from __future__ import annotations

import ipaddress
import os
import platform
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import numerics
from jobs.cluster_settings import ALLOCATOR, ONE_THREAD, ClusterRefused, ClusterSettings

if TYPE_CHECKING:
    from distributed import Client

# Where the scheduler keeps what refused workers said of themselves; see `jobs.admission`.
REFUSED = "tier0-refused"

# An array of 16 MB that is faulted in again costs 4096 page faults; one from memory at hand almost none.
_ARRAY = 16 << 20
_MOST_FAULTS = 1024

_OPEN = "set up TLS: anyone who reaches it runs code as you"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that is not as it should be: where, what was found and wanted, and what to do."""

    what: str
    where: str
    found: str
    wanted: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what} is {self.found} on {self.where}, but should be {self.wanted}: {self.remedy}"


def verify(client: Client, settings: ClusterSettings, timeout: float = 60.0) -> list[Mismatch]:
    """Everything on the cluster that is not as the settings and the promises want it; empty when all is well.

    Waits up to `timeout` seconds for a first worker. ClusterRefused where going on could change results: no worker,
    workers of several numerical classes or of another CPU level than asked for, or none of this package on them.
    """
    refused = wait_for_worker(client, timeout, settings.workers)
    found = [*refused, *judge_scheduler(_ask_scheduler(client), settings)]
    workers = _ask_workers(client)
    one_class({worker: facts["class"] for worker, facts in workers.items()}, settings.cpu_baseline)
    return found + gathered(workers, settings)


def numerical_class(client: Client) -> dict[str, str]:
    """The numerical class that all workers share; ClusterRefused if they do not."""
    return one_class({worker: facts["class"] for worker, facts in _ask_workers(client).items()}, numerics.NATIVE)


def wait_for_worker(client: Client, timeout: float, asked_for: int | None = None) -> list[Mismatch]:
    """Wait for a first worker, and give those that were turned away.

    ClusterRefused when none comes in time, or as many as were asked for have been turned away.
    """
    until = time.monotonic() + timeout
    while True:
        turned_away = [_refusal(said) for _, said in client.get_events(REFUSED)]
        if client.scheduler_info(n_workers=-1)["workers"]:
            return turned_away
        if time.monotonic() >= until or (asked_for and len(turned_away) >= asked_for):
            break
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=min(0.5, timeout))
    if turned_away:
        raise ClusterRefused("every worker so far was turned away:\n" + "\n".join(map(str, turned_away)))
    raise ClusterRefused(f"no worker in {timeout:g} s: ask the batch system for its jobs, and read their logs")


def _refusal(said: Mapping[str, Any]) -> Mismatch:
    return Mismatch(
        what="numerical class",
        where=f"worker {said['worker']} ({said['host']}), which was turned away",
        found=", ".join(said["differs"]),
        wanted="that of this cluster",
        remedy=said["remedy"],
    )


def scheduler_facts(dask_scheduler: Any) -> dict[str, Any]:
    """What is in force on the scheduler; runs there."""
    server = getattr(dask_scheduler, "http_server", None)
    return {
        "allowed failures": dask_scheduler.allowed_failures,
        "worker ttl": dask_scheduler.worker_ttl,
        "worker saturation": dask_scheduler.WORKER_SATURATION,
        "idle timeout": dask_scheduler.idle_timeout,
        "no-workers timeout": dask_scheduler.no_workers_timeout,
        "address": dask_scheduler.address,
        "dashboard": getattr(server, "address", None),
    }


def worker_facts(dask_worker: Any) -> dict[str, Any]:
    """What is in force on a worker; runs there, in the process that does the work."""
    memory = dask_worker.memory_manager
    return {
        "threads": dask_worker.state.nthreads,
        "nanny": dask_worker.nanny is not None,
        "lifetime": dask_worker.lifetime,
        "memory limit": memory.memory_limit,
        "pause": memory.memory_pause_fraction,
        "spill": memory.max_spill,
        "address": dask_worker.address,
        "environment": _first_environment(),
        "page faults": page_faults(),
        "class": numerics.numerical_class(),
    }


def page_faults() -> int:
    """Page faults of this thread for one temporary array of 16 MB, after the first; 0 where nobody counts them."""
    if platform.system() != "Linux":
        return 0
    counts = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        len(b"\1" * _ARRAY)
        counts.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
    return min(counts[1:])


def _first_environment() -> dict[str, str]:
    """The variables this process was started with: those set later do not reach the allocator."""
    try:
        lines = Path("/proc/self/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return dict(os.environ)
    parts = (line.partition("=") for line in lines)
    return {name: value for name, _, value in parts}


def _ask_scheduler(client: Client) -> dict[str, Any]:
    facts: dict[str, Any] = client.run_on_scheduler(scheduler_facts)  # type: ignore[no-untyped-call]
    return facts


def _ask_workers(client: Client, timeout: float = 60.0) -> dict[str, dict[str, Any]]:
    from distributed.comm.core import CommClosedError

    until = time.monotonic() + timeout
    while True:
        answers = client.run(worker_facts, on_error="return")
        # One that dies as it is asked says nothing of the others; what replaces it is judged as it joins.
        found = {worker: facts for worker, facts in answers.items() if not isinstance(facts, CommClosedError)}
        if found:
            break
        if time.monotonic() >= until:
            raise ClusterRefused(f"no worker answers for {timeout:g} s: read their logs")
        time.sleep(0.1)
        wait_for_worker(client, until - time.monotonic())
    for worker, facts in found.items():
        if isinstance(facts, BaseException):
            raise ClusterRefused(
                f"worker {worker} cannot run this package ({type(facts).__name__}: {facts}): "
                "start workers from the Python environment that this runs in"
            ) from facts
    return found


def one_class(classes: Mapping[str, dict[str, str]], baseline: str) -> dict[str, str]:
    """The class that all workers share; ClusterRefused if they do not, or it is not of the level asked for."""
    first, wanted = next(iter(sorted(classes.items())))
    if baseline not in (numerics.NATIVE, wanted["level"]):
        raise ClusterRefused(
            f"worker {first} computes at {wanted['level']}, not at cpu_baseline {baseline!r}: before it starts, "
            + _as_exports(numerics.level_environment(baseline))
        )
    for worker, found in classes.items():
        if why := numerics.differences(found, wanted):
            raise ClusterRefused(
                f"results would depend on the worker: {worker} has {', '.join(why)} as on {first}; "
                + numerics.remedy(found, wanted)
            )
    return wanted


def judge_scheduler(facts: Mapping[str, Any], settings: ClusterSettings) -> Iterator[Mismatch]:
    """What is wrong with a scheduler, from its `scheduler_facts`."""
    from dask.utils import parse_timedelta

    longest = parse_timedelta(settings.longest_task)
    patient = facts["worker ttl"] is None or facts["worker ttl"] > longest
    checks = (
        ("allowed failures", facts["allowed failures"] == 0, "0", _for_scheduler("allowed-failures", "0")),
        ("worker ttl", patient, f"over {longest:.0f} s", _for_scheduler("worker-ttl", f"{2 * longest:.0f}s")),
        ("worker saturation", facts["worker saturation"] < 2, "1.1", _for_scheduler("worker-saturation", "1.1")),
        ("idle timeout", not facts["idle timeout"], "none", _for_scheduler("idle-timeout", "None")),
        ("no-workers timeout", not facts["no-workers timeout"], "none", _for_scheduler("no-workers-timeout", "None")),
        ("address", _closed(facts["address"]), "tls:// or loopback", _OPEN),
        ("dashboard", _loopback(facts["dashboard"]), "on loopback", "start it with --dashboard-address 127.0.0.1:8787"),
    )  # fmt: skip
    for what, good, wanted, remedy in checks:
        if not good:
            yield Mismatch(what, "the scheduler", str(facts[what]), wanted, remedy)


def judge_worker(facts: Mapping[str, Any], settings: ClusterSettings) -> Iterator[tuple[str, str, str, str]]:
    """What is wrong with a worker, from its `worker_facts`: what, found, wanted, remedy."""
    environment = facts["environment"]
    limit = repr(settings.memory or "4 GB")
    for what, variables in (("allocator", ALLOCATOR), ("threads of BLAS", ONE_THREAD)):
        found = {name: environment.get(name, "") for name in variables}
        if found != variables:
            yield what, _assigned(found), _assigned(variables), f"before `dask worker`: {_as_exports(variables)}"
    checks = (
        ("threads", facts["threads"] == 1, "1", "start more workers, each with --nthreads 1"),
        ("nanny", facts["nanny"], "True", "start it with --nanny, or nothing replaces a worker that died"),
        ("lifetime", not facts["lifetime"], "none", "start it without --lifetime, which runs tasks twice"),
        ("memory limit", bool(facts["memory limit"]), "set", f"start it with --memory-limit {limit}"),
        ("pause", bool(facts["pause"]), "0.8", _for_worker("memory.pause", "0.8")),
        ("spill", bool(facts["spill"]), settings.spill, _for_worker("memory.max-spill", settings.spill)),
        ("address", _closed(facts["address"]), "tls:// or loopback", _OPEN),
        ("page faults", facts["page faults"] < _MOST_FAULTS, "next to none for 16 MB",
         f"before `dask worker`: {_as_exports(ALLOCATOR)}"),
    )  # fmt: skip
    for what, good, wanted, remedy in checks:
        if not good:
            yield what, _found(what, facts[what]), wanted, remedy


def _found(what: str, value: object) -> str:
    """As text that is the same for all workers with one fault."""
    if what == "address":
        return "open"
    return f"{value // 1000} thousand" if isinstance(value, int) and what == "page faults" else str(value)


def gathered(workers: Mapping[str, Mapping[str, Any]], settings: ClusterSettings) -> list[Mismatch]:
    """The same fault on many workers is one mismatch."""
    where: dict[tuple[str, str, str, str], list[str]] = {}
    for worker, facts in sorted(workers.items()):
        for fault in judge_worker(facts, settings):
            where.setdefault(fault, []).append(worker)
    return [
        Mismatch(what, _some(names), found, wanted, remedy) for (what, found, wanted, remedy), names in where.items()
    ]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _assigned(variables: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value or 'unset'}" for name, value in variables.items())


def _as_exports(variables: Mapping[str, str]) -> str:
    return "export " + " ".join(f"{name}={value!r}" for name, value in variables.items())


def _for_scheduler(name: str, value: str) -> str:
    return f"before `dask scheduler`: export {_variable('distributed.scheduler.' + name)}={value!r}"


def _for_worker(name: str, value: str) -> str:
    return f"before `dask worker`: export {_variable('distributed.worker.' + name)}={value!r}"


def _variable(setting: str) -> str:
    return "DASK_" + setting.replace(".", "__").replace("-", "_").upper()


def _closed(address: str) -> bool:
    protocol, _, rest = address.rpartition("://")
    return protocol in ("tls", "inproc") or _loopback(rest.rpartition(":")[0].strip("[]"))


def _loopback(host: str | None) -> bool:
    if host is None or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
