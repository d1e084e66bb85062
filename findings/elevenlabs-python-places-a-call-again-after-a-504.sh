#!/bin/bash
# elevenlabs (Python): an outbound call whose answer is lost at a gateway is placed up to three times.
#
# Software: elevenlabs 2.78.0, its client as it comes; Python 3.11.
# Expected: conversational_ai.twilio.outbound_call() and sip_trunk.outbound_call() ask once: whether a
#           call was placed is not known after a 502 or 504 from a proxy on the way, and a person's
#           telephone rings. Or they name the call, so that the far end knows it again.
# Happens:  after 408, 409, 429 and every status from 500 on the same POST is sent again, twice at most,
#           after about 1 and 2 s, and nothing in it says that it is the same one. When a repetition
#           succeeds, the function gives the last call; of the one before, which rings at the same
#           person or talks with them, the program never hears. batch_calls.create() does so with its
#           whole list. After a cut connection or a time-out nothing is repeated.
# Way out:  `request_options={"max_retries": 0}` in each call of these functions.
#
# Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen:
#   elevenlabs 2.78.0; the far end places each call that it is asked for.
#   function                   options          answers    calls  the function gives
#   twilio.outbound_call       -                504            3  ApiError 504
#   twilio.outbound_call       -                504, 200       2  conversation 2
#   sip_trunk.outbound_call    -                504, 200       2  conversation 2
#   batch_calls.create         -                504            3  ApiError 504
#   twilio.outbound_call       -                cut            1  RemoteProtocolError
#   twilio.outbound_call       max_retries: 0   504            1  ApiError 504
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check elevenlabs==2.78.0 2>/dev/null ||
    { echo 'The packages cannot be had here.'; exit 2; }
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from elevenlabs import ElevenLabs, OutboundCallRecipient
from elevenlabs.core.api_error import ApiError

# What the far end answers, one after the other, the last one again and again. None: it cuts the
# connection.
answers: list[int | None] = []
asked: list[bytes] = []


class FarEnd(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked.append(self.rfile.read(int(self.headers["Content-Length"])))
        status = answers.pop(0) if len(answers) > 1 else answers[0]
        if status is None:
            self.close_connection = True
            return
        said = {"success": True, "message": "", "conversation_id": f"conversation {len(asked)}"}
        body = json.dumps(said).encode() if status == 200 else b"<h1>Gateway Time-out</h1>"
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status == 200 else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


far_end = ThreadingHTTPServer(("127.0.0.1", 0), FarEnd)
threading.Thread(target=far_end.serve_forever, daemon=True).start()
client = ElevenLabs(base_url=f"http://127.0.0.1:{far_end.server_port}", api_key="key")
agents = client.conversational_ai
callee = {
    "agent_id": "agent_1",
    "agent_phone_number_id": "phnum_1",
    "to_number": "+493023125001",
}
batch = {
    "call_name": "monday",
    "agent_id": "agent_1",
    "recipients": [OutboundCallRecipient(phone_number="+493023125001")],
}
once = {"request_options": {"max_retries": 0}}
TRIES = [
    ("twilio.outbound_call", agents.twilio.outbound_call, callee, {}, [504]),
    ("twilio.outbound_call", agents.twilio.outbound_call, callee, {}, [504, 200]),
    ("sip_trunk.outbound_call", agents.sip_trunk.outbound_call, callee, {}, [504, 200]),
    ("batch_calls.create", agents.batch_calls.create, batch, {}, [504]),
    ("twilio.outbound_call", agents.twilio.outbound_call, callee, {}, [None]),
    ("twilio.outbound_call", agents.twilio.outbound_call, callee, once, [504]),
]
version = importlib.metadata.version("elevenlabs")
print(f"elevenlabs {version}; the far end places each call that it is asked for.")
row = "{:<26} {:<16} {:<10} {:>5}  {}"
print(row.format("function", "options", "answers", "calls", "the function gives"))
seen = []
for name, function, parameters, options, answered in TRIES:
    answers[:] = answered
    asked.clear()
    try:
        gives = function(**parameters, **options).conversation_id
    except ApiError as error:
        gives = f"ApiError {error.status_code}"
    except Exception as error:
        gives = type(error).__name__
    told = ", ".join("cut" if each is None else str(each) for each in answered)
    print(row.format(name, "max_retries: 0" if options else "-", told, len(asked), gives))
    seen.append((len(asked), len(set(asked)), gives))
expected = [
    (3, 1, "ApiError 504"),
    (2, 1, "conversation 2"),
    (2, 1, "conversation 2"),
    (3, 1, "ApiError 504"),
    (1, 1, "RemoteProtocolError"),
    (1, 1, "ApiError 504"),
]
sys.exit(0 if seen == expected else "It behaves differently now.")
PYTHON
