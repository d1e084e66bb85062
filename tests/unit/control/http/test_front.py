"""The interface of several workers: real sockets, services without a call."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import annotated_types
import orjson
import pytest
from aiohttp import ClientError, ClientResponse, ClientSession, UnixConnector, WSMsgType, web
from pydantic import BaseModel
from structlog.testing import capture_logs

from ari_app.control.cluster.view import Machine
from ari_app.control.http.front import (
    build_front_app,
    build_machine_app,
)
from ari_app.control.http.keys import ApiKey, Keys, Scope
from ari_app.control.http.machines import Elsewhere, Machines
from ari_app.control.http.merged_watch import MergedWatch, _Mirror
from ari_app.control.http.problems import Problem
from ari_app.control.http.rates import RequestRates
from ari_app.control.http.relay import _ANSWER_SECONDS, MACHINE_HEADER, There, Workers
from ari_app.control.http.requests import InitiateCallRequest
from ari_app.control.http.server import HttpServer
from ari_app.control.http.worker import (
    ADDRESS_HEADER,
    KEY_HEADER,
    MOST_HEAD,
    WorkerServer,
    build_worker_app,
)
from ari_app.control.workers.folder import Folder
from ari_app.control.workers.hub import Hub
from ari_app.control.workers.merged_metrics import FrontMetrics
from ari_app.control.workers.roster import Roster, Worker
from ari_app.records.recording.archive import RecordingArchive
from ari_app.settings import Settings
from lab.web import serving
from linekit.listener import ConnectionLimits, listening
from tests.unit.control.http.fake_service import FakeService, end, note_end
from tests.waiting import PATIENCE_SECONDS, until

OPERATOR = "key-of-the-operator"
READER = "key-of-the-reader"
SECRET = "what-machines-know-each-other-by"
KEYS = Keys(
    [
        ApiKey("desk", Scope.OPERATE, OPERATOR.encode()),
        ApiKey("reader", Scope.READ, READER.encode()),
    ]
)


class Audit:
    """Remembers what was written down."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def write(self, entry: Any) -> None:
        self.entries.append(dict(entry))


