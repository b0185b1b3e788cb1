"""What `python -m experiments.benchmark` measures, one module for each suite."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Measured(NamedTuple):
    """The results of a suite."""

    table: list[Sequence[str]]  # The header first.
    footnote: str
    figures: dict[str, Any]  # For the JSON file.
