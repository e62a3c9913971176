"""The jobs that carry workers on SLURM and HTCondor, made through dask-jobqueue."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cluster_settings import (
    LOOPBACK,
    ClusterRefused,
    ClusterSettings,
    Kind,
    dashboard_address,
    dask_config,
    worker_environment,
)
from jobs.numerics import as_text

if TYPE_CHECKING:
    from dask_jobqueue.core import JobQueueCluster
    from distributed.security import Security

# Where a worker reads the class it must be of; see `jobs.admission`.
CLASS_SETTING = "tier0.numerical-class"

_COMMANDS = {Kind.SLURM: "sbatch", Kind.HTCONDOR: "condor_submit"}


@contextmanager
def batch_cluster(settings: ClusterSettings) -> Iterator[JobQueueCluster]:
    """A scheduler in this process, and its jobs handed to the batch system, which are cancelled at the end.

    ClusterRefused if the batch system does not take a job.
    """
    cluster_class, _ = _classes(settings.kind)
    command = _COMMANDS[settings.kind]
    if shutil.which(command) is None:
        raise ClusterRefused(f"no {command} on this host: start from one that submits to {settings.kind}, or set kind")
    options: dict[str, Any] = {"dashboard_address": dashboard_address(settings), "port": settings.scheduler_port}
    if settings.scheduler_host is not None:
        options["host"] = settings.scheduler_host
    with (
        _certificates(settings) as security,
        cluster_class(
            security=security, scheduler_options=options, **job_options(settings, reference_class(settings))
        ) as cluster,
    ):
        try:
            _submit(cluster, settings)
            yield cluster
        finally:
            _forget_untaken(cluster)


def _classes(kind: Kind) -> tuple[Any, Any]:
    """dask-jobqueue's cluster and job of a batch system.

    As it is imported it has Ctrl-C end the process with exit code 0, in a notebook the kernel; what was in force stays.
    """
    in_force = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue import htcondor, slurm
    except ValueError as problem:  # signals are the main thread's
        raise ClusterRefused(f"import dask_jobqueue in the main thread first, not in this one: {problem}") from problem
    if in_force is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, in_force)
    if kind is Kind.SLURM:
        return slurm.SLURMCluster, slurm.SLURMJob
    return htcondor.HTCondorCluster, htcondor.HTCondorJob


def _submit(cluster: Any, settings: ClusterSettings) -> None:
    from jobs.starting import start_workers

    try:
        # `scale` submits in the background and would only log that a job was not taken; so the first goes by hand.
        start_workers(cluster)
    except (RuntimeError, ValueError, OSError) as error:
        raise ClusterRefused(f"{settings.kind} does not take this job: {error}\n{cluster.job_script()}") from error
    cluster.scale(jobs=job_count(settings))


def _forget_untaken(cluster: Any) -> None:
    """Drop the jobs that the batch system never took: Dask would fail an assertion as it closes them."""
    for job in list(cluster._created):
        if job.job_id is None:
            cluster._created.discard(job)


@contextmanager
def _certificates(settings: ClusterSettings) -> Iterator[Security | None]:
    """Keys for this cluster alone, in files that its workers can read and nobody else; gone at the end."""
    if not settings.tls:
        yield None
        return
    from distributed.security import Security

    made = Security.temporary()  # type: ignore[no-untyped-call]
    shared = _shared_directory(settings)
    shared.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tier0-tls-", dir=shared) as folder:
        paths = _paths_of_certificates(Path(folder))
        for name, path in paths.items():
            path.touch(mode=0o600)
            path.write_text(getattr(made, name), encoding="ascii")
        yield _security(paths)


def _paths_of_certificates(folder: Path) -> dict[str, Path]:
    roles = [f"tls_{role}_{part}" for role in ("scheduler", "worker", "client") for part in ("cert", "key")]
    return {name: folder / f"{name}.pem" for name in ("tls_ca_file", *roles)}


def _security(paths: Mapping[str, Path]) -> Security:
    from distributed.security import Security

    return Security(require_encryption=True, **{name: str(path) for name, path in paths.items()})  # type: ignore[no-untyped-call]


def describe(settings: ClusterSettings) -> str:
    """The script of one job, with what is known only when it is submitted in angle brackets."""
    _, job_class = _classes(settings.kind)
    options = job_options(settings, reference_class(settings))
    certificates = _paths_of_certificates(_shared_directory(settings) / "<certificates>")
    options["security"] = _security(certificates) if settings.tls else None
    logs = options["log_directory"]
    with tempfile.TemporaryDirectory() as folder:
        # A job makes its log folder as it is described.
        options["log_directory"] = folder
        address = f"{'tls' if settings.tls else 'tcp'}://<scheduler>"
        job = job_class(address, name="<name>", **options)
        script: str = job.job_script().replace(folder, logs)
    each = "one worker" if settings.workers_per_job == 1 else f"{settings.workers_per_job} workers"
    return f"{job_count(settings)} jobs of {each}, each submitted with {_COMMANDS[settings.kind]} as\n\n{script}"


def job_count(settings: ClusterSettings) -> int:
    """Jobs for the workers asked for; the last may bring more than are needed."""
    return math.ceil((settings.workers or 1) / settings.workers_per_job)


def job_options(settings: ClusterSettings, reference: Mapping[str, str]) -> dict[str, Any]:
    """What dask-jobqueue is told about a job."""
    from dask.utils import parse_bytes

    of_workers = parse_bytes(settings.memory or "1 GB") * settings.workers_per_job
    of_job = math.ceil(of_workers * settings.headroom / 2**20)
    options: dict[str, Any] = {
        "cores": settings.workers_per_job,
        "processes": settings.workers_per_job,
        "memory": f"{of_workers} B",
        "interface": settings.interface,
        # In double quotes, so that it may be "$TMPDIR" of the worker's host.
        "local_directory": settings.scratch and f'"{settings.scratch}"',
        "log_directory": _log_directory(settings),
        "job_name": "tier0-worker",
        "job_script_prologue": [*settings.prologue, *exports(settings, reference)],
        "worker_extra_args": shlex.split(
            f"--worker-class jobs.admission.CheckedWorker --no-dashboard --dashboard-address {LOOPBACK}:0"
        ),
        "python": shlex.quote(sys.executable),
    }
    if settings.kind is Kind.SLURM:
        own = {"queue": settings.queue, "account": settings.account, "walltime": settings.walltime}
        return options | own | {"job_mem": f"{of_job}M", "job_extra_directives": list(settings.directives)}
    return options | {"disk": settings.disk, "job_extra_directives": _htcondor_directives(settings, of_job)}


def _htcondor_directives(settings: ClusterSettings, megabytes: int) -> dict[str, str]:
    lines = {"RequestMemory": str(megabytes)}
    if settings.account is not None:
        lines["accounting_group"] = settings.account
    for line in settings.directives:
        name, _, value = line.partition("=")
        lines[name.strip()] = value.strip()
    return lines


def exports(settings: ClusterSettings, reference: Mapping[str, str]) -> list[str]:
    """Shell lines that give a batch worker its environment, and Dask's settings through Dask's own variables.

    A job does not see the configuration of the process that submits it, only the files of its host and these.
    """
    variables = dict(worker_environment(settings))
    of_worker = {name: value for name, value in dask_config(settings).items() if name.startswith("distributed.worker.")}
    for name, value in {**of_worker, CLASS_SETTING: as_text(reference)}.items():
        variables["DASK_" + name.replace(".", "__").replace("-", "_").upper()] = str(value)
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def reference_class(settings: ClusterSettings) -> dict[str, str]:
    """The numerical class of a process of this host under the workers' environment, which every worker must have."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.numerics"],
        env={**os.environ, **worker_environment(settings), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterRefused(
            f"no process starts under cpu_baseline {settings.cpu_baseline!r} on this host, try another: {done.stderr}"
        )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _shared_directory(settings: ClusterSettings) -> Path:
    return _without_blanks("shared_directory", Path(settings.shared_directory or Path.cwd()).absolute())


def _log_directory(settings: ClusterSettings) -> str:
    folder = Path(settings.log_directory).absolute() if settings.log_directory else _shared_directory(settings) / "logs"
    return str(_without_blanks("log_directory", folder))


def _without_blanks(name: str, folder: Path) -> Path:
    # These reach the job script as they are.
    if re.search(r"\s", str(folder)):
        raise ClusterRefused(f"{name} is {str(folder)!r}: batch jobs need one without blanks, set it to another folder")
    return folder
