"""The command `deploytk`, also as `python -m deploytk`."""

# First of all: what this module imports next must not come from a directory that happens to be the working one.
from deploytk.base.import_path import leave_out_command_lines, leave_working_directory

leave_working_directory()
leave_out_command_lines()

import contextlib  # noqa: E402
import gc  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

# Loading modules makes many objects that stay: looking for garbage among them takes a third of the start-up.
gc.disable()

try:
    from deploytk.cli import main
except KeyboardInterrupt:  # nothing has begun
    os._exit(130)


def run() -> None:
    """Run the command, and end at once: nothing is left to do, and taking modules down takes a tenth of a second."""
    gc.set_threshold(100_000)
    gc.enable()
    code: str | int | None = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:  # before or after the command
        code = 130
    with contextlib.suppress(OSError, AttributeError, KeyboardInterrupt):  # nobody reads our output any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    run()
