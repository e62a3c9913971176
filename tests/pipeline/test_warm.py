"""What workers are told as they start."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

import pytest
from distributed import Client
from distributed.comm.core import CommClosedError

from pipeline.warm import WarmWorkers

HEARTBEAT = "Failed to communicate with scheduler during heartbeat."
OF_WORKER, OF_TASKS = "distributed.worker", "distributed.worker.state_machine"
CUT_OFF = "Async instruction for <Task cancelled name='x'> ended with CancelledError"
BROKEN = "Unhandled exception in async instruction for <Task name='x'>"


@pytest.mark.parametrize(
    ("name", "message", "problem", "heard"),
    [
        (OF_WORKER, HEARTBEAT, CommClosedError("ConnectionPool closing."), False),
        (OF_WORKER, HEARTBEAT, OSError("no route to host"), True),
        (OF_WORKER, "Compute failed", CommClosedError("in a task"), True),
        (OF_TASKS, CUT_OFF, OSError(), False),
        (OF_TASKS, BROKEN, OSError(), True),
    ],
)
def test_what_the_end_cuts_off_is_not_heard_of(name: str, message: str, problem: Exception, heard: bool) -> None:
    logger, told = logging.getLogger(name), []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    before = {each: list(logging.getLogger(each).filters) for each in (OF_WORKER, OF_TASKS)}
    # Beside the main thread it leaves signals alone.
    worker = threading.Thread(target=WarmWorkers().setup, args=(None,))
    worker.start()
    worker.join()
    logger.addHandler(handler)
    try:
        try:
            raise problem
        except OSError:
            logger.exception(message)
        logger.error("something else")
    finally:
        logger.removeHandler(handler)
        for each, filters in before.items():
            logging.getLogger(each).filters[:] = filters
    assert [record.getMessage() for record in told] == [message] * heard + ["something else"]


def test_a_worker_that_is_warm_hears_of_ctrl_c_and_lives_on(crew: Client) -> None:
    def pressed(after: float = 0.5) -> tuple[bool, int]:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(after)
        blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())
        return blocked, logging.getLogger("distributed").level

    before = logging.getLogger("distributed").level
    crew.register_plugin(WarmWorkers())
    try:
        found = crew.run(pressed)
    finally:
        crew.unregister_worker_plugin(WarmWorkers.name)
        crew.restart()  # and none is left as quiet as that
    assert len(found) == 2 and set(found.values()) == {(False, logging.CRITICAL)} != {(False, before)}
