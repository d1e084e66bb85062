"""What the lab in Docker must do, one function for each thing. They raise CheckFailed."""

from __future__ import annotations

import io
import json
import time
import urllib.request
import wave
from typing import Any

import numpy as np

from lab.compose_test.errors import CheckFailed
from lab.compose_test.stage import Stage
from lab.demo import scene
from lab.demo.analysis import speech_spans

BUILD_SECONDS = 1200.0
UP_SECONDS = 180.0
CALL_SECONDS = 25
LASTING = ("asterisk", "practice-agent", "ari-app", "caller")
_LEAST_SPEECH_S = 4.0
_TALK_SECONDS = 30.0
_POLL_SECONDS = 0.2
_USER = "10001"


def build(stage: Stage) -> str:
    """All images."""
    stage.compose("--profile", "load", "--profile", "phone", "build", timeout=BUILD_SECONDS)
    return "asterisk, ari-app, ari-app-lab, phone, load"


def come_up(stage: Stage) -> str:
    """Asterisk, agent and service, each healthy."""
    stage.compose("up", "--detach", "--wait", "ari-app", timeout=UP_SECONDS)
    return "asterisk, practice-agent and ari-app are healthy"


def account(stage: Stage) -> str:
    """The fields for a person's softphone, and a QR code."""
    card = stage.compose("run", "--rm", "-T", "--no-deps", "setup", "card")
    fields = ("Domain, server", "127.0.0.1:", "User name", "phone", "Password", "▄▄▄▄▄")
    _expect(card, *fields)
    return "fields and QR code"


def transcript(stage: Stage) -> str:
    """The automatic caller: healthy only after a whole call, and shows what was said."""
    stage.compose("up", "--detach", "--wait", timeout=UP_SECONDS)
    log = stage.compose("logs", "--no-log-prefix", "caller")
    # Long lines are wrapped: their beginnings are not.
    texts = [scene.AGENT.first_message, *(turn.say for turn in scene.AGENT.turns)]
    texts += [line.text for line in scene.CALLER]
    _expect(log, *(text[:50] for text in texts), "COMPLETED")
    services = stage.services()
    sick = [name for name in LASTING if services[name].get("Health") != "healthy"]
    if sick:
        raise CheckFailed(f"Not healthy: {', '.join(sick)}.")
    return log[log.index("COMPLETED") :].splitlines()[0].rstrip()


def foreign_phone(stage: Stage) -> str:
    """baresip, which is not of this project: registers through the published port, calls, hears."""
    said = stage.compose(
        "run", "--rm", "-T", "phone", "100", str(CALL_SECONDS), timeout=CALL_SECONDS + 60
    )
    _expect(said, "200 OK (ari-app-lab) [1 binding]", "Call established")
    heard = _heard_seconds(stage)
    if heard < _LEAST_SPEECH_S:
        raise CheckFailed(f"baresip heard only {heard:.1f} s of speech.\n{said}")
    session = _session_of(stage, "phone")
    who = [line["who"] for line in session["transcript"]]
    if "caller" not in who or who.count("agent") < 2:
        raise CheckFailed(f"The agent did not hear baresip: {session['transcript']}")
    return f"registered, called, heard {heard:.1f} s of speech, and was heard and answered"


def load(stage: Stage) -> str:
    """SIPp: several calls at once, with sound; the service says what became of them."""
    said = stage.compose("run", "--rm", "-T", "load", timeout=120)
    _expect(said, "All 5 calls went well.")
    # Nobody was made anew for it, and a second container's calls are not taken for the first's.
    again = stage.compose("run", "--rm", "-T", "load", timeout=120)
    _expect(again, "All 5 calls went well.")
    return "5 calls at once, twice, each with an agent"


def unserved(stage: Stage) -> str:
    """SIPp's calls to a tone are answered, but not by an agent: that is no success."""
    said = stage.fails("run", "--rm", "-T", "-e", "LOAD_NUMBER=601", "load", timeout=120)
    _expect(said, "5 answered and ended well", "5 of 5 calls did not go well.")
    return "5 calls that the dialplan answered itself are not counted as well"


