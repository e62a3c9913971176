"""Drivers as processes of their own, that can be killed."""

import contextlib
import multiprocessing
import os
import signal
import sys

from pipeline.tier0 import Tier0

KILLED = -signal.SIGKILL

# The server they are forked from has imported what they need, once.
DRIVERS = multiprocessing.get_context("forkserver")
DRIVERS.set_forkserver_preload(["pipeline.tier0", "distributed", "awkward", "uproot", "zarr"])


def drive(plain, files, probe):
    """One life of a driver; its exit code is that of the summary."""
    with Tier0(plain, **({"probe": probe} if probe else {})) as tier0:
        code = tier0.run(*files, progress=False).exit_code
    sys.exit(code)


class Driver:
    """A driver at work."""

    def __init__(self, plain, files, probe=None):
        self._process = DRIVERS.Process(target=drive, args=(plain, files, probe))
        self._process.start()

    @property
    def pid(self):
        return self._process.pid

    def lives(self):
        return self._process.is_alive()

    def kill(self):
        """SIGKILL; nothing if it has come to its end by itself."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self, timeout=120.0):
        """Its exit code, or minus the signal that killed it."""
        self._process.join(timeout)
        if self._process.is_alive():
            self._process.kill()
            raise TimeoutError("the driver does not come to an end")
        return self._process.exitcode
