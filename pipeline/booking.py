"""What is entered in the same transaction that commits a branch: its events, its files, what it set aside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from jobs.job import Job
from jobs.reduction import Node, NodeReceipt, Receipt
from pipeline import accounting, journal, restarts
from pipeline.model import Counts, Output, Rows, Step

GONE, UNREADABLE = "gone file", "unreadable file"
"""kinds of setback that end when the file is back, or was fetched again"""

_KINDS = {"gone": GONE, "closed": GONE, "unreadable": UNREADABLE}
_WORDS = {
    "gone": "it was not there when it was to be read",
    "closed": "it could not be opened when it was to be read; see who may read it",
    "unreadable": "it could not be used when it was to be read; fetch it again from its source",
}


def task_spec(run: int, step: Step, layout: str) -> str:
    """What a job over the chunks of a run keeps in the ledger."""
    return json.dumps({"run": run, "step": step.value, "layout": layout})


def book_branch(connection: Connection, job: Job, node: Node, receipt: NodeReceipt, now: float) -> None:
    """Enter a committed branch in the accounts. Raises Unbalanced when an event is missing or there twice."""
    spec = json.loads(job.spec)
    if node.level != 1 or "layout" not in spec:
        return
    task = accounting.Task(job.name, spec["run"], Step(spec["step"]), spec["layout"])
    first = node.index * job.fan_in
    leaves = {first + place: leaf for place, leaf in enumerate(receipt.leaves)}
    found = {index: _counts(leaf.note) for index, leaf in leaves.items()}
    written = [output for index, leaf in leaves.items() for output in _outputs(index, leaf)]
    if not accounting.booked(connection, job.name):
        # What was set aside when this was last made, of other input or under other settings, is history.
        journal.resolve_setbacks_under(connection, f"{job.group}, ", now, task.run)
    rows = {index: _rows(leaf.note) for index, leaf in leaves.items()}
    accounting.book(connection, task, found, written, rows)
    started = [leaf.note["start"] for leaf in receipt.leaves if "start" in leaf.note]
    restarts.book_start(connection, task.run, job.name, started, now)
    setbacks = [
        journal.Setback("events", f"{job.group}, chunk {index}", reason, task.run)
        for index, leaf in leaves.items()
        for reason in leaf.note["setbacks"]
    ]
    unread = {path: standing for leaf in leaves.values() for path, standing in leaf.note.get("unread", {}).items()}
    setbacks += [
        journal.Setback(_KINDS[standing], path, _WORDS[standing], task.run) for path, standing in sorted(unread.items())
    ]
    journal.add_setbacks(connection, setbacks, now)


def _counts(note: Mapping[str, Any]) -> dict[int, Counts]:
    return {unit: Counts(read, out, filtered, bad) for unit, read, out, filtered, bad in note["counts"]}


def _rows(note: Mapping[str, Any]) -> dict[str, dict[int, Rows]]:
    return {tier: {unit: Rows(*numbers) for unit, *numbers in rows} for tier, rows in note["rows"].items()}


def _outputs(leaf: int, receipt: Receipt) -> list[Output]:
    outputs = []
    for written in receipt.note["tiers"]:
        file = receipt.files[written["file"]]
        words = (file.path, file.size, file.checksum)
        outputs.append(Output(written["tier"], leaf, *words, written["events"]))
    return outputs
