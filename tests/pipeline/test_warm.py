"""What workers are told as they start."""

from __future__ import annotations

import logging
import threading

import pytest
from distributed.comm.core import CommClosedError

from pipeline.warm import WarmWorkers

HEARTBEAT = "Failed to communicate with scheduler during heartbeat."


@pytest.mark.parametrize(
    ("message", "problem", "heard"),
    [
        (HEARTBEAT, CommClosedError("ConnectionPool closing."), False),
        (HEARTBEAT, OSError("no route to host"), True),
        ("Compute failed", CommClosedError("in a task"), True),
    ],
)
def test_a_heartbeat_that_the_end_cuts_off_is_not_heard_of(message: str, problem: Exception, heard: bool) -> None:
    logger, told = logging.getLogger("distributed.worker"), []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    before = list(logger.filters)
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
        for added in set(logger.filters) - set(before):
            logger.removeFilter(added)
    assert [record.getMessage() for record in told] == [message] * heard + ["something else"]
