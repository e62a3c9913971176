"""A worker that looks at itself before it joins: of another numerical class, it stays away and says why."""

from __future__ import annotations

import platform
from typing import Any

import dask
from distributed import Worker
from distributed.core import rpc

from jobs.batch_jobs import CLASS_SETTING
from jobs.cluster_settings import ClusterRefused
from jobs.inspection import REFUSED
from jobs.numerics import differences, from_text, numerical_class, remedy


class CheckedWorker(Worker):
    """A worker that starts only under the numerical class that the cluster's configuration names, if it names one.

    It has not registered when it looks, so no task is ever given to a worker that is refused.
    """

    async def start_unsafe(self) -> Any:
        """Join the scheduler, or raise ClusterRefused after telling it."""
        wanted = from_text(dask.config.get(CLASS_SETTING, ""))
        found = numerical_class()
        if wanted and (why := differences(found, wanted)):
            advice = remedy(found, wanted)
            said = {"host": platform.node(), "worker": str(self.name), "differs": list(why), "remedy": advice}
            # The worker's own connections open only once it has started.
            async with rpc(self.scheduler.address, connection_args=self.connection_args) as scheduler:  # type: ignore[no-untyped-call]
                await scheduler.log_event(topic=REFUSED, msg=said)
            raise ClusterRefused(f"worker {self.name} on {platform.node()} has {', '.join(why)}: {advice}")
        return await super().start_unsafe()  # type: ignore[no-untyped-call]
