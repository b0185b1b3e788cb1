"""Errors that the caller can fix. Programs print them as one line, without a traceback.

A message names a setting in backticks, as `rows` or `rows=3`; programs write it as the flag it is,
`--rows=3`.
"""

import contextlib
from collections.abc import Iterator


class InvalidInput(ValueError):
    """A setting, a file or a folder cannot be used; the message says why and what to do."""


@contextlib.contextmanager
def checking_input() -> Iterator[None]:
    """Raises what reading and checking input raises as `InvalidInput`.

    For input only, so that a fault of our own keeps its type and its traceback.
    """
    try:
        yield
    except InvalidInput:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise InvalidInput(str(error)) from error
