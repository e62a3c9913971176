"""Open a cluster from settings: processes of this host, SLURM, HTCondor, or a scheduler that already runs.

All that the promises of this package rest on is set by `jobs.cluster_settings`, before any worker starts;
`jobs.inspection` asks a cluster what is really in force.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from jobs import batch_jobs
from jobs.cluster_settings import (
    LOOPBACK,
    ClusterRefused,
    ClusterSettings,
    Kind,
    dashboard_address,
    dask_config,
    worker_environment,
)

if TYPE_CHECKING:
    from distributed import Client
    from distributed.deploy.spec import SpecCluster

__all__ = ["ClusterRefused", "ClusterSettings", "Kind", "dask_config", "describe", "open_cluster"]


@contextmanager
def open_cluster(settings: ClusterSettings) -> Iterator[Client]:
    """A client of the cluster that the settings describe, closed at the end with all that was started for it.

    Batch workers join when the batch system starts their jobs; nothing here waits for them. The client is not made
    Dask's default. ClusterRefused if the scheduler cannot be reached or the batch system does not take the jobs.
    """
    from jobs.relief import MemoryRelief

    with _client(settings) as client:
        with suppress(OSError):  # a worker that dies as it is told; those that come are told as they start
            client.register_plugin(MemoryRelief())
        yield client


@contextmanager
def _client(settings: ClusterSettings) -> Iterator[Client]:
    import dask
    from distributed import Client

    if settings.kind is Kind.ADDRESS:
        with _join(settings) as client:
            yield client
        return
    with dask.config.set(dask_config(settings)):
        if settings.batch:
            with (
                batch_jobs.batch_cluster(settings) as cluster,
                Client(cluster, set_as_default=False) as client,  # type: ignore[no-untyped-call]
            ):
                yield client
            return
        # To Dask, variables that are already set go before its configuration, and it leaves those of the last
        # cluster behind: one with other settings in the same session would pass its own on to this one.
        with (
            _environment(worker_environment(settings)),
            _local_cluster(settings) as local,
            Client(local, set_as_default=False) as client,  # type: ignore[no-untyped-call]
        ):
            yield client


def describe(settings: ClusterSettings) -> str:
    """What `open_cluster` would start: the job script as it would be submitted, or a few lines. Starts nothing."""
    if settings.kind is Kind.ADDRESS:
        return f"join the scheduler at {settings.address}"
    if settings.batch:
        return batch_jobs.describe(settings)
    environment = "\n".join(f"{name}={value}" for name, value in worker_environment(settings).items())
    return (
        f"{_local_workers(settings)} worker processes of one thread on this host, each with "
        f"{settings.memory or 'an equal share of its memory'}, "
        f"and at most {settings.spill} spilled to {settings.scratch or 'the temporary folder'}\n{environment}\n"
    )


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process, put back at the end as they were."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _local_workers(settings: ClusterSettings) -> int:
    from dask.system import CPU_COUNT

    return settings.workers or int(CPU_COUNT)


@contextmanager
def _local_cluster(settings: ClusterSettings) -> Iterator[SpecCluster]:
    from jobs.starting import start_workers

    cluster = _local(settings)
    try:
        start_workers(cluster, _local_workers(settings))
        yield cluster
    finally:
        with ends_may_be_slow():
            cluster.close()


@contextmanager
def ends_may_be_slow() -> Iterator[None]:
    """Within the block nothing is said of workers that are killed because they do not end in time.

    For the end of a cluster: nothing of theirs is wanted then, and on a busy host they take longer than Dask gives
    them. All else that its nannies have to say is said, and before the block this too.
    """
    logger = logging.getLogger("distributed.nanny")
    logger.addFilter(_not_slow_to_end)
    try:
        yield
    finally:
        logger.removeFilter(_not_slow_to_end)


def _not_slow_to_end(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Worker process still alive after")


def _local(settings: ClusterSettings) -> SpecCluster:
    from distributed import LocalCluster
    from distributed.security import Security

    from jobs.starting import ShelteredNanny

    return LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=0,
        worker_class=ShelteredNanny,
        threads_per_worker=1,
        host=LOOPBACK,
        memory_limit=settings.memory or "auto",
        local_directory=settings.scratch,
        dashboard_address=dashboard_address(settings),
        security=Security.temporary() if settings.tls else None,  # type: ignore[no-untyped-call]
    )


@contextmanager
def _join(settings: ClusterSettings) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(settings.address, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TypeError, ValueError) as error:
        raise ClusterRefused(
            f"no scheduler answers at {settings.address} ({error}): start it; for tls:// give Dask the certificates "
            "(distributed.comm.tls.ca-file, .client.cert and .client.key)"
        ) from error
    with client:
        yield client
