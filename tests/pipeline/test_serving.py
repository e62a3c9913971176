"""The conditions over HTTP, read with nothing but urllib and numpy."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from calib.conditions import ConditionsDB
from calib.iov import Clock, RunLumi
from calib.payload import Payload, PayloadStore
from calib.tags import Stamp, Sync
from pipeline.database import Database, DatabaseRefused, open_database
from pipeline.migration import bring_up_to_date, versions
from pipeline.payload_files import npz_of, read_payload
from pipeline.serving import MAY_CHANGE, NEVER_CHANGES, Desk, Limits, ServingRefused, desk, in_words, serve
from pipeline.serving_answers import PATHS, Packed
from pipeline.toml_text import toml_text
from tests.pipeline.tiny import settings

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]
ODD = "odd / tag?é"


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


def ask(url: str, method: str = "GET", **headers: str) -> Reply:
    request = urllib.request.Request(
        url, method=method, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return Reply(reply.status, reply.headers, reply.read())
    except urllib.error.HTTPError as refusal:
        with refusal:
            return Reply(refusal.code, refusal.headers, refusal.read())


@contextmanager
def served(desk: Desk) -> Iterator[str]:
    """The address at which a desk answers, from a thread of its own."""
    told: list[str] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    ready = threading.Event()

    async def work() -> None:
        ended = asyncio.Event()
        loops.append((asyncio.get_running_loop(), ended))
        await serve(desk, "127.0.0.1", 0, lambda address: (told.append(address), ready.set()), ended)

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield told[0]
    finally:
        loop, ended = loops[0]
        loop.call_soon_threadsafe(ended.set)
        thread.join()


def pedestal(mean: float) -> Payload:
    return Payload("pedestal", {"mean": np.full((3, 2), mean), "channels": np.arange(3)}, {"mean": "ADC"})


def beamspot(x: float) -> Payload:
    return Payload("beamspot", {"x": np.array(x)}, {"x": "cm"})


@dataclass
class Writer:
    """Who fills the conditions that are served."""

    database: Database
    store: PayloadStore

    @contextmanager
    def begin(self) -> Iterator[ConditionsDB]:
        with self.database.begin() as connection:
            yield ConditionsDB(connection, self.store)

    def append(self, tag: str, since: Any, payload: Payload) -> int | None:
        with self.begin() as db:
            return db.append(tag, since, payload, Stamp("eve", NOW, "test")).sequence


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writer]:
    """Three tags in two global tags; run 7 is settled at the fourth entry."""
    folder = tmp_path_factory.mktemp("served")
    database = open_database(folder / "tier0.db")
    bring_up_to_date(database, 1.0)
    found = Writer(database, PayloadStore(folder / "conditions"))
    with found.begin() as db:
        db.create_tag("ped", "pedestal", Clock.RUN, Sync.PROMPT)
        db.create_tag("spot", "beamspot", Clock.LUMI, Sync.PROMPT)
        db.create_tag(ODD, "voltage", Clock.TIME, Sync.OFFLINE)
        db.define_global_tag("prompt", {"pedestal": "ped", "beamspot": "spot"})
        db.define_global_tag("all", {"pedestal": "ped", "beamspot": "spot", "voltage": ODD})
    for since, mean in ((0, 1.0), (7, 2.0)):
        found.append("ped", RunLumi(since), pedestal(mean))
    for lumi, x in ((1, 0.1), (5, 0.2)):
        found.append("spot", RunLumi(7, lumi), beamspot(x))
    found.append(ODD, 1_000, Payload("voltage", {"v": np.array(3.3)}, {"v": "V"}))
    with found.begin() as db:
        db.settle(7, db.snapshot("prompt", 4), NOW)
    yield found
    database.close()


@pytest.fixture(scope="module")
def address(writer: Writer) -> Iterator[str]:
    with desk(writer.database.name, writer.store.root) as opened, served(opened) as found:
        yield found


@pytest.fixture
def get(address: str) -> Callable[..., Reply]:
    return lambda path, *method, **headers: ask(address + path, *method, **headers)


def test_tags_and_global_tags_are_listed(get: Any) -> None:
    found = {one["tag"]: one for one in get("/tags").json["tags"]}
    assert found[ODD] == {"tag": ODD, "kind": "voltage", "clock": "time", "serves": "offline"}
    assert found["ped"] == {"tag": "ped", "kind": "pedestal", "clock": "run", "serves": "prompt"}
    assert found["spot"] == {"tag": "spot", "kind": "beamspot", "clock": "lumi", "serves": "prompt"}
    assert get("/global-tags").json["global_tags"]["prompt"] == {"pedestal": "ped", "beamspot": "spot"}


def test_lists_say_as_of_which_entry_they_are(get: Any) -> None:
    now = int(get("/snapshots/prompt").json["snapshot"].removeprefix("prompt@"))
    for path in ("/tags", "/global-tags", "/snapshots", "/tags/ped/intervals"):
        reply = get(path)
        assert reply.json["as_of"] == now and reply.headers["Cache-Control"] == MAY_CHANGE


def test_snapshots_are_those_that_runs_were_settled_under(get: Any) -> None:
    assert get("/snapshots").json["snapshots"] == [{"snapshot": "prompt@4", "runs": [7]}]
    assert get("/snapshots?global_tag=all").json["snapshots"] == []
    assert get("/snapshots?global_tag=promt").status == 404


def test_a_snapshot_is_taken_now_or_then(get: Any) -> None:
    now = get("/snapshots/prompt")
    assert now.json["snapshot"] == "prompt@5" and now.headers["Cache-Control"] == MAY_CHANGE
    then = get("/snapshots/prompt?as_of=2")
    assert then.json == {"snapshot": "prompt@2", "tags": {"beamspot": "spot", "pedestal": "ped"}}
    assert then.headers["Cache-Control"] == NEVER_CHANGES
    early = get("/snapshots/prompt?as_of=" + quote("2026-05-01T11:59+00:00"))
    assert early.json["snapshot"] == "prompt@0" and early.headers["Cache-Control"] == MAY_CHANGE


def test_intervals_of_a_tag_are_half_open_and_the_last_is_open(get: Any) -> None:
    found = get("/tags/ped/intervals").json
    assert found["as_of"] == 5 and found["tag"]["kind"] == "pedestal" and found["next"] is None
    first, second = pedestal(1.0).id, pedestal(2.0).id
    assert found["intervals"] == [
        {"since": "0:0", "until": "7:0", "payload": first},
        {"since": "7:0", "until": None, "payload": second},
    ]
    then = get("/tags/ped/intervals?as_of=1")
    assert then.json["intervals"] == [{"since": "0:0", "until": None, "payload": first}]
    assert then.headers["Cache-Control"] == NEVER_CHANGES
    assert get("/tags/ped/intervals").headers["Cache-Control"] == MAY_CHANGE


def test_intervals_come_in_pages_that_join(get: Any, writer: Writer) -> None:
    with writer.begin() as db:
        db.create_tag("many", "beamspot", Clock.LUMI, Sync.VALIDATION)
    for lumi in (1, 2, 3, 4):
        writer.append("many", RunLumi(1, lumi), beamspot(0.1 * lumi))
    writer.append("many", RunLumi(1, 2), beamspot(9.0))
    with writer.begin() as db:
        db.withdraw("many", RunLumi(1, 3), Stamp("eve", NOW, "wrong"))
    whole = get("/tags/many/intervals").json["intervals"]
    assert [(one["since"], one["until"]) for one in whole] == [("1:1", "1:2"), ("1:2", "1:4"), ("1:4", None)]
    assert whole[1]["payload"] == beamspot(9.0).id
    pages, first = [], ""
    while first is not None:
        page = get(f"/tags/many/intervals?limit=1{'&first=' + first if first else ''}").json
        pages += page["intervals"]
        first = page["next"]
    assert pages == whole


def test_a_tag_by_time_with_an_odd_name(get: Any) -> None:
    found = get(f"/tags/{quote(ODD, safe='')}/intervals?first=1000").json
    assert [(one["since"], one["until"]) for one in found["intervals"]] == [(1000, None)]
    at = "/resolve?global_tag=all&run=7&kinds=voltage"
    assert "goes by time" in get(at).error and get(at).status == 400
    assert list(get(f"{at}&time=1000").json["payloads"]) == ["voltage"]
    assert get(f"{at}&time=999").json["payloads"] == {}


def test_what_holds_at_a_unit(get: Any) -> None:
    pinned = get("/resolve?snapshot=prompt@4&run=7&lumi=5")
    ids = {"beamspot": beamspot(0.2).id, "pedestal": pedestal(2.0).id}
    assert pinned.json == {"snapshot": "prompt@4", "at": "7:5", "time": None, "payloads": ids}
    assert pinned.headers["Cache-Control"] == NEVER_CHANGES
    now = get("/resolve?global_tag=prompt&run=7&lumi=4&kinds=beamspot")
    assert now.json["payloads"] == {"beamspot": beamspot(0.1).id}
    assert now.headers["Cache-Control"] == MAY_CHANGE
    # As it says at which snapshot it was given, it can be asked for ever after.
    again = get(f"/resolve?snapshot={now.json['snapshot']}&run=7&lumi=4&kinds=beamspot")
    assert again.body == now.body and again.headers["Cache-Control"] == NEVER_CHANGES
    assert get("/resolve?snapshot=prompt@2&run=7&lumi=5").json["payloads"].keys() == {"pedestal"}


def test_an_unpinned_answer_follows_and_a_pinned_one_stays_while_another_process_writes(
    get: Any, writer: Writer
) -> None:
    pinned, unpinned = "/resolve?snapshot=prompt@4&run=90&lumi=1", "/resolve?global_tag=prompt&run=90&lumi=1"
    before, first = get(pinned), get(unpinned)
    # A transaction that is open blocks nobody, and nothing of it is seen.
    with writer.begin() as db:
        db.append("spot", RunLumi(80), beamspot(0.7), Stamp("eve", NOW))
        assert get(unpinned).body == first.body
    after = get(unpinned)
    assert after.json["payloads"]["beamspot"] == beamspot(0.7).id
    assert after.json["snapshot"] != first.json["snapshot"]
    assert get(pinned).body == before.body


def test_a_payload_comes_as_npz_with_its_id_as_entity_tag(get: Any, tmp_path: Path) -> None:
    wanted = pedestal(2.0)
    reply = get(f"/payloads/{wanted.id}")
    assert reply.headers["ETag"] == f'"{wanted.id}"' and reply.headers["Cache-Control"] == NEVER_CHANGES
    assert reply.headers["Content-Type"] == "application/x-npz"
    with np.load(io.BytesIO(reply.body), allow_pickle=False) as found:
        assert json.loads(str(found["units"])) == {"mean": "ADC"}
        arrays = {name: found[name] for name in found.files if name != "units"}
    assert Payload("pedestal", arrays, {"mean": "ADC"}).id == wanted.id
    assert get(f"/payloads/{wanted.id}").body == reply.body
    (tmp_path / "pedestal.npz").write_bytes(reply.body)
    assert read_payload("pedestal", tmp_path / "pedestal.npz").id == wanted.id


@pytest.mark.parametrize("path", [f"/payloads/{pedestal(2.0).id}", "/tags", "/resolve?snapshot=prompt@4&run=7"])
def test_what_a_client_has_already_is_not_sent_again(get: Any, path: str) -> None:
    reply = get(path)
    again = get(path, If_None_Match=reply.headers["ETag"])
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", reply.headers["ETag"])
    assert again.headers["Cache-Control"] == reply.headers["Cache-Control"]
    other = get(path, If_None_Match='"other"')
    assert (other.status, other.body) == (200, reply.body)


@pytest.mark.parametrize("path", ["/", "/tags", f"/payloads/{pedestal(1.0).id}", "/nowhere"])
def test_head_is_get_without_the_body(get: Any, path: str) -> None:
    whole, head = get(path), get(path, "HEAD")
    assert head.body == b"" and head.status == whole.status
    same = ("ETag", "Cache-Control", "Content-Type", "Content-Length")
    assert [head.headers[name] for name in same] == [whole.headers[name] for name in same]


def test_json_is_compressed_for_those_who_can(get: Any, writer: Writer) -> None:
    with writer.begin() as db:
        db.create_tag("long", "beamspot", Clock.LUMI, Sync.VALIDATION)
        for lumi in range(20):
            db.append("long", RunLumi(1, lumi), beamspot(0.1 * lumi), Stamp("eve", NOW))
    whole, small = get("/tags/long/intervals"), get("/tags/long/intervals", Accept_Encoding="gzip")
    assert small.headers["Content-Encoding"] == "gzip" and gzip.decompress(small.body) == whole.body
    assert len(small.body) < len(whole.body) / 2 and "Accept-Encoding" in small.headers["Vary"]


def test_the_first_page_says_what_there_is(get: Any) -> None:
    assert get("/").json["paths"] == PATHS
    for path in PATHS:
        filled = path.partition("?")[0].replace("GLOBAL_TAG", "prompt").replace("TAG", "ped")
        if "ID" not in filled and "resolve" not in filled:
            assert get(filled).status == 200, path


WRONG = {
    "/nowhere": (404, "there is nothing at /nowhere"),
    "/tags/pad/intervals": (404, "did you mean 'ped'"),
    "/tags/ped": (404, "there is nothing"),
    "/tags/ped/intervals?asof=3": (400, "did you mean `as_of`"),
    "/tags/ped/intervals?limit=0": (400, "1 .. 10000"),
    "/tags/ped/intervals?limit=many": (400, "`limit` must be a whole number"),
    "/tags/ped/intervals?as_of=10000": (404, "no entry 10000 yet"),
    "/tags/ped/intervals?first=x": (400, "is not a run or run:lumi"),
    "/tags/ped/intervals?limit=1&limit=2": (400, "more than once"),
    "/tags?x=1": (400, "unknown parameter `x`"),
    "/snapshots/prompt?as_of=yesterday": (400, "entry or a time"),
    "/snapshots/prompt?as_of=99999": (400, "no entry 99999"),
    "/snapshots/promt": (404, "did you mean 'prompt'"),
    "/resolve?run=7": (400, "either `snapshot`"),
    "/resolve?snapshot=prompt@4&global_tag=prompt&run=7": (400, "either `snapshot`"),
    "/resolve?snapshot=prompt&run=7": (400, "is not a snapshot"),
    "/resolve?snapshot=prompt@10000&run=7": (400, "no entry 10000"),
    "/resolve?snapshot=promt@4&run=7": (404, "did you mean 'prompt'"),
    "/resolve?snapshot=prompt@4": (400, "`run` must be a whole number"),
    "/resolve?snapshot=prompt@4&run=-1": (400, "`run` must be a whole number"),
    "/resolve?snapshot=prompt@4&run=99999999999": (400, "2^32"),
    "/resolve?snapshot=prompt@4&run=7&kinds=beamspt": (404, "has no kind beamspt"),
    "/payloads/" + 64 * "0": (404, "no payload"),
    "/payloads/..%2F..%2Ftier0.db": (404, "there is nothing"),
    "/payloads/../tier0.db": (404, "there is nothing"),
    "/%00": (404, "there is nothing"),
}


@pytest.mark.parametrize("path", WRONG)
def test_an_error_is_a_sentence(get: Any, path: str) -> None:
    status, words = WRONG[path]
    reply = get(path)
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/json"), reply.body
    assert words in reply.error and reply.headers["Cache-Control"] == MAY_CHANGE


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(get: Any, method: str) -> None:
    reply = get("/tags", method)
    assert reply.status == 405 and "nothing can be changed" in reply.error and reply.headers["Allow"] == "GET, HEAD"


def test_it_could_not_write_if_it_would(writer: Writer) -> None:
    with desk(writer.database.name, writer.store.root) as opened:
        begin = opened.shelf.database.begin
        with pytest.raises(DBAPIError, match="readonly"), begin() as connection:
            connection.execute(sa.text("DELETE FROM conditions_tags"))


def test_postgresql_is_served_and_only_read(new_postgres: str, tmp_path: Path) -> None:
    database = open_database(new_postgres)
    bring_up_to_date(database, 1.0)
    found = Writer(database, PayloadStore(tmp_path))
    with found.begin() as db:
        db.create_tag("ped", "pedestal", Clock.RUN, Sync.PROMPT)
        db.define_global_tag("prompt", {"pedestal": "ped"})
    found.append("ped", RunLumi(3), pedestal(1.0))
    with desk(new_postgres, tmp_path) as opened:
        with served(opened) as address:
            reply = ask(f"{address}/resolve?global_tag=prompt&run=4").json
            assert reply["payloads"] == {"pedestal": pedestal(1.0).id}
            assert ask(f"{address}/tags/ped/intervals").json["intervals"][0]["since"] == "3:0"
        begin = opened.shelf.database.begin
        with pytest.raises(DBAPIError, match="read-only"), begin() as connection:
            connection.execute(sa.text("DELETE FROM conditions_tags"))
    database.close()


def test_a_damaged_payload_is_not_served(writer: Writer, tmp_path: Path) -> None:
    store = PayloadStore(tmp_path)
    store.put(pedestal(5.0))
    for file in store.path(pedestal(5.0).id).rglob("c/*/*"):
        file.write_bytes(bytes(reversed(file.read_bytes())))
    with desk(writer.database.name, tmp_path) as opened, served(opened) as address:
        reply = ask(f"{address}/payloads/{pedestal(5.0).id}")
        assert reply.status == 500 and "restore it from a copy" in reply.error


def test_a_database_that_does_not_answer(tmp_path: Path, writer: Writer) -> None:
    copy = tmp_path / "copy.db"
    writer.database.copy_to(copy)
    with desk(copy, writer.store.root) as opened, served(opened) as address:
        assert ask(f"{address}/tags").status == 200
        with open_database(copy).reshaping() as connection:
            connection.execute(sa.text("ALTER TABLE conditions_tags RENAME TO gone"))
        reply = ask(f"{address}/tags")
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert reply.error == "the database does not answer; come again"


def test_faults_of_the_program_are_no_answers() -> None:
    assert in_words(KeyError("inside"), 500) == (
        500,
        "it cannot be answered, by a fault of this program; its log says more",
    )


def test_more_than_can_be_answered_are_told_to_come_again(writer: Writer) -> None:
    with desk(writer.database.name, writer.store.root, Limits(threads=1, requests=2)) as opened:
        release = threading.Event()
        opened.threads.submit(release.wait)
        with served(opened) as address:
            replies: list[Reply] = []
            threads = [threading.Thread(target=lambda: replies.append(ask(f"{address}/tags"))) for _ in range(2)]
            for thread in threads:
                thread.start()
            while opened.busy < 2:
                time.sleep(0.01)
            third = ask(f"{address}/tags")
            assert (third.status, third.headers["Retry-After"], third.error) == (
                503,
                "1",
                "all desks are taken; come again",
            )
            release.set()
            for thread in threads:
                thread.join()
            assert [reply.status for reply in replies] == [200, 200]
            while opened.busy:
                time.sleep(0.01)
            assert ask(f"{address}/tags").status == 200


def test_who_does_not_take_the_answer_is_given_up(writer: Writer, tmp_path: Path) -> None:
    large = Payload("large", {"values": np.zeros(4_000_000)}, {})
    PayloadStore(tmp_path).put(large)
    with desk(writer.database.name, tmp_path, Limits(sending_s=0.2)) as opened, served(opened) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as idle:
            idle.sendall(f"GET /payloads/{large.id} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            while not opened.shelf.packed.kept_bytes:
                time.sleep(0.01)
            while opened.busy:
                time.sleep(0.01)
            received = 0
            with suppress(ConnectionError):
                while chunk := idle.recv(1 << 20):
                    received += len(chunk)
            assert received < large.arrays["values"].nbytes


def test_payloads_are_kept_up_to_a_limit(tmp_path: Path) -> None:
    store = PayloadStore(tmp_path)
    ids = [store.put(Payload("p", {"x": np.full(100, float(number))}, {})) for number in range(4)]
    size = len(npz_of(store.get(ids[0])))
    packed = Packed(store, limit=2 * size)
    for wanted in (0, 1, 0, 2):
        packed.get(ids[wanted])
    assert packed.kept_bytes == 2 * size and list(packed._kept) == [ids[0], ids[2]]
    assert Packed(store, limit=size - 1).get(ids[0]) == packed.get(ids[0])
    small = Packed(store, limit=size - 1)
    small.get(ids[0])
    assert small.kept_bytes == 0


def test_nothing_is_served_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(DatabaseRefused, match="there is no database"), desk(tmp_path / "t.db", tmp_path):
        pass
    assert not (tmp_path / "t.db").exists()


def test_only_tables_of_this_program_are_served(tmp_path: Path) -> None:
    database = open_database(tmp_path / "t.db")
    bring_up_to_date(database, 1.0)
    with database.begin() as connection:
        connection.execute(sa.insert(versions), {"version": 999, "since": 0.0, "program": "9"})
    database.close()
    with pytest.raises(DatabaseRefused, match="use the later program"), desk(tmp_path / "t.db", tmp_path):
        pass


def test_a_port_that_is_taken_is_said(writer: Writer) -> None:
    with desk(writer.database.name, writer.store.root) as opened, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingRefused, match=f"cannot listen on 127.0.0.1, port {port}: .*give another"):
            asyncio.run(serve(opened, "127.0.0.1", port, lambda address: None, asyncio.Event()))


def test_the_command_serves_until_it_is_told_to_end(writer: Writer, tmp_path: Path) -> None:
    plain = settings(Path(writer.database.name).parent)
    (tmp_path / "tiny.toml").write_text(toml_text(plain))
    program = "from pipeline.cli import main; main()"
    command = [sys.executable, "-c", program, "serve-conditions", "-s", tmp_path / "tiny.toml", "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as server:
        try:
            address = server.stdout.readline().split(" at ")[1].split()[0]
            assert {"tag": "ped", "kind": "pedestal"}.items() <= ask(f"{address}/tags").json["tags"][-2].items()
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
            assert server.stderr.read() == ""
        finally:
            server.kill()
