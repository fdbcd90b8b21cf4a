"""Makes text of a server, a model, a file or a hub printable: it moves no cursor and sets no title."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, ConsoleRenderable
    from rich.segment import Segment

COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1: among them ESC and CSI
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # write from the other side from here on
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # line ends that are none, marks, annotations
    "\U000e0000-\U000e007f\ud800-\udfff]"  # invisible tags; halves of characters, which no stream takes
)
"""What a terminal obeys, or shows as what it is not."""


def printable(text: str) -> str:
    """`text` with whatever a terminal obeys, or shows as what it is not, written as an escape: \\x1b, \\u202e."""
    return COMMANDS.sub(_escape, text)


def one_line(text: str, most: int = 300) -> str:
    """At most so many characters of `text`, on one line: nobody else's text starts a line of ours."""
    return " ".join(printable(text[: 4 * most]).split())[:most]


class Stripped:
    """A text that comes in pieces, without whatever a terminal obeys: whole sequences go, wherever the pieces end."""

    def __init__(self) -> None:
        self._held = ""  # the start of a sequence whose end has not come

    def feed(self, piece: str) -> str:
        """What of all that came so far can be shown, and was not shown yet."""
        text = self._held + piece
        begun = _BEGUN.search(text)
        at = begun.start() if begun and len(text) - begun.start() < _LONGEST_SEQUENCE else len(text)
        self._held = text[at:]
        return COMMANDS.sub("", _SEQUENCES.sub("", text[:at]))


# CSI, then the strings (OSC, DCS, SOS, PM, APC) with their end, then what is an ESC and one letter; 8 bits or 7.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x9c|\x1b\\)"
    r"|\x1b[ -/]*[0-OQ-WYZ\\`-~]"
)
_BEGUN = re.compile(
    r"(?:(?:\x1b\[|\x9b)[0-?]*[ -/]*|(?:\x1b[]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*\x1b?|\x1b[ -/]*)\Z"
)
_LONGEST_SEQUENCE = 4096  # one that goes on is none: what it begins with is taken out, the rest shown


def quoted(word: object) -> str:
    """A path or a name as it stands in a command line to be pasted."""
    return shlex.quote(str(word))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def console(*, is_stderr: bool = False) -> Console:
    """A console of rich that shows nothing but printable text, in whatever is given to it."""
    from rich.console import Console, RenderHook

    made = Console(highlight=False, markup=False, emoji=False, stderr=is_stderr)
    made.push_render_hook(cast(RenderHook, _Hook()))
    return made


class _Hook:
    """Called by rich with all that is about to be shown."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Printable(one) for one in renderables]


class _Printable:
    """A renderable whose text is printable; the styles around it stay."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        from rich.segment import Segment

        for one in console.render(self._inner, options):
            yield one if one.control else Segment(printable(one.text), one.style)
