"""What every program here starts with: quiet logs, and wrong input refused in one line."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from absl import app, flags, logging


def run(main: Callable[[list[str]], None]) -> None:
    """Runs `main` as an absl program; libraries' INFO lines show only with --verbosity=0."""

    def quietly(argv: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        main(argv)

    app.run(quietly)


@contextlib.contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Within the block, what is wrong with flags and files ends the program, without a trace.

    For reading input only, so that a fault of the program itself keeps its traceback.
    """
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
