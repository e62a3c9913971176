"""Conditions over HTTP, to be read only, for programs that know nothing of this one.

Served by tornado rather than by the standard library: a client that is slow or idle holds no thread there, keep-alive
is safe, and header, body and time limits are settings. Database and payloads are read by a few threads.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler

from calib.payload import PayloadDamaged, PayloadStore
from pipeline.database import open_database
from pipeline.migration import check_readable
from pipeline.serving_answers import Answer, Packed, Shelf, answer

logger = logging.getLogger(__name__)

NEVER_CHANGES = "public, max-age=31536000, immutable"
MAY_CHANGE = "no-cache"

_CONNECTION = {"idle_connection_timeout": 60.0, "body_timeout": 10.0, "max_header_size": 16384, "max_body_size": 1024}


class ServingRefused(Exception):
    """The server cannot start as asked; the message says why."""


@dataclass(frozen=True)
class Limits:
    """How much is done at once.

    `threads` read database and payloads; `requests` may be at work, more are told to come again; an answer must be
    taken within `sending_s` seconds; `kept_bytes` of payloads are kept.
    """

    threads: int = 8
    requests: int = 64
    sending_s: float = 120.0
    kept_bytes: int = 256 << 20


@dataclass
class Desk:
    """What all requests share."""

    shelf: Shelf
    limits: Limits = Limits()
    threads: ThreadPoolExecutor = field(init=False)
    busy: int = 0

    def __post_init__(self) -> None:
        self.threads = ThreadPoolExecutor(self.limits.threads, thread_name_prefix="tier0-conditions")

    def close(self) -> None:
        """Let threads and database go."""
        self.threads.shutdown(cancel_futures=True)
        self.shelf.database.close()


@contextmanager
def desk(where: str | Path, payloads: Path, limits: Limits = Limits()) -> Iterator[Desk]:
    """The conditions of a database and a folder of payloads, opened to be read. Raises DatabaseRefused."""
    database = open_database(where, read_only=True)
    with database.read() as connection:
        check_readable(database, connection)
    opened = Desk(Shelf(database, Packed(PayloadStore(payloads), limits.kept_bytes)), limits)
    try:
        yield opened
    finally:
        opened.close()


def application(desk: Desk) -> Application:
    """All there is to ask, at one desk."""
    return Application([("(.*)", _Question, {"desk": desk})], compress_response=True, log_function=_log)


async def serve(desk: Desk, host: str, port: int, ready: Callable[[str], None], ended: asyncio.Event) -> None:
    """Answer until `ended` is set; `ready` is told the address. Port 0 is any that is free. Raises ServingRefused."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as problem:
        words = f"cannot listen on {host}, port {port}: {problem}"
        raise ServingRefused(f"{words}; give another --host or --port") from None
    listening.setblocking(False)
    server = HTTPServer(application(desk), **_CONNECTION)
    server.add_socket(listening)
    try:
        name, number = listening.getsockname()[:2]
        ready(f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}")
        await ended.wait()
    finally:
        server.stop()
        await server.close_all_connections()


async def serve_until_signalled(desk: Desk, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer until the process is told to end (SIGINT, SIGTERM)."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await serve(desk, host, port, ready, ended)


class _Question(RequestHandler):
    """One request: GET or HEAD; JSON comes back, or a payload, or JSON with an error in a sentence."""

    SUPPORTED_METHODS = ("GET", "HEAD")

    def initialize(self, desk: Desk) -> None:
        self._desk = desk
        self._found: Answer | None = None

    def set_default_headers(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", MAY_CHANGE)
        self.clear_header("Server")

    async def get(self, path: str) -> None:
        desk = self._desk
        if desk.busy >= desk.limits.requests:
            raise HTTPError(503, "all desks are taken; come again")
        desk.busy += 1
        try:
            # The path as it came: a name may hold an escaped slash.
            work = partial(answer, desk.shelf, self.request.path, self._query())
            await self._send(await asyncio.get_running_loop().run_in_executor(desk.threads, work))
        finally:
            desk.busy -= 1

    async def head(self, path: str) -> None:
        await self.get(path)

    def _query(self) -> dict[str, str]:
        given = {name: self.get_query_arguments(name) for name in self.request.query_arguments}
        if twice := sorted(name for name, values in given.items() if len(values) > 1):
            raise HTTPError(400, f"`{twice[0]}` is given more than once")
        return {name: values[0] for name, values in given.items()}

    async def _send(self, found: Answer) -> None:
        self._found = found
        self.set_header("Cache-Control", NEVER_CHANGES if found.never_changes else MAY_CHANGE)
        if found.is_payload:
            self.set_header("Content-Type", "application/x-npz")
        try:
            await asyncio.wait_for(self.finish(found.content), self._desk.limits.sending_s)
        except TimeoutError:
            logger.warning("%s does not take its answer: given up", self.request.remote_ip)
            self.request.connection.close()  # type: ignore[union-attr]
        except StreamClosedError:
            logger.debug("%s has gone before its answer", self.request.remote_ip)

    def compute_etag(self) -> str | None:
        return self._found.tag if self._found else None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        problem = kwargs.get("exc_info", (None, None, None))[1]
        status, sentence = in_words(problem, status_code)
        self.set_status(status)
        if status == 405:
            self.set_header("Allow", ", ".join(self.SUPPORTED_METHODS))
        if status == 503:
            self.set_header("Retry-After", "1")
        self.finish(json.dumps({"error": sentence}) + "\n")

    def log_exception(self, kind: Any, problem: Any, trace: Any) -> None:
        if in_words(problem, 500)[0] >= 500 and not isinstance(problem, HTTPError):
            logger.error("%s %s", self.request.method, self.request.uri, exc_info=(kind, problem, trace))


def in_words(problem: BaseException | None, status: int) -> tuple[int, str]:
    """The status and sentence for what went wrong; `status` is that of the server's own refusals.

    >>> in_words(LookupError("there is no tag 'x'"), 500)
    (404, "there is no tag 'x'")
    """
    if isinstance(problem, HTTPError):
        words = {405: "only GET and HEAD are answered: nothing can be changed here"}
        return problem.status_code, words.get(problem.status_code, problem.log_message or problem.reason or "refused")
    if isinstance(problem, PayloadDamaged):
        return 500, str(problem)
    if isinstance(problem, DBAPIError):
        return 503, "the database does not answer; come again"
    # A KeyError or IndexError out of the depths is a fault of the program.
    if isinstance(problem, LookupError) and not isinstance(problem, KeyError | IndexError):
        return 404, str(problem)
    if isinstance(problem, ValueError):
        return 400, str(problem)
    return max(status, 400), "it cannot be answered, by a fault of this program; its log says more"


def _log(handler: RequestHandler) -> None:
    status = handler.get_status()
    level = logging.DEBUG if status < 400 else logging.INFO
    words = (handler.request.remote_ip, handler.request.method, handler.request.uri, status)
    logger.log(level, "%s %s %s: %d, %.1f ms", *words, 1e3 * handler.request.request_time())