def unprivileged(stage: Stage) -> str:
    """No container is root's, can write its image, or has a capability."""
    for name in LASTING:
        status = stage.compose("exec", "-T", name, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        seen = (fields["Uid"].split()[0], int(fields["CapBnd"], 16), fields["NoNewPrivs"])
        if seen != (_USER, 0, "1"):
            raise CheckFailed(f"{name} runs with user, capabilities, NoNewPrivs = {seen}.")
    return f"user {_USER}, no capabilities, none to be gained"


def secrets_apart(stage: Stage) -> str:
    """Each container sees what it needs, and none is in another's environment."""
    expected = {
        "practice-agent": "dialogue.yaml",
        "ari-app": "ari-app.env",
        "caller": "caller.json",
    }
    for name, file in expected.items():
        seen = stage.compose("exec", "-T", name, "ls", "/lab").split()
        if seen != [file]:
            raise CheckFailed(f"{name} sees {seen} in /lab, and needs {file} alone.")
        # The API's key is chosen for this test, and goes into no container but `setup`.
        container = stage.compose("ps", "--quiet", name).strip()
        if stage.api_key in stage.docker("inspect", container):
            raise CheckFailed(f"`docker inspect` shows a key of {name}'s.")
    stage.fails("exec", "-T", "practice-agent", "getent", "hosts", "asterisk")
    return "each has its own; the practice agent does not reach Asterisk"


def production_image(stage: Stage) -> str:
    """The service alone says in a sentence what it lacks; nothing of the lab is in its image."""
    script = "ari-app serve; echo code $?; python3 -c 'import matplotlib' 2>&1; true"
    said = stage.production(
        "run", "--rm", "-T", "--no-deps", "--entrypoint", "sh", "ari-app", "-c", script
    )
    _expect(said, "ARI_USERNAME and ARI_PASSWORD are empty or not set", "code 2", "No module named")
    return "one sentence and exit code 2 without settings"


def draining(stage: Stage) -> str:
    """SIGTERM during a call: the caller goes on in the dialplan, the service ends well."""
    phone = f"{stage.project}-talking"
    stage.compose("run", "--detach", "--name", phone, "phone", "100", "60")
    try:
        _wait_for_talk(stage, "phone")
        began = time.monotonic()
        stage.compose("stop", "ari-app", timeout=60)
        seconds = time.monotonic() - began
    finally:
        stage.docker("rm", "--force", phone)
    code = stage.services()["ari-app"]["ExitCode"]
    if code != 0:
        raise CheckFailed(f"The service ended with {code}.\n{stage.compose('logs', 'ari-app')}")
    # The first calls ended as they should; this one could not.
    _expect(stage.compose("logs", "asterisk"), "landed=human")
    return f"in the middle of a call: it goes on in the dialplan; exit code 0 after {seconds:.1f} s"


def _wait_for_talk(stage: Stage, caller: str) -> None:
    deadline = time.monotonic() + _TALK_SECONDS
    while time.monotonic() < deadline:
        sessions = _get(stage, "/sessions")["sessions"]
        if any(s["caller_number"] == caller and s["state"] == "talking" for s in sessions):
            return
        time.sleep(_POLL_SECONDS)
    raise CheckFailed(f"{caller!r} is not talking with the agent after {_TALK_SECONDS:g} s.")


def gone(stage: Stage) -> str:
    """Nothing stays."""
    stage.take_down()
    return "no container, network or volume is left"


def _expect(text: str, *words: str) -> None:
    missing = [word for word in words if word not in text]
    if missing:
        raise CheckFailed(f"Missing: {missing} in\n{text}")


def _heard_seconds(stage: Stage) -> float:
    """How much speech is in what baresip has written down."""
    sound = stage.file_of("heard", "heard.wav")
    with wave.open(io.BytesIO(sound)) as file:
        rate_hz = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return sum(span.end_s - span.start_s for span in speech_spans(samples, rate_hz))


def _session_of(stage: Stage, caller: str) -> dict[str, Any]:
    sessions = _get(stage, "/sessions")["sessions"]
    found = next((s for s in sessions if s["caller_number"] == caller), None)
    if found is None:
        raise CheckFailed(f"The service knows no call of {caller!r}.")
    return _get(stage, f"/sessions/{found['session_id']}")


def _get(stage: Stage, path: str) -> dict[str, Any]:
    request = urllib.request.Request(stage.api_url + path, headers={"X-API-Key": stage.api_key})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
