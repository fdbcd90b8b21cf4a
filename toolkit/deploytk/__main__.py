"""The command `deploytk`, also as `python -m deploytk`."""

import gc

# Loading modules makes many objects that stay: looking for garbage among them takes a third of the start-up.
gc.disable()

from deploytk.cli import main  # noqa: E402

gc.set_threshold(100_000)
gc.enable()

if __name__ == "__main__":
    main()
