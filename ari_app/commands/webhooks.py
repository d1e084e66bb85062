"""The command `ari-app webhooks`: what waits, what was given up, and sending it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ari_app.errors import ConfigError
from ari_app.process.addresses import origin
from ari_app.process.files import is_absent
from ari_app.records.id_prefix import MOST_FOUND, only_match, prefix_of
from ari_app.records.webhooks.outbox import OutboxOptions, open_spool, send_test, told
from ari_app.records.webhooks.spool import Delivery, Spool
from ari_app.settings import Settings

_A_ROW: Final = 400


def list_undelivered(settings: Settings, limit: int, console: Console) -> None:
    """Print what is not delivered, the newest first.

    Raises:
        ConfigError: Nobody is told of calls, or there is no spool.
    """
    options = _options(settings)
    with _spool(options) as spool:
        counts, found = spool.counts(), spool.undelivered(limit)
    if found:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("call", "event", "to", "state", "tries", "last answer", "next"):
            table.add_column(heading, no_wrap=True)
        for each in found:
            shown = told(each, options.urls)
            cells = (
                each.session_id,
                each.kind,
                shown["receiver"] or "-",
                each.state,
                str(each.attempts),
                _last(each),
                shown["next_at"] or "-",
            )
            table.add_row(*map(escape, cells))
        # A row is a line, however narrow the terminal: a call is there to be copied.
        wide = console.options.update(width=_A_ROW)
        table.width = console.measure(table, options=wide).maximum
        console.print(table, highlight=False, crop=False)
    console.print(f"{counts.waiting} waiting, {counts.dead} given up.", highlight=False)


def show(settings: Settings, name: str, console: Console) -> None:
    """Print the deliveries of a call or an event, and what is still to be sent.

    Raises:
        ConfigError: There are none, or the name is the beginning of several.
    """
    options = _options(settings)
    with _spool(options) as spool:
        found = spool.of(_whole(spool, name))
        bodies = [spool.body(each) for each in dict.fromkeys(one.event_id for one in found)]
    if not found:
        raise ConfigError(
            f"There is nothing of {name}. What was delivered is forgotten after 30 days."
        )

    def print_(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    for each in found:
        shown = told(each, options.urls)
        print_(f"{each.event_id}  {each.kind}  call {each.session_id}")
        for label in ("receiver", "state", "attempts", "created_at", "tried_at", "next_at"):
            print_(f"  {label:<10} {shown[label] or '-'}")
        print_(f"  {'answer':<10} {_last(each)}")
    for body in filter(None, bodies):
        print_(body.decode())


def retry(settings: Settings, name: str | None, console: Console) -> None:
    """Let what was given up be sent again, and at once what waits.

    Args:
        name: The id of a call or an event, or its beginning; None: all.

    Raises:
        ConfigError: There is nothing of this name to be sent, or it is the beginning of several.
    """
    with _spool(_options(settings)) as spool:
        count = spool.again(None if name is None else _whole(spool, name))
    if not count and name is not None:
        raise ConfigError(f"Nothing of {name} waits or was given up.")
    console.print(f"{count} to be sent: within a second while serve runs.", highlight=False)


async def test(settings: Settings, console: Console) -> bool:
    """Send a test event to each receiver, and print what it answers.

    Returns:
        Whether all have taken it.
    """
    well = True
    for url, answer, seconds in await send_test(_options(settings)):
        good = answer.status is not None and 200 <= answer.status < 300
        sign = "[green]✓[/]" if good else "[bold red]✗[/]"
        line = escape(f"{origin(url)}: {answer.words} after {seconds:.2f} s")
        console.print(f"{sign} {line}", soft_wrap=True, highlight=False)
        well &= good
    return well


def _whole(spool: Spool, name: str) -> str:
    """Return the id that somebody means who may have given its beginning."""
    start = prefix_of(name)
    if not start or spool.of(name):
        return name
    return only_match(start, spool.names(start, MOST_FOUND)) or name


def _last(delivery: Delivery) -> str:
    if delivery.error is not None:
        return delivery.error
    return "-" if delivery.status is None else f"HTTP {delivery.status}"


def _options(settings: Settings) -> OutboxOptions:
    options = settings.outbox_options()
    if options is None:
        missing = "WEBHOOK_SECRET" if settings.webhook_urls else "WEBHOOK_URL"
        raise ConfigError(
            f"{missing} is not set, so nobody is told of calls: see docs/webhooks.md."
        )
    return options


@contextmanager
def _spool(options: OutboxOptions) -> Iterator[Spool]:
    if is_absent(options.spool):
        raise ConfigError(
            f"There is no WEBHOOK_SPOOL {options.spool.absolute()}. `serve` makes it; run this "
            "command in the same folder."
        )
    spool = open_spool(options.spool)
    try:
        yield spool
    finally:
        spool.close()
