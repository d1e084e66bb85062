"""What somebody might put where a name, a number or a word is expected."""

from __future__ import annotations

from typing import Final

HOSTILE: Final = {
    "shell function": "${SHELL(touch /tmp/pwned)}",
    "variable": "x${GLOBAL(SECRET)}y",
    "evaluated": "${EVAL(${X})}",
    "expression": "$[1 + 1]",
    "command substitution": "$(id)",
    "backquotes": "`id`",
    "semicolon": "; rm -rf /",
    "pipe": "x | mail",
    "end of a quotation": 'x" = "x',
    "backslash": 'x\\"',
    "name and number": '"Boss" <110>',
    "angle brackets": "<110>",
    "second destination": "100&PJSIP/00900@trunk",
    "options of Dial": "100@trunk,30,gU(sub)",
    "another technology": "Local/s@internal",
    "SIP URI": "sip:100@evil.example?Replaces=x",
    "line feed": "x\nAction: Originate",
    "line end": "x\r\nX-Header: y",
    "last line feed": "100\n",
    "NUL": "100\x00",
    "escape sequence": "\x1b[2J",
    "C1 control": "\x9b31m",
    "separator of lines": "x\u2028y",
    "right to left": "\u202e001",
    "lone surrogate": "\ud800",
    "path": "../../etc/passwd",
    "absolute path": "/etc/passwd",
    "encoded path": "..%2f..%2fetc%2fpasswd",
    "dots": "..",
    "argument": "x,agent_id=agent_evil,wait=3600",
    "ten thousand characters": "x" * 10_000,
    "digits of another script": "\u0661\u0662\u0663",
    "emoji": "\U0001f600",
    "empty": "",
    "blank": " ",
}
