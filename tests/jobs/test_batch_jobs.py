"""Job scripts say what was asked for, and a shell and Dask read from them what was meant."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dask.utils import parse_bytes

from jobs.batch_jobs import CLASS_SETTING, exports, job_count, reference_class
from jobs.cluster import describe, open_cluster
from jobs.cluster_settings import ClusterRefused, ClusterSettings, Kind, dask_config, worker_environment
from jobs.numerics import differences, from_text, level_environment, numerical_class


def batch(kind: Kind, folder: Path, **more: Any) -> ClusterSettings:
    return ClusterSettings(kind=kind, workers=5, memory="2 GB", shared_directory=str(folder), **more)


def condor_words(script: str) -> list[str]:
    """The arguments of a submit file, taken apart by HTCondor's own rules: "" is a quote, '' one inside '...'."""
    (line,) = re.findall(r'^Arguments = "(.*)"$', script, re.MULTILINE)
    words = re.findall(r"'((?:[^']|'')*)'|(\S+)", line.replace('""', '"'))
    return [(quoted or plain).replace("''", "'") for quoted, plain in words]


def told(shell: str, names: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """What a Python started after these shell lines finds in its environment, and in Dask's configuration."""
    ask = "import dask, distributed, json, os, sys; get = dask.config.get; "
    ask += "print(json.dumps([dict(os.environ), {name: get(name) for name in sys.argv[1:]}]))"
    command = f"{shell}\nexec {shlex.join([sys.executable, '-c', ask, *names])}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    environment, config = json.loads(done.stdout)
    return environment, config


def assert_understood(shell: str, settings: ClusterSettings) -> None:
    wanted = {name: value for name, value in dask_config(settings).items() if name.startswith("distributed.worker.")}
    environment, config = told(shell, [*wanted, CLASS_SETTING])
    numbers = from_text(config.pop(CLASS_SETTING))
    assert config == wanted
    assert environment == environment | worker_environment(settings)
    assert numbers["level"] == "x86-64-v2"
    assert differences(numbers, reference_class(settings)) == ()


@pytest.fixture(scope="module")
def baseline() -> str:
    try:
        level_environment("x86-64-v2")
    except ValueError as error:
        pytest.skip(str(error))
    return "x86-64-v2"


def test_slurm_script(tmp_path: Path) -> None:
    text = describe(
        batch(
            Kind.SLURM,
            tmp_path,
            workers_per_job=2,
            queue="main",
            account="physics",
            walltime="1-00:00:00",
            scratch="$TMPDIR/a b",
            directives=("--constraint=rome",),
            prologue=("module load x",),
            interface="ib0",
        )
    )
    assert text.startswith("3 jobs of 2 workers, each submitted with sbatch")
    for line in (
        "#SBATCH -p main",
        "#SBATCH -A physics",
        "#SBATCH -t 1-00:00:00",
        "#SBATCH --cpus-per-task=2",
        "#SBATCH --constraint=rome",
        "module load x",
        f"#SBATCH -o {tmp_path}/logs/tier0-worker-%J.out",
    ):
        assert line in text.splitlines()
    worker = text.splitlines()[-1]
    assert "tls://<scheduler> --name <name> --nthreads 1 " in worker
    assert "--nworkers 2 --nanny" in worker
    assert '--local-directory "$TMPDIR/a b"' in worker
    assert "--worker-class jobs.admission.CheckedWorker --no-dashboard --dashboard-address 127.0.0.1:0" in worker
    assert "--interface ib0" in worker
    assert f"--tls-key {tmp_path}/<certificates>/" in worker
    assert list(tmp_path.iterdir()) == []


def test_dask_stays_below_the_memory_of_the_job(tmp_path: Path) -> None:
    slurm = describe(batch(Kind.SLURM, tmp_path, workers_per_job=2, headroom=1.5))
    condor = describe(batch(Kind.HTCONDOR, tmp_path, workers_per_job=2, headroom=1.5))
    (limit,) = re.findall(r"--memory-limit (\S+)", slurm)
    assert parse_bytes(limit) == pytest.approx(2e9, rel=0.01)
    for script in (slurm, condor):
        (asked,) = re.findall(r"(?:--mem=|^RequestMemory = )(\d+)M?$", script, re.MULTILINE)
        assert int(asked) * 2**20 == pytest.approx(1.5 * 2 * 2e9, rel=0.001)


def test_slurm_script_is_understood(tmp_path: Path, baseline: str) -> None:
    settings = batch(Kind.SLURM, tmp_path, cpu_baseline=baseline)
    lines = [line for line in describe(settings).splitlines() if line.startswith("export ")]
    assert lines == exports(settings, reference_class(settings))
    assert_understood("\n".join(lines), settings)


def test_htcondor_script_is_understood(tmp_path: Path, baseline: str) -> None:
    settings = batch(
        Kind.HTCONDOR,
        tmp_path,
        cpu_baseline=baseline,
        account="physics",
        prologue=("export SAID='it''s \"so\"'",),
        directives=("+MaxRuntime = 3600", 'Requirements = OpSys == "LINUX"'),
    )
    text = describe(settings)
    assert text.startswith("5 jobs of one worker, each submitted with condor_submit")
    for line in (
        "accounting_group = physics",
        "+MaxRuntime = 3600",
        'Requirements = OpSys == "LINUX"',
        "RequestCpus = MY.DaskWorkerCores",
        "MY.DaskWorkerCores = 1",
        "Executable = /bin/sh",
    ):
        assert line in text.splitlines()
    option, command = condor_words(text)
    assert option == "-c"
    before, worker = command.rsplit("; ", 1)
    assert worker.startswith(f"{sys.executable} -m distributed.cli.dask_worker tls://<scheduler> ")
    assert_understood(before, settings)


def test_last_job_may_bring_more_workers(tmp_path: Path) -> None:
    assert [job_count(batch(Kind.SLURM, tmp_path, workers_per_job=n)) for n in (1, 2, 5, 6)] == [5, 3, 1, 1]


def test_without_tls_no_certificate_is_named(tmp_path: Path) -> None:
    text = describe(batch(Kind.SLURM, tmp_path, tls=False))
    assert "tcp://<scheduler>" in text
    assert "--tls-" not in text


def test_reference_class_is_that_of_a_fresh_process(tmp_path: Path) -> None:
    assert differences(reference_class(batch(Kind.SLURM, tmp_path)), numerical_class()) == ()


@pytest.mark.parametrize("name", ["shared_directory", "log_directory"])
def test_folder_with_a_blank_is_refused(name: str, tmp_path: Path) -> None:
    folders: dict[str, Any] = {"shared_directory": str(tmp_path), name: str(tmp_path / "a b")}
    with pytest.raises(ClusterRefused, match=f"{name} is .*without blanks"):
        describe(ClusterSettings(kind=Kind.SLURM, workers=1, memory="1 GB", **folders))


@pytest.mark.parametrize(("kind", "command"), [(Kind.SLURM, "sbatch"), (Kind.HTCONDOR, "condor_submit")])
def test_host_without_batch_system_is_refused(
    kind: Kind, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterRefused, match=f"no {command} on this host"), open_cluster(batch(kind, tmp_path)):
        pass


def test_level_that_cannot_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # NumPy refuses to be without what it was built with.
    monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", "SSE SSE2 X86_V2")
    with pytest.raises(ClusterRefused, match="no process starts under cpu_baseline 'native'"):
        reference_class(batch(Kind.SLURM, tmp_path))


OF_A_JOB = """
import signal, threading
from jobs.cluster import describe
from jobs.cluster_settings import ClusterRefused, ClusterSettings
settings = ClusterSettings(kind="slurm", workers=1, memory="1 GB", shared_directory="/tmp")
def aside():
    try:
        describe(settings)
    except ClusterRefused as problem:
        print(problem)
beside = threading.Thread(target=aside)
beside.start()
beside.join()
for given in (signal.default_int_handler, lambda *_: print("pressed")):
    signal.signal(signal.SIGINT, given)
    describe(settings)
    assert signal.getsignal(signal.SIGINT) is given
"""


def test_ctrl_c_stays_what_it_was_and_another_thread_is_told_what_to_do() -> None:
    done = subprocess.run([sys.executable, "-c", OF_A_JOB], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("import dask_jobqueue in the main thread first, not in this one: signal only works")
