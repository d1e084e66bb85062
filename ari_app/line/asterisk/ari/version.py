"""The abilities of an Asterisk, decided once from its version. Pure.

The version comes from `GET /asterisk/info` (`system.version`). The first releases of each change
were read from the tags of asterisk/asterisk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

OLDEST_MAJOR: Final = 18
"""The first version with AudioSocket and with externalMedia that speaks it."""

# Stands for the master branch, which is ahead of every release.
_MASTER_MAJOR: Final = 10_000

_RELEASE = re.compile(
    r"""(?: Asterisk \s+ )? (?: \d+: )?         # a package's epoch
        (?P<certified> certified [/-] )?
        (?P<major> \d+ ) \. (?P<minor> \d+ ) (?: \. (?P<patch> \d+ ) )?
        (?P<rest> .* )""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_CANDIDATE = re.compile(r"[-~.]?rc(\d{1,3})", re.IGNORECASE)
_BRANCH = re.compile(
    r"(?: Asterisk \s+ )? GIT - (?: (?P<master> master ) | (?P<major> \d+ ) ) (?! [.\w] ) .*",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class AsteriskVersion:
    """A version of Asterisk.

    Attributes:
        tip: Built from a branch: it holds at least all that its series has released.
        certified: From the certified series, whose number is that of the release it started from.
        candidate: Of a release candidate its number, otherwise 0.
        text: As Asterisk words it.
    """

    major: int
    minor: int = 0
    patch: int = 0
    tip: bool = False
    certified: bool = False
    candidate: int = 0
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> AsteriskVersion | None:
        """Read `22.10.1~dfsg+~cs6.15`, `18.26.4`, `certified/20.7-cert5`, `GIT-22-f0c1c1a7`.

        Returns None for anything else.
        """
        text = text.strip()
        if release := _RELEASE.fullmatch(text):
            candidate = _CANDIDATE.match(release["rest"])
            return cls(
                major=int(release["major"]),
                minor=int(release["minor"]),
                patch=int(release["patch"] or 0),
                certified=bool(release["certified"]) or "-cert" in release["rest"],
                candidate=int(candidate[1]) if candidate else 0,
                text=text,
            )
        if branch := _BRANCH.fullmatch(text):
            major = _MASTER_MAJOR if branch["master"] else int(branch["major"])
            return cls(major=major, tip=True, text=text)
        return None

    def has(self, first: dict[int, tuple[int, int]]) -> bool:
        """Return whether a change is in this version.

        Args:
            first: The first release of the change in each series, as major: (minor, patch). A
                series above the highest has it from its start, another that is not named never.
        """
        if self.major in first:
            return self.tip or (self.minor, self.patch) >= first[self.major]
        return self.major > max(first)


# The sources of each row: asterisk/asterisk, `git tag --contains`.
_KEYS = {20: (14, 0), 21: (9, 0), 22: (4, 0), 23: (0, 0)}
_WIDE_SLIN = {20: (17, 0), 21: (12, 0), 22: (7, 0), 23: (1, 0)}
_WEBSOCKET = {20: (18, 0), 22: (8, 0), 23: (2, 0)}
_OTHER_FRAMES = {20: (20, 0), 22: (10, 0), 23: (4, 0)}
_ADVISORIES = {20: (20, 1), 22: (10, 1), 23: (4, 1)}


@dataclass(frozen=True, slots=True)
class KnownBug:
    """Something that goes wrong in some releases, and that only another release mends.

    Attributes:
        reference: Where it is described.
        effect: What a user sees of it.
        since: The first release of each series that has it, as in `AsteriskVersion.has`.
        mended: The first release of each series that does not have it any more.
    """

    reference: str
    effect: str
    since: dict[int, tuple[int, int]]
    mended: dict[int, tuple[int, int]]

    def affects(self, version: AsteriskVersion) -> bool:
        """Return whether a version has it."""
        return version.has(self.since) and not version.has(self.mended)


# What the application works around by itself (asterisk#2089, #2078) is not among them.
_BUGS: Final = (
    KnownBug(
        "GHSA-vrfp-mg3q-3959",
        "a user of ARI reaches functions that touch the machine: its files, its shell",
        since={18: (0, 0)},
        mended=_ADVISORIES,
    ),
    KnownBug(
        "GHSA-wcvv-g26m-wx5c",
        "users of ARI with read_only=yes can change things all the same",
        since={20: (14, 0), 21: (9, 0), 22: (4, 0), 23: (0, 0)},
        mended=_ADVISORIES,
    ),
    KnownBug(
        "asterisk PR #1522",
        "a call may end by itself when the audio connection has nothing to read for a moment",
        since={20: (14, 0), 21: (9, 0), 22: (4, 0), 23: (0, 0)},
        mended={20: (17, 0), 22: (7, 0), 23: (1, 0)},
    ),
    KnownBug(
        "asterisk PR #1824",
        "the beginning of a message that arrives in two pieces on the audio connection is misread, "
        "and the call may end by itself",
        since={20: (17, 0), 22: (7, 0), 23: (1, 0)},
        mended={20: (19, 0), 22: (9, 0), 23: (3, 0)},
    ),
    KnownBug(
        "asterisk#1785",
        "the agent may turn into loud noise with MEDIA_TRANSPORT=websocket, where Asterisk has to "
        "convert its sound",
        since=_WEBSOCKET,
        mended={20: (19, 0), 22: (9, 0), 23: (3, 0)},
    ),
    KnownBug(
        "asterisk PR #1890",
        "comfort noise from a phone or a trunk ends the call",
        since={20: (14, 0), 21: (9, 0), 22: (4, 0), 23: (0, 0)},
        mended=_OTHER_FRAMES,
    ),
    KnownBug(
        "asterisk#1928",
        "Asterisk may freeze when a call is hung up",
        since={20: (19, 0), 22: (9, 0), 23: (3, 0)},
        mended={20: (20, 0), 22: (10, 0), 23: (4, 0)},
    ),
)

_UNUSABLE: Final = frozenset({(20, 21, 0, 1), (22, 11, 0, 1), (23, 5, 0, 1)})
"""Release candidates that can go down when ARI is used (asterisk#2085)."""


def known_bugs(version: AsteriskVersion) -> tuple[KnownBug, ...]:
    """Return what goes wrong in a version. A certified one may have a fix and not be known to."""
    return tuple(bug for bug in _BUGS if bug.affects(version))


def release_to_install(version: AsteriskVersion) -> str:
    """Return the release of the same series in which nothing that is known goes wrong; else of
    22."""
    mended = _ADVISORIES.get(version.major)
    major, (minor, patch) = (22, _ADVISORIES[22]) if mended is None else (version.major, mended)
    return f"{major}.{minor}.{patch}"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The differences between versions, as far as this application cares.

    Attributes:
        audiosocket: AudioSocket channels exist.
        keys: A caller's keys are told on the AudioSocket connection, and each once: ARI's events of
            them come twice where keys follow each other quickly (22.10.1).
        slin_wide: Kinds 0x11 to 0x18 exist; without them only `slin` (8 kHz) is usable.
        websocket: chan_websocket exists, speaks JSON, and does not end calls by itself.
    """

    audiosocket: bool = False
    keys: bool = False
    slin_wide: bool = False
    websocket: bool = False

    @classmethod
    def of(cls, version: AsteriskVersion) -> Capabilities:
        """Decide what a version can do. Total: a version that is too old can do nothing."""
        return cls(
            audiosocket=version.major >= OLDEST_MAJOR,
            keys=version.has(_KEYS),
            slin_wide=version.has(_WIDE_SLIN),
            websocket=version.has(_WEBSOCKET),
        )


FLOOR: Final = Capabilities(audiosocket=True)
"""What every supported version can do; assumed of a version that cannot be read."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The assessment of the Asterisk at the other end.

    Attributes:
        version: None when the text could not be read.
        capabilities: Safe to act on in every case; without `audiosocket` no call can be served.
        problem: `too_old`, `unusable`, `unknown_version`, or None.
        message: The problem as a sentence for a person; empty without one.
    """

    version: AsteriskVersion | None
    capabilities: Capabilities
    problem: str | None = None
    message: str = ""


def assess(text: str) -> Assessment:
    """Decide from `AsteriskInfo.version` what can be used, and what a person should be told."""
    version = AsteriskVersion.parse(text)
    if version is None:
        return Assessment(
            version=None,
            capabilities=FLOOR,
            problem="unknown_version",
            message=f"Asterisk calls its version {text!r}, which cannot be read; it is treated as "
            f"version {OLDEST_MAJOR}: 8 kHz audio, no keys on the AudioSocket connection.",
        )
    capabilities = Capabilities.of(version)
    if not capabilities.audiosocket:
        return Assessment(
            version=version,
            capabilities=capabilities,
            problem="too_old",
            message=f"Asterisk {version.text} has no AudioSocket channels; "
            f"{OLDEST_MAJOR} or later is needed.",
        )
    if (version.major, version.minor, version.patch, version.candidate) in _UNUSABLE:
        return Assessment(
            version=version,
            capabilities=capabilities,
            problem="unusable",
            message=f"Asterisk {version.text} can go down with all its calls when ARI is used "
            "(asterisk#2085).",
        )
    return Assessment(version=version, capabilities=capabilities)
