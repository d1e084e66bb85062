#!/bin/bash
# elevenlabs (Python): text_to_speech.convert() and .stream() ask for nothing until somebody reads.
#
# Software: elevenlabs 2.78.0, its client and its asynchronous client as they come; Python 3.11.
# Expected: the call sends the request, as `requests.get(..., stream=True)` does, and gives the answer's
#           sound to read: a prompt can be asked for while the telephone still rings, a wrong key or voice
#           raises where convert() is called, and what was called was synthesised.
# Happens:  the functions are generators. The request is sent when the first piece is taken: what was asked
#           for a second ahead comes no sooner than if it had been asked for then, and the callee hears
#           silence for the whole of the synthesis. A refusal (401) is raised in the middle of playing,
#           outside any `try` around convert(); a result that nobody reads was never asked for.
# Way out:  a task or thread that takes the first piece at once.
#
# Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen (the service needs 0.5 s; the first piece is read 1 s after the call):
#   elevenlabs 2.78.0
#   called                            asked for after   first sound after  refused key: raised by
#   text_to_speech.convert                      1.0 s               1.5 s  reading
#   text_to_speech.stream                       1.0 s               1.5 s  reading
#   the same, asynchronous                      1.0 s               1.5 s  reading
#   convert, first piece in a thread            0.0 s               1.0 s  -
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check elevenlabs==2.78.0 2>pip ||
    { echo 'The packages cannot be had here.'; exit 2; }
cat >ask.py <<'PYTHON'
import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from elevenlabs.client import AsyncElevenLabs, ElevenLabs
from elevenlabs.core.api_error import ApiError

NEEDED, READ_AT = 0.5, 1.0
VOICE = {"voice_id": "voice", "text": "Good morning."}
asked: list[float] = []


class Service(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked.append(time.monotonic())
        self.rfile.read(int(self.headers["Content-Length"]))
        refused = self.headers["xi-api-key"] == "wrong"
        if not refused:
            time.sleep(NEEDED)
        self.send_response(401 if refused else 200)
        self.end_headers()
        self.wfile.write(b"sound")

    def log_message(self, *_: object) -> None:
        pass


service = ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=service.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{service.server_port}"
good, wrong = (ElevenLabs(api_key=key, base_url=url) for key in ("right", "wrong"))


def times(read: Callable[[], bytes], began: float) -> tuple[float, float]:
    """Read 1 s after the call: when it was asked for, and when the first sound was there."""
    time.sleep(began + READ_AT - time.monotonic())
    assert read() == b"sound"
    return round(asked[-1] - began, 1), round(time.monotonic() - began, 1)


def raised_by(ask: Callable[[], object], read: Callable[[object], bytes]) -> str:
    try:
        answer = ask()
    except ApiError:
        return "the call"
    try:
        read(answer)
    except ApiError as error:
        assert error.status_code == 401
        return "reading"
    return "nothing"


def plain(name: str) -> tuple[float, float, str]:
    began = time.monotonic()
    answer = getattr(good.text_to_speech, name)(**VOICE)
    asked_at, heard_at = times(lambda: next(answer), began)
    return asked_at, heard_at, raised_by(lambda: getattr(wrong.text_to_speech, name)(**VOICE), next)


async def rest(answer: AsyncIterator[bytes]) -> None:
    async for _ in answer:
        pass


def asynchronous() -> tuple[float, float, str]:
    with asyncio.Runner() as runner:
        clients = [AsyncElevenLabs(api_key=key, base_url=url) for key in ("right", "wrong")]
        began = time.monotonic()
        answer = clients[0].text_to_speech.stream(**VOICE)
        asked_at, heard_at = times(lambda: runner.run(anext(answer)), began)
        runner.run(rest(answer))
        refused = raised_by(
            lambda: clients[1].text_to_speech.stream(**VOICE), lambda answer: runner.run(anext(answer))
        )
    return asked_at, heard_at, refused


def ahead() -> tuple[float, float, str]:
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        answer = good.text_to_speech.convert(**VOICE)
        first = pool.submit(next, answer)
        asked_at, heard_at = times(first.result, began)
    return asked_at, heard_at, "-"


print(f"elevenlabs {version('elevenlabs')}")
row = "{:<33} {:>15}  {:>18}  {}"
print(row.format("called", "asked for after", "first sound after", "refused key: raised by"))
seen = []
for name, result in (
    ("text_to_speech.convert", plain("convert")),
    ("text_to_speech.stream", plain("stream")),
    ("the same, asynchronous", asynchronous()),
    ("convert, first piece in a thread", ahead()),
):
    asked_at, heard_at, refused = result
    print(row.format(name, f"{asked_at} s", f"{heard_at} s", refused))
    seen.append((asked_at >= READ_AT, heard_at >= READ_AT + NEEDED, refused))
expected = [(True, True, "reading")] * 3 + [(False, False, "-")]
sys.exit(0 if seen == expected else "It behaves differently now.")
PYTHON
venv/bin/python ask.py
