"""The one exception that a user is meant to see, and how all is shown: in one line, without passwords."""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from collections.abc import Iterable
from urllib.parse import unquote

LONGEST = 1200  # characters of a message
_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 2, 100, 100
# User and password of an address, and a query's values that are secret. A port is no password.
SECRETS = re.compile(
    r"""(://)(?:[^\s/?\#'"]*|[^\s/?\#'":]*:(?!\d+/)[^\s?\#'"]*)@"""
    r"""|([?&;][\w.-]*(?:password|passwd|pwd|token|secret|signature|sig|key|credential)[\w.-]*=)[^\s&;\#'"]+""",
    re.IGNORECASE,
)
ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
SHORTEST = 6  # characters of a password that is looked for by itself: fewer may be part of any word


def one_line(text: object) -> str:
    """Show a text in one line without passwords: control characters escaped, so that none reaches a terminal.

    A long one loses its middle. What Unicode calls not printable is escaped: line ends, escape codes, marks
    that turn the direction of writing, and bytes of a file name that are no text.
    """
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in redact(str(text)))
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST // 2]} ... {shown[-LONGEST // 3 :]}"


def redact(text: str) -> str:
    """Take out passwords, of addresses and in the environment: all that is shown goes through this."""
    ends = ("_PASSWORD", "_TOKEN", "_ACCESS_KEY")
    known = [value for name, value in os.environ.items() if name.endswith(ends)]
    for name in ADDRESSES:
        user = os.environ.get(name, "").partition("://")[2].rpartition("@")[0]  # also with a slash in it
        text = text.replace(f"{user}@", "") if user else text
        password = user.partition(":")[2]
        known += [password, unquote(password)]
    for secret in known:
        if len(secret) >= SHORTEST:
            text = text.replace(secret, "***")
    return SECRETS.sub(lambda found: found[1] or f"{found[2]}***", text)


def reason(error: BaseException) -> str:
    """Say in one short line what a library's exception says, whatever that is."""
    words = one_line(" ".join(str(error).split()))
    return words[:300] or type(error).__name__


def shown(value: object) -> str:
    """Return the `repr` of a value from a file, shortened: a small file can hold one without end."""
    try:
        return _repr.repr(value)
    except ValueError:  # an integer with more digits than Python writes
        return f"a number of type {type(value).__name__}"


def unknown(where: str, name: str, valid: Iterable[str]) -> str:
    """`where: 'nmae' is unknown; did you mean 'name'? valid: ...`, for one line on stderr."""
    close = difflib.get_close_matches(str(name), valid := sorted(valid), n=1)
    hint = f" did you mean '{close[0]}'?" if close else ""
    return f"{where}: '{name}' is unknown;{hint} valid: {', '.join(valid)}"


def counted(number: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number} {noun}{'s' * (number != 1)}"


class UserError(Exception):
    """Something that the user can put right: bad settings, bad input, a missing server.

    The message is one line that names the file or key, what is wrong and what to do. The command
    line prints it on stderr and exits with code 2; a traceback is kept for our own mistakes.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())
