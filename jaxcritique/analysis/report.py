"""HTML pages that need no other file."""

import datetime
import pathlib
from collections.abc import Iterator
from typing import Any

import jinja2

from jaxcritique.analysis.intervals import RESAMPLES
from jaxcritique.analysis.table import percent
from jaxcritique.prompts.critique import split_steps
from jaxcritique.store import write_atomically


def write_page(
    template: str,
    results: Any,
    path: pathlib.Path,
    templates: str = "jaxcritique.analysis",
    **parts: Any,
) -> None:
    """Writes a page. Everything put into it is escaped: text of models is untrusted.

    Args:
      template: a file that extends `page.html.jinja`.
      results: as an object (`run_folder.Results`) or as read from results.json.
      path: of the page.
      templates: the package that holds the template.
      **parts: further variables of the template.

    Raises:
      jinja2.UndefinedError: the template names what is missing in `results` and `parts`.
    """
    packages = dict.fromkeys([templates, "jaxcritique.analysis"])
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package, "") for package in packages]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = percent
    environment.filters["hms"] = lambda seconds: str(datetime.timedelta(seconds=round(seconds)))
    page = environment.get_template(template)
    write_atomically(path, page.render(results=results, resamples=RESAMPLES, **parts))


def marked_lines(response: str, first_error: int | None) -> Iterator[tuple[str, bool]]:
    """Yields the response's lines, each with whether it is step `first_error` (from 0)."""
    steps = 0
    for line in response.splitlines():
        is_step = bool(split_steps(line))
        yield line, is_step and steps == first_error
        steps += is_step
