"""How the events of a run are cut into chunks: once, on first sight of them."""

from __future__ import annotations

from sqlalchemy import Connection

from pipeline import catalog, journal
from pipeline.booking import GONE, UNREADABLE
from pipeline.express import Cut
from pipeline.ingest import is_sound_again
from pipeline.model import Stream
from pipeline.sections import SplittingSection
from pipeline.splitting import Limits, split
from pipeline.world import World


def cut(world: World, connection: Connection, run: int, stream: Stream, settings: SplittingSection) -> Cut | None:
    """How a stream of a run is cut, and how many chunks a branch joins: as on first sight of its events, whatever is
    set since. None when no file has any.

    The jobs in the ledger have that shape, and no result depends on it.
    """
    if not len(catalog.units(connection, run, stream)[0]):
        return None
    inputs = _inputs(world, connection, run, stream)
    key = f"fan in/{inputs}"
    layout = catalog.find_layout(connection, run, inputs)
    if layout is not None:
        fan_in = int(journal.get_document(connection, run, key))
        return Cut(stream, inputs, layout.name, layout.chunks, fan_in)
    event_bytes = catalog.event_bytes(connection, run)
    limits = Limits(settings.events, settings.bytes, settings.block_events, settings.units)
    chunks = split(catalog.pieces_of(connection, run, stream=stream), limits, event_bytes.__getitem__)
    journal.set_document(connection, run, key, settings.fan_in, world.now())
    layout = catalog.save_layout(connection, run, inputs, chunks)
    return Cut(stream, inputs, layout.name, layout.chunks, settings.fan_in)


def _inputs(world: World, connection: Connection, run: int, stream: Stream) -> str:
    """The name of what a stream of a run consists of: another one when a file that could not be read is back or was
    fetched again, so that what it holds is read after all."""
    key = "files that came back"
    came_back = int(journal.get_document(connection, run, key) or 0)
    back = [
        found
        for found in journal.list_setbacks(connection, run)
        if found.run == run
        and found.kind in (GONE, UNREADABLE)
        and is_sound_again(connection, found.place, None if found.kind == GONE else found.at)
    ]
    if back:
        came_back += 1
        journal.set_document(connection, run, key, came_back, world.now())
    for found in back:
        journal.resolve_setbacks(connection, found.kind, found.place, world.now(), run)
    inputs = catalog.inputs(connection, run, stream)
    return f"{inputs}-{came_back}" if came_back else inputs
