"""Draws a call: both voices over time, their words, and what was measured between them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from lab.demo.analysis import Analysis, BargeIn, Reply, Samples, Span
from lab.demo.captions import Caption

WIDTH_PX = 1700
HEIGHT_PX = 960
"""Twice the width that a repository's page has for it: read there, every letter is half as high."""
MAX_LINES = 5
"""Of a caption; what is longer ends in an ellipsis."""

_DPI = 100
_INK, _GREY, _LINE = "#222a33", "#67717d", "#c9d0d8"
_ALARM, _GOOD = "#c0262d", "#2b7a4b"

# The vertical axis has no unit: the lanes' middles, their half height, and what lies between.
_AGENT_Y, _CALLER_Y, _REACH = 4.5, 0.0, 1.0
_REPLY_Y = 1.45
_MARK_Y = 6.75
_TOP, _BOTTOM = 7.0, -2.45
_LEFT, _RIGHT, _AXES_BOTTOM, _AXES_TOP = 0.083, 0.985, 0.055, 0.9

_AXES_PX = (_RIGHT - _LEFT) * WIDTH_PX
_TEXT_PT = 15.0
_CHARACTER_PX = 10.9
_NARROWEST_PX = 290
_COLUMNS = 1400
_TOGETHER = 0.02
"""Of the width: marks that are nearer to each other have one line and one label."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of the call's set-up or end."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class CallPicture:
    """All that is drawn. Both voices have the same length and begin with the INVITE."""

    title: str
    subtitle: str
    rate_hz: int
    said: Samples
    heard: Samples
    analysis: Analysis
    agent_words: Sequence[Caption]
    caller_words: Sequence[Caption]
    marks: Sequence[Mark]

    @property
    def seconds(self) -> float:
        """The length of the time line."""
        return max(1.0, len(self.heard) / self.rate_hz)


@dataclass(frozen=True, slots=True)
class _Lane:
    name: str
    note: str
    y: float
    colour: str
    pale: str
    samples: Samples
    spans: Sequence[Span]
    words: Sequence[Caption]
    limits: Sequence[float]
    """Where words must not go on: at the next words."""


def draw(picture: CallPicture, path: Path) -> None:
    """Write the picture as a PNG of 1700 x 960 pixels.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(WIDTH_PX / _DPI, HEIGHT_PX / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((_LEFT, _AXES_BOTTOM, _RIGHT - _LEFT, _AXES_TOP - _AXES_BOTTOM))
    _prepare(axes, picture.seconds)
    figure.text(0.012, 0.957, picture.title, fontsize=20, fontweight="bold", color=_INK)
    figure.text(0.012, 0.92, picture.subtitle, fontsize=_TEXT_PT, color=_GREY)
    analysis = picture.analysis
    agent = _Lane(
        *("agent", "heard by\nthe phone", _AGENT_Y, "#2563a8", "#e6eef8"),
        *(picture.heard, analysis.agent, picture.agent_words),
        [caption.at_s for caption in picture.agent_words],
    )
    caller = _Lane(
        *("caller", "said by\nthe phone", _CALLER_Y, "#c2691c", "#fbeee0"),
        *(picture.said, analysis.caller, picture.caller_words),
        [caption.at_s for caption in picture.caller_words],
    )
    for lane in (agent, caller):
        _draw_voice(axes, lane, picture.seconds)
        _draw_words(axes, lane, picture.seconds)
    for barge_in in analysis.barge_ins:
        _draw_barge_in(axes, barge_in)
    if analysis.replies:
        _label(axes, _REPLY_Y, "response", _GOOD, size=16)
    for reply in analysis.replies:
        _draw_reply(axes, reply)
    _draw_marks(axes, picture.marks, picture.seconds)
    figure.savefig(path, dpi=_DPI)


def envelope(samples: Samples, columns: int) -> tuple[npt.NDArray[np.float64], ...]:
    """The lowest and the highest sample, -1 to 1, of each of at most so many equal columns."""
    columns = min(columns, len(samples))
    if not columns:
        return np.zeros(0), np.zeros(0)
    starts = np.linspace(0, len(samples), columns, endpoint=False).astype(int)
    low, high = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
    return low / 32768, high / 32768


def wrap(text: str, width_px: float) -> str:
    """Break a caption into lines for so many pixels."""
    lines = textwrap.wrap(
        text,
        max(8, int(width_px / _CHARACTER_PX)),
        max_lines=MAX_LINES,
        placeholder=" …",
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def _prepare(axes: Axes, seconds: float) -> None:
    axes.set_xlim(0, seconds * 1.004)
    axes.set_ylim(_BOTTOM, _TOP)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.set_yticks([])
    axes.tick_params(axis="x", colors=_GREY, labelsize=_TEXT_PT, length=4)
    step = next((step for step in (1, 2, 5, 10, 30, 60) if seconds / step <= 14), 300)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")


def _draw_voice(axes: Axes, lane: _Lane, seconds: float) -> None:
    bottom, top = lane.y - _REACH, lane.y + _REACH
    for span in lane.spans:
        axes.fill_between((span.start_s, span.end_s), bottom, top, color=lane.pale, linewidth=0)
    low, high = envelope(lane.samples, _COLUMNS)
    loudest = max(0.05, float(np.max(np.abs(low), initial=0)), float(np.max(high, initial=0)))
    at = np.linspace(0, seconds, len(low), endpoint=False)
    scale = _REACH * 0.92 / loudest
    axes.fill_between(
        at, lane.y + low * scale, lane.y + high * scale, color=lane.colour, linewidth=0.5
    )
    axes.axhline(lane.y, color=lane.colour, linewidth=0.7, alpha=0.6)
    _label(axes, lane.y + 0.22, lane.name, lane.colour, size=19)
    _label(axes, lane.y - 0.33, lane.note, _GREY, size=13.5, weight="normal")


def _label(
    axes: Axes, y: float, text: str, colour: str, *, size: float, weight: str = "bold"
) -> None:
    """Write into the margin on the left."""
    axes.text(
        *(-0.008, y, text),
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="center",
        fontsize=size,
        fontweight=weight,
        color=colour,
    )


def _draw_words(axes: Axes, lane: _Lane, seconds: float) -> None:
    px_per_s = _AXES_PX / seconds
    bottom = lane.y - _REACH
    for caption in lane.words:
        start = caption.at_s
        until = min((at_s for at_s in lane.limits if at_s > start), default=seconds)
        spoken = next((span.end_s for span in lane.spans if span.end_s > start), start) - start
        width_px = min((until - start) * px_per_s - 10, max(spoken * px_per_s, _NARROWEST_PX))
        axes.plot((start, start), (bottom - 0.5, bottom), color=lane.colour, linewidth=2)
        axes.annotate(
            wrap(caption.text, width_px),
            (start, bottom),
            xytext=(6, -5),
            textcoords="offset points",
            va="top",
            fontsize=_TEXT_PT,
            linespacing=1.2,
            color=_INK,
            # Above the lines that lead from lane to lane.
            bbox={"boxstyle": "square,pad=0.1", "color": "white", "alpha": 0.85},
            zorder=5,
        )


def _draw_barge_in(axes: Axes, barge_in: BargeIn) -> None:
    bottom, top = _CALLER_Y - _REACH, _AGENT_Y + _REACH
    axes.fill_between(
        (barge_in.at_s, barge_in.silent_s), bottom, top, color=_ALARM, alpha=0.22, linewidth=0
    )
    axes.plot((barge_in.at_s,) * 2, (bottom, top + 0.1), color=_ALARM, linewidth=1.6)
    axes.annotate(
        f"caller interrupts · agent silent after {_ms(barge_in.seconds)}",
        (barge_in.at_s, top + 0.1),
        xytext=(-3, 3),
        textcoords="offset points",
        fontsize=_TEXT_PT,
        fontweight="bold",
        color=_ALARM,
    )


def _draw_reply(axes: Axes, reply: Reply) -> None:
    start, end = reply.caller.end_s, reply.answer.start_s
    for at, y in ((start, _CALLER_Y), (end, _AGENT_Y)):
        axes.plot((at, at), (y, _REPLY_Y), color=_GOOD, linewidth=1.4, linestyle=(0, (3, 2)))
    axes.annotate(
        "",
        (end, _REPLY_Y),
        xytext=(start, _REPLY_Y),
        arrowprops={
            "arrowstyle": "-|>",
            "color": _GOOD,
            "linewidth": 2.4,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )
    axes.annotate(
        _ms(reply.seconds),
        (end, _REPLY_Y),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=_TEXT_PT,
        fontweight="bold",
        color=_GOOD,
    )


def together(marks: Sequence[Mark], seconds: float) -> list[Mark]:
    """Make one mark of those that the eye could not tell apart. Pure."""
    found: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: mark.at_s):
        if found and mark.at_s - found[-1].at_s < seconds * _TOGETHER:
            found[-1] = Mark(found[-1].at_s, f"{found[-1].text} · {mark.text}")
        else:
            found.append(mark)
    return found


def _draw_marks(axes: Axes, marks: Sequence[Mark], seconds: float) -> None:
    for mark in together(marks, seconds):
        at_the_end = mark.at_s > seconds * 0.8
        axes.plot((mark.at_s,) * 2, (_AGENT_Y, _MARK_Y + 0.1), color=_GREY, linewidth=1.2)
        axes.annotate(
            mark.text,
            (mark.at_s, _MARK_Y),
            xytext=(-6 if at_the_end else 6, 0),
            textcoords="offset points",
            ha="right" if at_the_end else "left",
            va="center",
            fontsize=_TEXT_PT,
            color=_INK,
        )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
