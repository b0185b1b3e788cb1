"""README and docs/ say what is true: programs, flags and links exist, the README is one page."""

import functools
import importlib
import pathlib
import re

import pytest
from absl import flags

from experiments.program import define_flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
    if path.name not in ("log.md", "results.md")  # Records of what was true on their day.
]
README = (ROOT / "README.md").read_text()
PROGRAM = re.compile(r"python -m ((?:experiments|launchers)\.\w+)")
PROGRAMS = [
    *(
        f"{path.parent.name}.{path.stem}"
        for folder in ("experiments", "launchers")
        for path in sorted((ROOT / folder).glob("*.py"))
        if path.stem not in ("__init__", "program", "topology")
    ),
    "jaxcritique.grading.__main__",
]
FOLDERS = re.compile(r"\b((?:experiments|jaxcritique|launchers|tests)/[\w./-]*\w)")


def pages(test):
    return pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)(test)


def blocks(page: pathlib.Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: pathlib.Path) -> list[str]:
    """The commands in its shell blocks, one a line, without comments."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    return [line for part in lines.splitlines() for line in part.split("&&") if "python" in line]


@functools.cache
def flags_of(program: str) -> frozenset[str]:
    """The flags of a program, by its module's name."""
    source = (ROOT / f"{program.replace('.', '/')}.py").read_text()
    if "CONFIGS" not in source:
        return frozenset(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", source))
    values = flags.FlagValues()
    define_flags(importlib.import_module(program).CONFIGS, values)
    return frozenset(values) | {"flagfile", "verbosity", "help", "helpfull"}


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_readme_is_one_page():
    assert len(README.splitlines()) <= 150


@pages
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, target


@pages
def test_programs_and_paths_exist(page):
    text = page.read_text()
    for program in set(re.findall(r"\bexperiments\.(\w+)", text)) - {"NAME"}:
        path = ROOT / "experiments" / program
        assert path.is_dir() or path.with_suffix(".py").is_file(), program
    for name in set(FOLDERS.findall(text)):
        if "NAME" not in name:
            assert (ROOT / name).exists() or list(ROOT.glob(f"{name}*")), name


@pages
def test_commands_have_only_flags_that_their_programs_take(page):
    for command in commands(page):
        program = PROGRAM.search(command)
        if program is None or program[1].endswith(".NAME"):
            continue
        for name in re.findall(r"\s--(\w+)", command.partition(" -- ")[0]):
            assert {name, name.removeprefix("no")} & flags_of(program[1]), f"{program[1]}: {name}"
        for file in re.findall(r"--flagfile=(\S+)", command):
            assert (ROOT / file).is_file(), file


@pages
def test_flags_that_are_named_exist_somewhere(page):
    known = set().union(*map(flags_of, PROGRAMS))
    for name in re.findall(r"`--(\w+)", page.read_text()):
        assert {name, name.removeprefix("no")} & known, f"no program has --{name}"


def test_the_first_code_of_the_readme_does_what_it_says():
    first, *_ = blocks(ROOT / "README.md", "python")
    *statements, verdict = first.strip().splitlines()
    names: dict = {}
    exec("\n".join(statements), names)
    assert not names["critique"].says_correct
    assert names["critique"].first_error == 0
    assert "20-2=18, not" in names["critique"].text
    assert repr(eval(verdict, names)).replace("'", '"') == verdict.rpartition("# ")[2]
    names["player"].close()
