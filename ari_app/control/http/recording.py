"""Gives out recordings, whole or in ranges of bytes (RFC 9110, 13 and 14)."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path, PurePath
from typing import Any, Final, Protocol

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest
from multidict import CIMultiDict, CIMultiDictProxy

from ari_app.control.http.problems import Problem
from ari_app.errors import AppError
from ari_app.records.record import CallRecord
from ari_app.records.recording.archive import RecordingArchive
from ari_app.records.recording.names import FORMATS
from ari_app.records.recording.wav import PART
from ari_app.records.store.log import CallLog

_RANGE: Final = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})", re.ASCII)
_PART: Final = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9+_.-]{1,160}", re.ASCII)
_RETRY_SECONDS: Final = 1.0


class _Calls(Protocol):
    @property
    def records(self) -> Mapping[str, CallRecord]: ...


class _Service(Protocol):
    @property
    def calls(self) -> _Calls: ...

    @property
    def recordings(self) -> RecordingArchive | None: ...

    @property
    def call_log(self) -> CallLog | None: ...


async def recording_of(
    request: web.Request, service: _Service, session_id: str
) -> web.StreamResponse:
    """Answer with a file of a call's recording.

    Raises:
        Problem: `no_recording`; `not_finished` while the call goes on; `bad_request` for a part
            that is no number.
    """
    number = request.query.get("part", "1")
    if not _PART.fullmatch(number):
        raise Problem("bad_request", "part is a number, from 1.")
    record = service.calls.records.get(session_id)
    if record is not None and record.ended_at is None:
        raise Problem("not_finished", "The call is still going on: ask when it has ended.")
    recordings = service.recordings
    if recordings is None:
        raise Problem("no_recording", "RECORDINGS_DIR is not set, so there are no recordings.")
    parts = recordings.parts(session_id)
    if not parts and recordings.is_busy(session_id):
        raise Problem("not_finished", "It is being finished.", retry_after=_RETRY_SECONDS)
    parts = parts or await _kept_parts(service, session_id)
    if not parts:
        raise Problem("no_recording")
    if int(number) > len(parts):
        raise Problem("no_recording", f"The recording has {len(parts)} parts.")
    path = str(parts[int(number) - 1].get("path", ""))
    found = await asyncio.to_thread(recordings.find, path)
    if found is None:
        raise Problem("no_recording", "The file is no longer there.")
    return _RecordingFile(*found)


async def _kept_parts(service: _Service, session_id: str) -> list[dict[str, Any]]:
    if service.call_log is None:
        return []
    try:
        document = await service.call_log.find(session_id)
    except AppError as error:
        raise Problem(
            error.code,
            str(error),
            status=HTTPStatus.SERVICE_UNAVAILABLE,
            retry_after=_RETRY_SECONDS,
        ) from None
    return list((document or {}).get("recordings", ()))


class _RecordingFile(web.FileResponse):
    """A file, for which the request's conditions are read as RFC 9110 has them."""

    def __init__(self, path: Path, found: os.stat_result) -> None:
        name = path.name.removesuffix(PART)
        suffix = PurePath(name).suffix
        media_type = FORMATS[suffix.removeprefix(".")]
        if not _SAFE_NAME.fullmatch(name):
            name = f"recording{suffix}"
        super().__init__(
            path,
            headers={
                hdrs.CONTENT_TYPE: media_type,
                hdrs.CONTENT_DISPOSITION: f'inline; filename="{name}"',
            },
        )
        self._size = found.st_size
        # As FileResponse writes it.
        self._tag = f"{found.st_mtime_ns:x}-{found.st_size:x}"

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Send it."""
        headers = usable_conditions(request.method, request.headers, self._tag, self._size)
        return await super().prepare(request.clone(headers=headers))


def usable_conditions(
    method: str, headers: CIMultiDictProxy[str], tag: str, size: int
) -> CIMultiDict[str]:
    """Return a request's headers without what does not hold for a file.

    A Range that is not one range of bytes is as good as none, and so is one on the condition of
    another file: an If-Range with another tag. (aiohttp knows dates there, and no tags.)

    Args:
        method: Of the request.
        headers: Of the request.
        tag: The file's, without quotes.
        size: The file's, in bytes.
    """
    kept = CIMultiDict(headers)
    # No compressed file beside ours is meant.
    kept.popall(hdrs.ACCEPT_ENCODING, None)
    wanted = _RANGE.fullmatch(headers.get(hdrs.RANGE, "").strip())
    condition = headers.get(hdrs.IF_RANGE, "").strip()
    if condition.startswith(('"', "W/")):
        kept.popall(hdrs.IF_RANGE)
        if condition != f'"{tag}"':
            wanted = None
    if wanted is None or method != hdrs.METH_GET or wanted["first"] + wanted["last"] == "":
        kept.popall(hdrs.RANGE, None)
    elif wanted["first"] == "":
        if int(wanted["last"]) == 0:
            kept[hdrs.RANGE] = f"bytes={size}-"
    elif wanted["last"] and int(wanted["last"]) < int(wanted["first"]):
        kept.popall(hdrs.RANGE, None)
    return kept
