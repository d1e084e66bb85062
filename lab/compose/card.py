"""The account for a person's own softphone: its fields, and a QR code."""

from __future__ import annotations

import io

import segno
from rich.console import Console
from rich.table import Table

from lab.compose.state import State

NUMBERS = {"100": "the agent", "600": "hear yourself", "601": "a tone", "605": "music"}
"""What a person may dial; all of `asterisk-conf/extensions.conf` is there."""


def uri(state: State) -> str:
    """The account as one SIP URI (RFC 3261, section 19.1.1: the password belongs to it)."""
    password = state.phone_password.get_secret_value()
    return f"sip:{state.phone_user}:{password}@{state.address}:{state.sip_port};transport=udp"


def show_card(console: Console, state: State) -> None:
    """Print the fields that softphones ask for, and the QR code."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(style="bold")
    for name, value in (
        ("Domain, server", f"{state.address}:{state.sip_port}"),
        ("User name", state.phone_user),
        ("Password", state.phone_password.get_secret_value()),
        ("Transport", "UDP"),
        ("Proxy, STUN, ICE", "none"),
        ("Dial", ", ".join(f"{number} {what}" for number, what in NUMBERS.items())),
    ):
        table.add_row(name, value)
    console.print("An account for your own softphone:", style="bold")
    console.print()
    console.print(table)
    console.print()
    console.print(qr(uri(state)), highlight=False, markup=False, soft_wrap=True)


def qr(text: str) -> str:
    """`text` as a QR code of block characters, two rows of it in a line."""
    out = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(out, compact=True, border=2)
    return out.getvalue().rstrip("\n")
