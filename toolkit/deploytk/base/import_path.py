"""What a command imports, and from where.

Keeps the working directory, which may be a model's, off the path of imports: ours, and that of a Python we start.
"""

import os  # with `sys` the only module that is there before any other; see deploytk.__main__
import sys

_SOURCES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120


def leave_working_directory() -> None:
    """Import nothing from the working directory: `python -m`, or a careless PYTHONPATH, has it on the path."""
    sys.path[:] = [entry for entry in sys.path if not _is_foreign(entry)]


def leave_out_command_lines() -> None:
    """Let httpx not load what its own command line is made of (rich, pygments, click): that is half of its import.

    It does without where these are not installed. A release of httpx that has no such module is not concerned.
    """
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None: an import of it fails


def python_environment(**more: str) -> dict[str, str]:
    """Ours and `more`, for a Python that imports nothing from the working directory or from beside its start file.

    Before 3.11 Python does not know the second half: let it start in a directory without modules.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in given if os.path.isabs(entry) and not _is_foreign(entry)]  # noqa: PTH117
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": os.pathsep.join(kept)} if kept else {}
    return {**environment, "PYTHONSAFEPATH": "1", **more}


def _is_foreign(entry: str) -> bool:
    """Whether that is the working directory, unless deploytk itself is run from there."""
    try:
        is_here = os.path.samefile(entry or os.curdir, os.curdir)  # noqa: PTH121
        return is_here and not os.path.samefile(_SOURCES, os.curdir)  # noqa: PTH121
    except (OSError, ValueError):
        return not entry
