"""Progress on the terminal: a bar for every run that is being worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.way import News, Stage


@contextmanager
def show(wanted: bool, unit_name: str) -> Iterator[Callable[[News], None]]:
    """Give a listener that draws what it is told; one that does nothing where progress is not wanted."""
    if not wanted:
        yield lambda news: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("run {task.fields[run]}"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, transient=True) as progress:
        yield _Bars(progress)


class _Bars:
    """Bars by run; a run that has ended leaves the screen, so that it never fills up."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._bars: dict[int, Any] = {}

    def __call__(self, news: News) -> None:
        if news.stage in (Stage.CERTIFIED, Stage.STOPPED):
            bar = self._bars.pop(news.run, None)
            if bar is not None:
                self._progress.remove_task(bar)
            return
        if news.run not in self._bars:
            self._bars[news.run] = self._progress.add_task("", run=news.run, text="", total=1)
        known = {"total": news.total, "completed": news.done} if news.total else {"total": 1, "completed": 0}
        self._progress.update(self._bars[news.run], description=news.stage.value, text=news.text[:60], **known)
