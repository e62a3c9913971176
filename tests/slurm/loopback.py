"""A SLURM of two nodes on this host's loopback, all in one temporary folder; nothing of it stays behind.

Needs root and Debian's packages `slurm-wlm` and `munge`; neither a service manager nor cgroups nor a resolvable host
name. By hand, from the root of the repository: `python -m tests.slurm.loopback sinfo`, or any other command in place of
`sinfo`, which finds this SLURM.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

NODES = ("tier0-a", "tier0-b")
DAEMONS = ("munged", "slurmctld", "slurmd")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPidFile={folder}/slurmctld.pid
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/spool/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
SelectType=select/cons_tres
# The least loaded node first, so that two jobs go to two nodes.
SelectTypeParameters=CR_CPU_Memory,CR_LLN
ReturnToService=2
KillWait=2
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=16000
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=16000
PartitionName=main Nodes={nodes[0]},{nodes[1]} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A running SLURM; its commands are told where by `SLURM_CONF`."""

    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.configuration)}

    def ask(self, *command: str) -> str:
        """What a SLURM command prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """The node of every job that runs, ends or waits; "" for one that waits."""
        rows = (line.split("|") for line in self.ask("squeue", "--noheader", "--format=%i|%N").splitlines())
        return {line[0]: line[1] for line in rows}

    def wait_until(self, true: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
        """Look every tenth of a second; RuntimeError with the ends of all logs when the time is over."""
        until = time.monotonic() + timeout
        while not true():
            if time.monotonic() > until:
                logs = "\n".join(
                    f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in self.folder.glob("*.log")
                )
                raise RuntimeError(f"SLURM on loopback: not {what} after {timeout:.0f} s\n{logs}")
            time.sleep(0.1)


def unavailable(user: int, which: Callable[[str], str | None]) -> str | None:
    """Why this host cannot bring up SLURM, or None."""
    if missing := [name for name in (*DAEMONS, "sbatch", "scancel", "squeue", "sinfo") if which(name) is None]:
        return f"no {', '.join(missing)}: as root, apt-get update && apt-get install slurm-wlm munge"
    if user != 0:
        return "SLURM on loopback is brought up by root only"
    return None


def reason() -> str | None:
    """Why this process cannot bring up SLURM here, or None."""
    return unavailable(os.geteuid(), lambda name: shutil.which(name, path=SEARCH))


@contextmanager
def running_slurm() -> Iterator[Slurm]:
    """SLURM with two idle nodes; at the end its jobs, daemons and files are gone."""
    with ExitStack() as stack:
        # Short: a socket's path has at most 107 characters.
        slurm = Slurm(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-"))))
        _configure(slurm)
        folder = slurm.folder
        munge = [
            f"--{name}={folder}/munge.{name.split('-')[0]}" for name in ("key-file", "pid-file", "seed-file", "socket")
        ]
        stack.enter_context(_daemon(slurm, "munged", "--force", "--foreground", *munge))
        slurm.wait_until((folder / "munge.socket").exists, "authenticated")
        stack.callback(_end_jobs, slurm)
        stack.enter_context(_daemon(slurm, "slurmctld", "-D", "-i"))
        for node in NODES:
            stack.enter_context(_daemon(slurm, "slurmd", "-D", "-N", node))
        slurm.wait_until(lambda: _idle(slurm) == set(NODES), "two idle nodes")
        try:
            yield slurm
        finally:
            _cancel(slurm)


def _configure(slurm: Slurm) -> None:
    for name in ("state", "spool"):
        (slurm.folder / name).mkdir()
    key = slurm.folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    text = CONFIGURATION.format(host=socket.gethostname(), folder=slurm.folder, ports=_free_ports(3), nodes=NODES)
    slurm.configuration.write_text(text, encoding="utf-8")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _daemon(slurm: Slurm, name: str, *arguments: str) -> Iterator[None]:
    """A daemon in the foreground, which also ends when this process is killed."""
    program = shutil.which(name, path=SEARCH) or name
    log = slurm.folder / f"{name}{arguments[-1] if name == 'slurmd' else ''}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", program, *arguments],
            env=slurm.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _idle(slurm: Slurm) -> set[str]:
    try:
        return set(slurm.ask("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").split())
    except subprocess.CalledProcessError:
        return set()  # the controller does not answer yet


def _cancel(slurm: Slurm) -> None:
    # Whatever is wrong, `_end_jobs` comes after.
    with suppress(subprocess.SubprocessError, RuntimeError):
        slurm.ask("scancel", *slurm.jobs())
        slurm.wait_until(lambda: not slurm.jobs(), "without jobs", timeout=10.0)


def _end_jobs(slurm: Slurm) -> None:
    """End what the daemons left behind: processes of this SLURM's jobs, and no others."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            variables = process.environ()
            if variables.get("SLURM_CONF") == str(slurm.configuration) and "SLURM_JOB_ID" in variables:
                process.kill()


def main(command: Sequence[str]) -> int:
    if why := reason():
        print(why, file=sys.stderr)
        return 1
    with running_slurm() as slurm:
        return subprocess.run(command or ["sinfo"], env=slurm.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
