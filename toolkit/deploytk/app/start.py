"""Starts the app of this bundle: a chat page and an OpenAI-style API on one port.

    python app.py

The app is in deploytk_app/, which deploytk alone fills; the rest of this directory is the model's, and of a model no
code runs: nothing is imported from here or from the working directory.
"""

import os  # with `sys` the only module that is there before this one runs; the path must be clean for all others
import sys

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
ROOM = "deploytk_app"


def leave_path() -> None:
    """Take this directory, all that is in it, and the working directory off the path of imports."""
    foreign = [HERE, os.path.dirname(os.path.realpath(__file__)), os.curdir]  # noqa: PTH120
    marks = {_mark(place) for place in foreign} - {None, _mark(os.path.dirname(os.__file__))}  # noqa: PTH120
    inside = os.path.realpath(HERE) + os.sep
    environment = os.path.realpath(sys.prefix) + os.sep  # one that is in here is its user's own

    def is_ours(entry: str) -> bool:
        place = os.path.realpath(entry) + os.sep
        is_inside = place.startswith(inside) and not (environment.startswith(inside) and place.startswith(environment))
        return bool(entry) and not is_inside and _mark(entry) not in marks

    sys.path[:] = [entry for entry in sys.path if is_ours(entry)]
    # The engine, and whatever it starts, gets no such path either; Python 3.11 and later know the second.
    given = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in given if os.path.isabs(entry) and is_ours(entry)]  # noqa: PTH117
    os.environ.update({"PYTHONPATH": os.pathsep.join(kept)} if kept else {}, PYTHONSAFEPATH="1")


def _mark(place: str) -> "tuple[int, int] | None":
    """What tells a directory from all others, whatever its name; None when there is none."""
    try:
        found = os.stat(place)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def open_room() -> None:
    """Let deploytk_app be imported from its sources alone: no cache or library beside them is taken for a module."""
    from importlib.abc import MetaPathFinder
    from importlib.machinery import ModuleSpec, SourceFileLoader
    from importlib.util import spec_from_file_location

    class Source(SourceFileLoader):
        def get_code(self, fullname: str) -> object:  # type: ignore[override]
            place = self.get_filename(fullname)
            return self.source_to_code(self.get_data(place), place)

    class Room(MetaPathFinder):
        def find_spec(self, fullname: str, path: object, target: object = None) -> "ModuleSpec | None":  # noqa: ARG002
            package, _, module = fullname.partition(".")
            if package != ROOM:
                return None
            room = os.path.join(HERE, ROOM)  # noqa: PTH118
            place = os.path.join(room, (module or "__init__") + ".py")  # noqa: PTH118
            if not os.path.isfile(place):  # noqa: PTH113
                raise ModuleNotFoundError("No module named " + repr(fullname), name=fullname)
            places = None if module else [room]
            loader = Source(fullname, place)
            return spec_from_file_location(fullname, place, loader=loader, submodule_search_locations=places)

    sys.meta_path.insert(0, Room())


if __name__ == "__main__":
    leave_path()
    open_room()
    import signal
    from importlib import import_module

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while modules are imported would be a traceback
    import_module(ROOM + ".server").main(HERE)
