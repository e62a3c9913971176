"""What is said about a cluster, and all that follows from it: environment of the workers, configuration of Dask."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobs.numerics import BASELINES, NATIVE, level_environment

LOOPBACK = "127.0.0.1"

# Dask's nanny asks glibc to give every temporary array back to the kernel, which costs array work a factor of
# 1.5 to 1.9 in page faults; with the first two a worker keeps up to 256 MB at hand. Tasks run in a thread of their
# own, whose arena would be built of pieces of 64 MB and given back all the same: hence one arena for all.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}

# A worker is one process and one thread: more would race for the cores, and sum in another order.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_SIZE = r"(?=.*[1-9])\d+(\.\d+)? *([kMGT]i?)?B"
_TIME = r"(?=.*[1-9])\d+(\.\d+)? *(s|seconds?|m|minutes?|h|hours?|d|days?)"


class ClusterRefused(RuntimeError):
    """A cluster, or a worker of it, cannot be had or must not be used; the message says what to change."""


class Kind(StrEnum):
    """Where the workers run."""

    LOCAL = "local"
    SLURM = "slurm"
    HTCONDOR = "htcondor"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """What a user says about the cluster; ValueError, with what to write instead, for what cannot be.

    Sizes and times are texts such as "2 GB" and "30 minutes".
    """

    kind: Kind = Kind.LOCAL
    workers: int | None = None
    """Worker processes of one thread each; local: one for each core unless said."""
    memory: str | None = None
    """What one worker may use; local: its share of the host unless said. A batch job asks for `headroom` times it."""
    spill: str = "10 GB"
    """How much one worker may write to scratch when its memory is full."""
    scratch: str | None = None
    """A folder on a local disk of the worker's host."""
    longest_task: str = "30 minutes"
    """A worker that has not answered for twice as long is given up."""
    reserve: int = 0
    """Threads that only conditions may occupy: they never wait for a chunk to end then, but no chunk waits for a thread
    either, which costs time. One branch (`splitting.fan_in` chunks) may always run."""
    cpu_baseline: str = NATIVE
    tls: bool = True
    """Encrypted and by certificate; without it anyone who reaches a port runs code as you."""
    dashboard_port: int = 8787
    """On loopback; another is taken if it is in use, and 0 takes any."""
    address: str | None = None
    """Of the scheduler to join, such as "tls://host:8786"; Dask's own configuration has the certificates."""

    # Batch clusters.
    workers_per_job: int = 1
    headroom: float = 1.25
    """Memory of a job over that of its workers, for the process that watches them and for what Dask does not see."""
    queue: str | None = None
    """SLURM only: its partition."""
    account: str | None = None
    walltime: str = "08:00:00"
    """SLURM only; HTCondor has no common word for it: give your site's as a directive."""
    disk: str = "20 GB"
    """HTCondor only."""
    directives: tuple[str, ...] = ()
    """Lines for the batch system as they are: "--constraint=rome" for SLURM, "Requirements = ..." for HTCondor."""
    prologue: tuple[str, ...] = ()
    """Shell lines before the worker starts."""
    interface: str | None = None
    scheduler_host: str | None = None
    scheduler_port: int = 0
    shared_directory: str | None = None
    """A folder that submitting host and workers share, for certificates and logs; the current one unless said."""
    log_directory: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in list(Kind):
            raise ValueError(f"kind is {self.kind!r}: say one of {', '.join(Kind)}")
        object.__setattr__(self, "kind", Kind(self.kind))
        for name in ("directives", "prologue"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_numbers(self)
        _check_kind(self)

    @property
    def batch(self) -> bool:
        """Whether workers come from a batch system."""
        return self.kind in (Kind.SLURM, Kind.HTCONDOR)


def _check_numbers(settings: ClusterSettings) -> None:
    # Not Dask's own parsers: settings are read by commands that shall answer before Dask is imported.
    for name, pattern, example in (
        ("memory", _SIZE, "2 GB"),
        ("spill", _SIZE, "10 GB"),
        ("disk", _SIZE, "20 GB"),
        ("longest_task", _TIME, "30 minutes"),
    ):
        text = getattr(settings, name)
        if text is not None and not re.fullmatch(pattern, str(text)):
            raise ValueError(f"{name} is {text!r}: write something like {example!r}")
    for name in ("workers", "workers_per_job"):
        if getattr(settings, name) is not None and getattr(settings, name) < 1:
            raise ValueError(f"{name} is {getattr(settings, name)}: at least one is needed")
    if settings.reserve < 0 or (settings.workers is not None and settings.reserve >= settings.workers):
        raise ValueError(f"reserve is {settings.reserve}: it must leave a thread to others, and 0 keeps none free")
    if settings.headroom < 1:
        raise ValueError(f"headroom is {settings.headroom}: a job needs what its workers may use, so 1 or more")
    for name in ("dashboard_port", "scheduler_port"):
        if not 0 <= getattr(settings, name) < 65536:
            raise ValueError(f"{name} is {getattr(settings, name)}: a port is below 65536, and 0 takes any")


def _check_kind(settings: ClusterSettings) -> None:
    if settings.cpu_baseline not in BASELINES:
        raise ValueError(f"cpu_baseline is {settings.cpu_baseline!r}: say one of {', '.join(BASELINES)}")
    if (settings.kind is Kind.ADDRESS) != (settings.address is not None):
        raise ValueError(f"kind is {settings.kind}: an address is given with kind 'address', and only with it")
    if not settings.batch:
        return
    for name in ("workers", "memory"):
        if getattr(settings, name) is None:
            raise ValueError(f"kind is {settings.kind}: say {name} too, a batch system gives what it is asked for")
    if settings.kind is Kind.SLURM and not re.fullmatch(r"\d+(-\d+)?(:\d+){0,2}", settings.walltime):
        raise ValueError(f"walltime is {settings.walltime!r}: SLURM reads '08:00:00' or '2-00:00:00'")
    if settings.kind is Kind.HTCONDOR:
        if settings.queue is not None:
            raise ValueError("HTCondor has no queue: say in directives what your site chooses by")
        for line in settings.directives:
            if "=" not in line:
                raise ValueError(f"directive {line!r}: HTCondor reads 'name = value'")


def worker_environment(settings: ClusterSettings) -> dict[str, str]:
    """The variables that must stand before a worker's Python starts: allocator, threads, CPU level."""
    return {**ALLOCATOR, **ONE_THREAD, **level_environment(settings.cpu_baseline)}


def dask_config(settings: ClusterSettings) -> dict[str, Any]:
    """Every setting of Dask that is not left to chance, by its dotted name; none for a cluster that is joined."""
    from dask.utils import parse_bytes, parse_timedelta

    if settings.kind is Kind.ADDRESS:
        return {}
    config = {
        # The ledger alone decides what runs again: a lost worker is an attempt, not a reason for a silent second one.
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.worker-ttl": f"{2 * parse_timedelta(settings.longest_task):.0f}s",
        # More lets a few workers hoard the ready tasks.
        "distributed.scheduler.worker-saturation": 1.1,
        # A Tier-0 may wait for hours, for beam or for the batch system.
        "distributed.scheduler.idle-timeout": None,
        "distributed.scheduler.no-workers-timeout": None,
        # At its default rates Dask's watching of itself costs 4 % of a core in every worker and 5 % in the driver:
        # 100 stacks a second for the profile, and 50 looks at how late the event loop is.
        "distributed.worker.profile.interval": "100ms",
        "distributed.admin.tick.interval": "500ms",
        # What the dashboard remembers must not grow with the run.
        "distributed.scheduler.dashboard.tasks.task-stream-length": 10_000,
        # At its lifetime a worker would leave in the middle of a task, which then runs twice.
        "distributed.worker.lifetime.duration": None,
        "distributed.worker.memory.target": 0.6,
        "distributed.worker.memory.spill": 0.7,
        "distributed.worker.memory.pause": 0.8,
        "distributed.worker.memory.terminate": 0.95,
        "distributed.worker.memory.max-spill": parse_bytes(settings.spill),
        # Any other way of starting a worker hands it the memory and the settings of the process that starts it.
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.nanny.pre-spawn-environ": worker_environment(settings),
    }
    if settings.kind is Kind.LOCAL:
        # So long after a loss Dask looks whether the worker is back, and gives it up for good if at that moment it is
        # being started again after a second loss. On this host a nanny always brings it back.
        config["distributed.deploy.lost-worker-timeout"] = "1000 days"
    return config


def dashboard_address(settings: ClusterSettings) -> str:
    """Loopback and the port asked for, or 0 for any other if that is taken (Dask would warn each time)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, settings.dashboard_port))
        except OSError:
            return f"{LOOPBACK}:0"
    return f"{LOOPBACK}:{settings.dashboard_port}"
