"""Takes the picture of the README, docs/screenshots/tour.svg: python tools/take_pictures.py, or `make pictures`.

The commands run here, in a terminal, on the tiny workspace that deploytk ships; the CPU answers. What is shown is what
they said: of each the first lines, and an ellipsis where more came; the directory is called /home/me. The picture
loads nothing, no font either.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

from rich.console import Console
from rich.text import Text

from deploytk.base.shipped import shipped

PLACE = Path(__file__).resolve().parents[1] / "docs" / "screenshots"
COLUMNS = 104

TOUR = (  # a command, and how many of its lines are shown
    ("deploytk inspect ./workspace_hfmerge", 15),
    ("deploytk modernize ./workspace_hfmerge -o ./internlm-chat-7b-awq --quiet", 5),
    ("deploytk plan ./internlm-chat-7b-awq --gpu A10 --session-len 2048", 9),
    ("deploytk smoke ./internlm-chat-7b-awq --engine cpu --requests 12 --quiet", 8),
    ("deploytk publish ./internlm-chat-7b-awq --target local --repo ./hub --quiet", 6),
)


def main() -> None:
    """Run the tour in a new directory and write its picture."""
    with tempfile.TemporaryDirectory(prefix="tour-") as place:
        shutil.copytree(shipped("models") / "workspace-0.4.2-awq", Path(place, "workspace_hfmerge"))
        console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
        for command, lines in TOUR:
            console.print(Text.assemble(("$ ", "green"), (command, "bold")))
            console.print(_shown(_said(command, place), lines))
        picture = _without_fonts(console.export_svg(title="deploytk", unique_id="tour"))
    (PLACE / "tour.svg").write_text(picture, encoding="utf-8")


def _said(command: str, place: str) -> str:
    """What a command says to a terminal. Raises SystemExit with it where the command fails."""
    leader, follower = pty.openpty()
    ioctl(follower, TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    program, *words = shlex.split(command)
    run = subprocess.Popen(
        [Path(sys.executable).with_name(program), *words],
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)},
    )
    os.close(follower)
    said = b""
    with suppress(OSError), open(leader, "rb", buffering=0) as terminal:  # noqa: PTH123 (a descriptor)
        while chunk := terminal.read(65536):
            said += chunk
    text = said.decode(errors="replace").replace("\r\n", "\n")
    if run.wait() not in (0, 4):  # 4: this machine was too busy to judge
        raise SystemExit(f"{command} failed:\n{text}")
    return text.replace(place, "/home/me")


def _shown(said: str, most: int) -> Text:
    lines = [line for line in said.splitlines() if re.sub(r"\x1b\[[\d;]*m", "", line).strip()]
    return Text.from_ansi("\n".join([*lines[:most], *(["\x1b[2m…\x1b[0m"] if len(lines) > most else []), ""]))


def _without_fonts(picture: str) -> str:
    """Without the fonts that rich would load from a server: the reader's own will do."""
    return re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)


if __name__ == "__main__":
    main()
