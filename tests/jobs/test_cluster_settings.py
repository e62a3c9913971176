"""Settings of a cluster: what cannot be is refused in words, and what follows is what Dask really reads."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from typing import Any

import dask
import distributed  # noqa: F401  its defaults are part of Dask's configuration
import pytest
from dask.utils import parse_bytes, parse_timedelta

from jobs.cluster_settings import ClusterSettings, Kind, dashboard_address, dask_config, worker_environment

BATCH: dict[str, Any] = {"workers": 2, "memory": "2 GB"}


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"kind": "pbs"}, "say one of local, slurm, htcondor, address"),
        ({"memory": "2 gigs"}, "memory is '2 gigs': write something like '2 GB'"),
        ({"memory": "0 GB"}, "memory is '0 GB'"),
        ({"spill": "lots"}, "spill is 'lots': write something like '10 GB'"),
        ({"disk": "1 box"}, "disk is '1 box'"),
        ({"longest_task": "long"}, "longest_task is 'long': write something like '30 minutes'"),
        ({"workers": 0}, "workers is 0: at least one"),
        ({"workers_per_job": 0}, "workers_per_job is 0: at least one"),
        ({"headroom": 0.9}, "so 1 or more"),
        ({"reserve": -1}, "0 keeps none free"),
        ({"workers": 4, "reserve": 4}, "it must leave a thread to others"),
        ({"dashboard_port": 70000}, "dashboard_port is 70000: a port is below 65536"),
        ({"scheduler_port": -1}, "scheduler_port is -1"),
        ({"cpu_baseline": "x86-64-v9"}, "say one of native, x86-64-v2, x86-64-v3"),
        ({"address": "tcp://host:8786"}, "an address is given with kind 'address'"),
        ({"kind": "address"}, "an address is given with kind 'address'"),
        ({"kind": "slurm", "memory": "2 GB"}, "say workers too"),
        ({"kind": "slurm", "workers": 2}, "say memory too"),
        ({"kind": "slurm", **BATCH, "walltime": "8 hours"}, "SLURM reads '08:00:00'"),
        ({"kind": "htcondor", **BATCH, "queue": "long"}, "HTCondor has no queue"),
        ({"kind": "htcondor", **BATCH, "directives": ["--constraint"]}, "HTCondor reads 'name = value'"),
    ],
    ids=str,
)
def test_wrong_setting_is_refused_in_words(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=re.escape(word)):
        ClusterSettings(**wrong)


@pytest.mark.parametrize("text", ["0.5 GB", "500 MB", "2GiB", "1 TB", "4096 kB"])
def test_sizes_are_those_that_dask_reads(text: str) -> None:
    assert parse_bytes(ClusterSettings(memory=text).memory) > 0


@pytest.mark.parametrize("text", ["30 minutes", "1 hour", "90 s", "1.5 h", "2 days", "10m"])
def test_times_are_those_that_dask_reads(text: str) -> None:
    assert parse_timedelta(ClusterSettings(longest_task=text).longest_task) > 0


def test_lists_and_words_of_a_settings_file_are_taken() -> None:
    settings = ClusterSettings(kind="slurm", **BATCH, directives=["--constraint=rome"])  # type: ignore[arg-type]
    assert settings.kind is Kind.SLURM
    assert settings.batch
    assert settings.directives == ("--constraint=rome",)
    assert hash(settings) == hash(ClusterSettings(kind=Kind.SLURM, **BATCH, directives=("--constraint=rome",)))


def test_settings_are_made_without_dask() -> None:
    ask = "from jobs.cluster import ClusterSettings; ClusterSettings(); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert not {"dask", "distributed", "dask_jobqueue", "numpy"} & set(done.stdout.split())


def test_what_the_promises_rest_on_is_set() -> None:
    settings = ClusterSettings(longest_task="1 hour", spill="3 GB")
    config = dask_config(settings)
    assert config["distributed.scheduler.allowed-failures"] == 0
    assert parse_timedelta(config["distributed.scheduler.worker-ttl"]) == 7200
    assert config["distributed.worker.memory.max-spill"] == 3_000_000_000
    assert config["distributed.nanny.pre-spawn-environ"] == worker_environment(settings)
    assert worker_environment(settings) == {
        "MALLOC_MMAP_THRESHOLD_": "33554432",
        "MALLOC_TRIM_THRESHOLD_": "268435456",
        "MALLOC_ARENA_MAX": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


@pytest.mark.parametrize("name", dask_config(ClusterSettings()))
def test_dask_knows_every_setting(name: str) -> None:
    """A setting that Dask renames would be set in vain: this fails then."""
    dask.config.get(name)


def test_a_cluster_that_is_joined_is_left_as_it_is() -> None:
    assert dask_config(ClusterSettings(kind=Kind.ADDRESS, address="tcp://host:8786")) == {}


def test_dashboard_gives_way_without_a_word() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert dashboard_address(ClusterSettings(dashboard_port=port)) == "127.0.0.1:0"
    assert dashboard_address(ClusterSettings(dashboard_port=port)) == f"127.0.0.1:{port}"