class Office:
    """A front and two workers."""

    def __init__(
        self,
        folder: Folder,
        rates: RequestRates | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.folder = folder
        self.elsewhere = elsewhere
        self.rates = rates or RequestRates()
        self.hub = Hub(Roster(2), max_calls=20, per_second=0, max_waiting=10)
        self.metrics = FrontMetrics()
        self.audit = Audit()
        self.told: list[str] = []
        self.warned: list[str] = []
        self.services = [FakeService(), FakeService()]
        self.workers: list[Worker] = []
        self.servers: list[WorkerServer] = []
        self.http: ClientSession

    def problems(self) -> list[str]:
        return list(self.told)

    def warnings(self) -> list[str]:
        return list(self.warned)

    async def start(self, stack: AsyncExitStack) -> None:
        for number, service in enumerate(self.services, start=1):
            server = WorkerServer(
                build_worker_app(
                    service,
                    public_url=None,
                    number_pattern=None,
                    routes=[
                        web.post("/twilio/voice", _says(number)),
                        web.get("/twilio/media/{token}", _says(number)),
                    ],
                    audit_file=self.audit,
                )
            )
            await server.start(self.folder.http(number), self.folder.passed(number))
            stack.push_async_callback(server.close)
            worker = Worker(number, os.getpid(), f"voice-agent.host.{number}", takes=True)
            self.hub.roster.came(worker)
            self.workers.append(worker)
            self.servers.append(server)
        relay = Workers(self.folder)
        stack.push_async_callback(relay.close)
        app = build_front_app(
            self,
            relay,
            keys=KEYS,
            number_pattern=None,
            rates=self.rates,
            routes=[("POST", "/twilio/voice"), ("GET", "/twilio/media/{token}")],
            features={"log": False, "recordings": False},
            sign_in_seconds=3600,
            elsewhere=self.elsewhere,
            audit_file=self.audit,
        )
        door = HttpServer(
            app, limits=ConnectionLimits(), take=lambda address: 0.0, on_refused=lambda code: None
        )
        host, port = await door.serve(listening("127.0.0.1", 0))
        stack.push_async_callback(door.close)
        self.address = host, port
        client = ClientSession(f"http://{host}:{port}", headers={"X-API-Key": OPERATOR})
        self.http = await stack.enter_async_context(client)

    def add(self, number: int, session_id: str, **details: Any) -> Any:
        """Let a worker have a call."""
        record = self.services[number - 1].add(session_id, **details)
        self.hub.roster.has(self.workers[number - 1], session_id, record.line_id)
        return record


def _says(number: int) -> Callable[[web.Request], Any]:
    async def answer(request: web.Request) -> web.Response:
        if request.query.get("signature") == "wrong":
            raise web.HTTPForbidden
        return web.Response(text=f"worker {number} {(await request.text())}")

    return answer


@asynccontextmanager
async def opened(rates: RequestRates | None = None) -> AsyncIterator[Office]:
    folder = Folder.make()
    async with AsyncExitStack() as stack:
        stack.callback(folder.remove)
        office = Office(folder, rates)
        await office.start(stack)
        yield office


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    async with opened() as office:
        yield office


async def test_lists_and_health_are_of_all(office: Office) -> None:
    office.add(1, "one")
    office.add(2, "two")
    async with office.http.get("/sessions") as response:
        told = await response.json()
    assert {each["session_id"] for each in told["sessions"]} == {"one", "two"}
    assert (told["active_sessions"], told["max_concurrent_calls"]) == (2, 20)
    async with office.http.get("/health/ready") as response:
        ready = await response.json()
        assert response.status == 200
    assert (ready["active_sessions"], ready["warnings"]) == (2, [])
    async with office.http.get("/metrics") as response:
        metrics = await response.text()
    assert 'ari_app_workers{state="taking"} 2.0' in metrics
    assert 'process_open_fds{worker="2"}' in metrics


async def test_one_that_is_away_is_a_warning_and_all_are_a_problem(office: Office) -> None:
    office.services[0].problems = ["Asterisk's event socket is disconnected"]
    office.workers[0].takes = False
    async with office.http.get("/health/ready") as response:
        assert response.status == 200
        assert (await response.json())["warnings"] == ["worker 1 takes no calls: the others serve"]
    office.warned.append("AUDIT_FILE is not written as it should be.")
    async with office.http.get("/health/ready") as response:
        assert office.warned[0] in (await response.json())["warnings"]
    office.services[1].problems = office.services[0].problems
    async with office.http.get("/health/ready") as response:
        assert response.status == 503
        assert (await response.json())["problems"] == office.services[0].problems
    office.told.append("draining: new calls are refused")
    async with office.http.get("/health/ready") as response:
        assert "draining: new calls are refused" in (await response.json())["problems"]


async def test_one_that_stands_still_does_not_keep_a_check_waiting(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = office.folder.http(2)
    await office.servers[1].close()
    waited: list[float] = []
    get = Workers.get

    async def look(relay: Workers, to: Worker, path: str, seconds: float) -> tuple[int, bytes]:
        waited.append(seconds)
        return await get(relay, to, path, seconds)

    monkeypatch.setattr(Workers, "get", look)
    hangs_up = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hangs_up.wait()
        writer.close()

    async with await asyncio.start_unix_server(accept, str(still)):
        async with office.http.get("/health/ready") as response:
            assert response.status == 200
        hangs_up.set()
    balancer = Path(__file__).parents[4] / "deploy/haproxy/haproxy.cfg"
    (patience,) = re.findall(r"timeout check (\d+)ms", balancer.read_text())
    assert max(waited) < int(patience) / 1000


async def test_a_request_reaches_the_worker_that_has_the_call(office: Office) -> None:
    office.add(1, "one")
    office.add(2, "two")
    for session_id in ("one", "two"):
        async with office.http.post(f"/sessions/{session_id}/hold") as response:
            assert response.status == 200, await response.text()
        async with office.http.get(f"/sessions/{session_id}") as response:
            assert (await response.json())["session_id"] == session_id
    assert [service.control.done for service in office.services] == [
        [("hold", "one")],
        [("hold", "two")],
    ]
    async with office.http.post("/webhook/end-call", json={"session_id": "two"}) as response:
        assert response.status == 200
    assert office.services[1].control.done[-1][0] == "end"
    async with office.http.get("/sessions/nobody") as response:
        assert (await response.json())["code"] == "session_not_found"


async def test_keys_are_looked_at_once_and_each_change_is_written_down_once(
    office: Office,
) -> None:
    office.add(2, "two")
    forged = {"X-API-Key": READER, "X-Ari-App-Key": "desk", "X-Ari-App-Address": "1.2.3.4"}
    async with office.http.post("/sessions/two/hold", headers=forged) as response:
        assert (response.status, (await response.json())["code"]) == (403, "forbidden")
    forged["X-API-Key"] = OPERATOR
    forged["X-Ari-App-Key"] = "somebody"
    async with office.http.post("/sessions/two/hold", headers=forged) as response:
        assert response.status == 200
        assert response.headers["X-Request-ID"] == office.audit.entries[-1]["request_id"]
    async with office.http.post("/sessions/two/hold", headers={"X-API-Key": "wrong"}) as response:
        assert response.status == 401
    told = [
        (each["key"], each["address"], each["action"], each["result"])
        for each in office.audit.entries
    ]
    assert told == [
        ("reader", "127.0.0.1", "hold", "forbidden"),
        ("desk", "127.0.0.1", "hold", "ok"),
    ]


async def test_calls_begin_where_there_is_room_and_once_for_each_key(office: Office) -> None:
    office.workers[0].used = 3
    body = {"called_number": "+493023125001"}
    answers = []
    for _ in range(2):
        async with office.http.post(
            "/webhook/initiate-call", json=body, headers={"Idempotency-Key": "k"}
        ) as response:
            answers.append((response.status, response.content_type, await response.json()))
    assert answers[0] == answers[1]
    assert response.content_type == "application/json"
    assert response.headers["Idempotent-Replayed"] == "true"
    assert [len(service.control.wishes) for service in office.services] == [0, 1]
    # A caller who waits is where they are.
    office.hub.roster.has(office.workers[0], "waiting", "1700000000.7")
    async with office.http.post(
        "/webhook/initiate-call", json={"call_id": "1700000000.7"}
    ) as response:
        assert response.status == 200
    assert [len(service.control.wishes) for service in office.services] == [1, 1]
    async with office.http.post("/webhook/initiate-call", json={"nonsense": 1}) as response:
        assert (await response.json())["code"] == "invalid_request"


def test_nobody_between_gives_a_wish_up_before_it_has_waited_for_room() -> None:
    longest = _most(InitiateCallRequest, "wait_seconds")
    longest += _most(Settings, "precall_timeout_seconds")
    assert longest < _ANSWER_SECONDS
    root = Path(__file__).parents[4]
    for file, waits in (
        ("deploy/haproxy/haproxy.cfg", r"set-timeout server (\d+)s if .* /webhook/initiate-call"),
        ("docs/security.md", r"proxy_read_timeout (\d+)s"),
    ):
        (seconds,) = re.findall(waits, (root / file).read_text())
        assert longest < int(seconds), file


def _most(model: type[BaseModel], name: str) -> float:
    bounds = model.model_fields[name].metadata
    (most,) = (each.le for each in bounds if isinstance(each, annotated_types.Le))
    assert isinstance(most, int | float)
    return most


async def test_a_stream_is_passed_on_as_the_connection_that_it_is(office: Office) -> None:
    record = office.add(2, "two")
    journal = office.services[1].journal
    async with office.http.ws_connect("/sessions/two/events") as socket:
        note_end(journal, record)
        kinds = [
            message.json()["type"] async for message in socket if message.type is WSMsgType.TEXT
        ]
    assert kinds[-1] == "ended"
    async with office.http.get("/sessions/two/events") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert b"event: ended" in await response.read()


async def test_a_connection_that_was_passed_on_has_no_second_request(office: Office) -> None:
    record = office.add(2, "two")
    end(record)
    reader, writer = await asyncio.open_connection(*office.address)
    head = "GET /sessions/nobody/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\n\r\n"
    smuggled = (
        "POST /sessions/two/hold HTTP/1.1\r\nHost: x\r\nX-Ari-App-Key: desk\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    writer.write(head.format(READER).encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert b" 404 " in answer
    assert b"Connection: close" in answer
    writer.write(smuggled.encode())
    rest = await reader.read()
    assert b"HTTP/1.1" not in rest, "it is closed after the first"
    assert office.services[1].control.done == []
    writer.close()


async def test_both_at_once_are_no_second_request_either(office: Office) -> None:
    office.add(2, "two")
    reader, writer = await asyncio.open_connection(*office.address)
    writer.write(
        f"GET /sessions/nobody/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {READER}\r\n\r\n"
        "POST /sessions/two/hold HTTP/1.1\r\nHost: x\r\nX-Ari-App-Key: desk\r\n"
        "Content-Length: 0\r\n\r\n".encode()
    )
    answers = await reader.read()
    assert answers.count(b"HTTP/1.1 ") == 1
    assert office.services[1].control.done == []
    writer.close()


async def test_a_head_that_would_be_cut_is_not_passed_on(office: Office) -> None:
    """Behind what is cut off the client itself would say whose key it was."""
    office.add(2, "two")
    many = {f"X-{number}": "a" * 7000 for number in range(20)}
    for path in ("/sessions/two/events", "/sessions/two/listen"):
        async with office.http.get(path, headers=many) as response:
            assert (response.status, (await response.json())["code"]) == (400, "bad_request")
    async with office.http.get("/sessions/two", headers=many) as response:
        assert response.status == 200, "which is answered here"


async def test_a_worker_takes_no_connection_whose_head_was_cut(office: Office) -> None:
    record = office.add(2, "two")
    end(record)
    ours, theirs = socket.socketpair()
    head = f"GET /sessions/two HTTP/1.1\r\nHost: x\r\n{KEY_HEADER}: desk\r\nX: ".encode()
    with ours, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.connect(str(office.folder.passed(2)))
        with theirs:
            socket.send_fds(door, [head.ljust(MOST_HEAD + 1, b"a")], [theirs.fileno()])
        ours.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(ours, 1) == b"", "it is closed"


async def test_a_worker_that_is_away(office: Office) -> None:
    office.add(2, "two")
    await office.servers[1].close()
    async with office.http.post("/sessions/two/hold") as response:
        assert response.status == 503
        assert (await response.json())["code"] == "worker_away"
        assert response.headers["Retry-After"] == "1"
    async with office.http.get("/sessions/two/events") as response:
        assert (await response.json())["code"] == "worker_away"
    async with office.http.get("/sessions") as response:
        assert response.status == 200, "the others are shown"
    for worker in office.workers:
        office.hub.roster.went(worker)
    async with office.http.get("/calls") as response:
        assert (await response.json())["code"] == "worker_away"


async def test_a_call_of_a_lost_worker_is_not_said_to_be_unknown(office: Office) -> None:
    office.add(2, "two")
    office.hub.roster.has(office.workers[1], "waiting", "1700000000.7")
    office.hub.roster.went(office.workers[1])

    async def asked() -> list[str]:
        codes = []
        for path, body in (
            ("/sessions/two/hold", {}),
            ("/webhook/end-call", {"session_id": "two"}),
            ("/webhook/initiate-call", {"called_number": "+493023125001", "session_id": "two"}),
            ("/webhook/initiate-call", {"call_id": "1700000000.7"}),
        ):
            async with office.http.post(path, json=body) as response:
                codes.append((await response.json()).get("code", "ok"))
        return codes

    assert await asked() == ["worker_away"] * 4
    assert office.services[0].control.wishes == [], "it would be a second call of that name"
    after = Worker(2, os.getpid(), "voice-agent.host.2")
    office.hub.roster.came(after)
    office.hub.roster.stands(after, 0, takes=True, draining=False)
    assert "worker_away" not in await asked()


async def test_ways_in_find_their_worker_by_what_they_bring(office: Office) -> None:
    office.workers[1].used = 5
    office.hub.roster.has(office.workers[1], "session", "CA2")
    for form, query, number in (
        ({"CallSid": "CA1"}, "", 1),
        ({"CallSid": "CA2"}, "", 2),
        ({"CallSid": "CA1"}, "?worker=2", 2),
        ({"CallSid": "CA1"}, "?worker=nobody", 1),
    ):
        async with office.http.post(f"/twilio/voice{query}", data=form) as response:
            assert (await response.text()).startswith(f"worker {number} CallSid=")
    for token, number in (("2.secret", 2), ("1.secret", 1), ("secret", 1)):
        async with office.http.get(f"/twilio/media/{token}") as response:
            assert await response.text() == f"worker {number} "


async def test_whoever_a_worker_refuses_too_often_is_told_so() -> None:
    async with opened(RequestRates(0.01)) as office:

        async def ask(query: str) -> tuple[int, str | None]:
            async with office.http.post(f"/twilio/voice{query}", data={"CallSid": "CA1"}) as answer:
                return answer.status, answer.headers.get("Connection")

        wrong = [await ask("?signature=wrong") for _ in range(3)]
        assert wrong == [(403, None), (429, "close"), (429, "close")]
        assert [(await ask(""))[0] for _ in range(3)] == [200, 200, 200]


async def test_the_page_watches_all(office: Office) -> None:
    office.add(1, "one")
    office.add(2, "two")
    seen: set[str] = set()
    async with office.http.get("/page/watch") as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                seen |= {row["id"] for row in orjson.loads(line[6:])["calls"]}
            if seen == {"one", "two"}:
                break
    assert seen == {"one", "two"}
    office.told.append("draining: new calls are refused")
    office.warned.append("AUDIT_FILE is not written as it should be.")
    office.services[0].problems = office.services[1].problems = ["the agent is away"]
    told: list[str] = []
    async with office.http.get("/page/watch") as response, asyncio.timeout(PATIENCE_SECONDS):
        # What it was told a moment ago may come once more.
        while told != [*office.told, "the agent is away"]:
            if line := (await response.content.readline()).removeprefix(b"data: ").strip():
                told, warned = (orjson.loads(line)[name] for name in ("problems", "warnings"))
    assert warned == office.warned
    async with office.http.get("/page/me") as response:
        assert (await response.json())["name"] == "desk"


async def test_the_page_watches_a_worker_with_very_many_calls(office: Office) -> None:
    names = {f"{number:032x}" for number in range(2000)}
    for name in names:
        office.add(1, name, line_id=name)
    seen: set[str] = set()
    async with office.http.get("/page/watch", read_bufsize=1 << 24) as response:
        # All are in the first event after the worker was heard; it is asked at once.
        for _ in range(10):
            line = await response.content.readline()
            await response.content.readline()
            seen |= {row["id"] for row in orjson.loads(line.removeprefix(b"data: "))["calls"]}
            if seen == names:
                break
    assert len(seen) == 2000


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\ndata: no news\n\n", ["worker_not_watched"]),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", ["worker_not_watched"]),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", []),
        (b"HTTP/1.1 200 OK\r\n\r\n", []),
        (b"", []),
    ],
    ids=["no news", "refused", "cut off", "over", "away"],
)
async def test_it_is_told_why_a_worker_is_not_watched_unless_it_has_gone(
    office: Office, answer: bytes, told: list[str]
) -> None:
    await office.servers[1].close()

    async def tells(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    relay = Workers(office.folder)
    async with await asyncio.start_unix_server(tells, str(office.folder.http(2))):
        with capture_logs() as logs:
            there = There(office.workers[1], relay)
            await MergedWatch(office, relay)._watch(there, _Mirror())
    await relay.close()
    assert [each["event"] for each in logs] == told


async def test_what_only_workers_know_is_theirs_to_answer(office: Office) -> None:
    async with office.http.get("/nowhere") as response:
        assert (response.status, (await response.json())["code"]) == (404, "not_found")
    async with office.http.delete("/sessions") as response:
        assert response.status in (403, 405)
    async with office.http.get("/nowhere", headers={"X-API-Key": ""}) as response:
        assert response.status == 401


async def test_the_log_has_no_token_that_comes_by_another_method(office: Office) -> None:
    with capture_logs() as logs:
        async with office.http.post("/twilio/media/2.5ec4e7", data={}) as response:
            assert response.status == 405
    told = [entry["path"] for entry in logs if entry["event"] == "http_request"]
    assert told == ["/twilio/media/{token}"]


async def test_a_worker_answers_nobody_of_whom_the_front_has_not_spoken(office: Office) -> None:
    office.add(1, "one")
    connector = UnixConnector(str(office.folder.http(1)))
    async with ClientSession("http://worker", connector=connector) as http:
        async with http.post("/sessions/one/hold") as response:
            assert response.status == 401
        async with http.post("/twilio/voice", data={}) as response:
            assert response.status == 200, "it checks by itself"
    assert office.services[0].control.done == []


async def test_a_worker_that_dies_in_the_middle(office: Office) -> None:
    office.add(2, "two")
    await office.servers[1].close()
    answer = b""

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(dies, str(office.folder.http(2))):
        async with office.http.post("/sessions/two/hold") as response:
            assert (response.status, (await response.json())["code"]) == (503, "worker_away")
        (told,) = office.audit.entries
        assert (told["action"], told["result"]) == ("hold", "worker_away"), "nobody else tells it"
        # What was sent of a recording must not look like all of it.
        for length in (b"Content-Length: 200000", b"Transfer-Encoding: chunked"):
            answer = b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n" + b"5\r\nsound\r\n"
            async with office.http.get("/calls/two/recording") as response:
                assert response.status == 200
                with pytest.raises(ClientError):
                    await response.read()


async def test_a_machine_tells_what_its_own_worker_cannot(office: Office) -> None:
    office.add(2, "two")
    relay = Workers(office.folder)
    app = build_machine_app(
        office,
        relay,
        secret=SECRET,
        number_pattern=None,
        routes=[web.post("/machine/arrivals", _says(0))],
        elsewhere=Elsewhere(Fellows("here", {}, {}), Machines(SECRET)),
        audit_file=office.audit,
    )
    theirs = {MACHINE_HEADER: SECRET, KEY_HEADER: "desk", ADDRESS_HEADER: "192.0.2.7"}
    async with serving(app) as url, ClientSession(url) as http:
        async with http.post("/sessions/two/hold", headers=theirs) as response:
            assert response.status == 200
        assert len(office.audit.entries) == 1, "its worker has told it"
        await office.servers[1].close()
        async with http.post("/sessions/two/hold", headers=theirs) as response:
            assert (await response.json())["code"] == "worker_away"
        async with http.post("/machine/arrivals", headers={MACHINE_HEADER: SECRET}) as response:
            assert response.status == 200
        async with http.post("/sessions/two/hold", headers={KEY_HEADER: "desk"}) as response:
            assert response.status == 401
    await relay.close()
    told = [(each["key"], each["address"], each["result"]) for each in office.audit.entries]
    assert told == [("desk", "192.0.2.7", "ok"), ("desk", "192.0.2.7", "worker_away")]


class Fellows:
    """What each of several machines knows of the others."""

    def __init__(self, name: str, of_keys: dict[str, str], machines: dict[str, Machine]) -> None:
        self.name = name
        self._of_keys = of_keys
        self._machines = machines
        self.best: list[str] = []
        self.gone: set[str] = set()

    def others(self) -> list[Machine]:
        left_out = self.gone | {self.name}
        return [each for name, each in self._machines.items() if name not in left_out]

    def unseen(self) -> list[Machine]:
        return []

    def does_not_answer(self, machine: Machine) -> None:
        raise AssertionError

    def targets(self) -> list[Machine]:
        return [self._machines[name] for name in self.best]

    def gave(self, machine: Machine) -> None:
        pass

    def most(self, limit: int) -> int:
        return limit

    async def owner(self, call: str) -> Machine | None:
        return None

    async def keep_key(self, key: str) -> Machine | None:
        name = self._of_keys.setdefault(key, self.name)
        return None if name == self.name else self._machines[name]


@asynccontextmanager
async def machines(*names: str) -> AsyncIterator[dict[str, tuple[Office, Fellows]]]:
    """Several machines of two workers each, by name."""
    of_keys: dict[str, str] = {}
    there: dict[str, Machine] = {}
    made: dict[str, tuple[Office, Fellows]] = {}
    async with AsyncExitStack() as stack:
        for name in names:
            folder = Folder.make()
            stack.callback(folder.remove)
            ask, relay = Machines(SECRET), Workers(folder)
            for each in (ask, relay):
                stack.push_async_callback(each.close)
            fellows = Fellows(name, of_keys, there)
            elsewhere = Elsewhere(fellows, ask)
            office = Office(folder, elsewhere=elsewhere)
            app = build_machine_app(
                office,
                relay,
                secret=SECRET,
                number_pattern=None,
                routes=[],
                elsewhere=elsewhere,
                audit_file=office.audit,
            )
            url = await stack.enter_async_context(serving(app))
            there[name] = Machine(name, "1", url, "an-asterisk", room=20, ready=True)
            await office.start(stack)
            made[name] = office, fellows
        yield made


def placed(office: Office) -> int:
    """Return how many calls were placed at a machine."""
    return sum(len(service.control.wishes) for service in office.services)


async def news(stream: ClientResponse) -> dict[str, Any]:
    """Read what a page is told next."""
    line = await stream.content.readline()
    await stream.content.readline()
    told: dict[str, Any] = orjson.loads(line.removeprefix(b"data: "))
    return told


async def test_the_page_watches_all_machines_whichever_it_is_opened_at() -> None:
    async with machines("one", "two") as made:
        for name, (office, _) in made.items():
            office.add(1, f"{name}-1")
            office.add(2, f"{name}-2")
        for office, _ in made.values():
            async with office.http.get("/page/watch") as stream:
                told = await news(stream)
            assert {row["id"] for row in told["calls"]} == {"one-1", "one-2", "two-1", "two-2"}
            assert (told["running"], told["limit"]) == (4, 40)


async def test_a_machine_that_goes_takes_its_calls_with_it_and_no_others() -> None:
    async with machines("one", "two") as made:
        (one, fellows), (two, _) = made.values()
        one.add(1, "one-1")
        two.add(2, "two-2")
        async with one.http.get("/page/watch") as stream:
            assert len((await news(stream))["calls"]) == 2
            fellows.gone.add("two")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (told := await news(stream))["gone"]:
                    pass
        assert (told["gone"], told["calls"], told["limit"]) == (["two-2"], [], 20)


async def test_what_a_machine_told_stays_until_it_tells_again() -> None:
    mirror = _Mirror()
    rest = {"levels": {}, "running": 1, "limit": 10}
    mirror.take({"calls": [{"id": "one"}, {"id": "two"}], "gone": [], **rest})
    # Its connection is lost, and made anew.
    mirror.heard.clear()
    assert set(mirror.rows) == {"one", "two"}
    mirror.take({"calls": [{"id": "two"}], "gone": [], **rest})
    assert set(mirror.rows) == {"two"}


def record(office: Office, folder: Path, session_id: str, heard: bytes) -> None:
    """Let a machine have the recording of a call that is over."""
    file = folder / f"{session_id}.wav"
    file.write_bytes(heard)
    archive = SimpleNamespace(
        parts=lambda asked: [{"path": file.name}] if asked == session_id else [],
        is_busy=lambda asked: False,
        find=lambda path: (file, file.stat()),
    )
    for service in office.services:
        service.recordings = cast(RecordingArchive, archive)


async def test_a_recording_is_had_at_any_machine_whichever_has_its_file(tmp_path: Path) -> None:
    async with machines("one", "two", "three") as made:
        (one, _), (two, fellows), _ = made.values()
        record(one, tmp_path, "of-one", b"one")
        record(two, tmp_path, "of-two", b"0123456789")
        some = {"Range": "bytes=2-4"}
        for office, _ in made.values():
            async with office.http.get("/calls/of-two/recording", headers=some) as response:
                assert (response.status, await response.read()) == (206, b"234")
            async with office.http.head("/calls/of-two/recording") as response:
                assert (response.status, response.content_length) == (200, 10)
            async with office.http.get("/calls/of-nobody/recording") as response:
                assert (response.status, (await response.json())["code"]) == (404, "no_recording")
        fellows.gone.add("one")
        async with two.http.get("/calls/of-one/recording") as response:
            assert response.status == 404


async def wish(office: Office) -> tuple[int, str | None]:
    """Ask a machine to begin a call; the status, and whether it was the answer of before."""
    async with office.http.post(
        "/webhook/initiate-call",
        json={"called_number": "+493023125001"},
        headers={"Idempotency-Key": "order-4711"},
    ) as response:
        return response.status, response.headers.get("Idempotent-Replayed")


@pytest.mark.parametrize("best", ["one", "two"])
async def test_a_key_begins_one_call_at_whichever_machine_it_is_asked_again(best: str) -> None:
    async with machines("one", "two") as made:
        (one, _), (two, _) = made.values()
        for _, fellows in made.values():
            fellows.best = [best]
        assert await wish(one) == (200, None)
        for office in (one, two):
            # The next call would be another worker's.
            office.workers[0].used = 1
        assert [await wish(office) for office in (two, one)] == [(200, "true")] * 2
        assert placed(made[best][0]) == 1
        assert placed(one) + placed(two) == 1


async def test_a_wish_that_was_refused_goes_with_its_key_to_whoever_has_room_by_then() -> None:
    async with machines("one", "two") as made:
        (one, of_one), (two, of_two) = made.values()
        of_one.best = of_two.best = ["one"]
        for service in one.services:
            service.control.refusal = Problem("capacity")
        assert await wish(one) == (503, None)
        of_one.best = of_two.best = ["two"]
        assert await wish(two) == (200, None)
        assert placed(two) == 1


async def test_a_client_that_goes_is_written_down_once(office: Office) -> None:
    control = office.services[0].control
    control.gate.clear()
    body = {"called_number": "+493023125001"}
    with capture_logs() as logs:
        asking = asyncio.create_task(office.http.post("/webhook/initiate-call", json=body))
        await control.asked.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: bool(office.audit.entries))
        # The front has heard of it before its worker has.
        async with office.http.get("/sessions") as response:
            assert response.status == 200
    assert [(each["action"], each["result"]) for each in office.audit.entries] == [
        ("initiate_call", "client_gone")
    ]
    assert not [each for each in logs if each["event"] == "http_request_failed"]
