"""What is installed without this checkout, and with which dependencies."""

import os
import pathlib
import re
import shutil
import site
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable

import absl
import mpmath
import pytest
import sympy
import tqdm

from jaxcritique.extras import TRAIN

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def distributions(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


@pytest.fixture(scope="module")
def grader_only(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function: arguments -> Python with the base dependencies alone, as it ended."""
    assert distributions(PROJECT["dependencies"]) == {"absl-py", "sympy", "tqdm"}
    folder = tmp_path_factory.mktemp("site")
    for module in (absl, mpmath, sympy, tqdm):  # sympy needs mpmath.
        source = pathlib.Path(module.__file__).parent
        (folder / source.name).symlink_to(source)
    for package in ("jaxcritique", "experiments"):
        (folder / package).symlink_to(ROOT / package)
    empty = tmp_path_factory.mktemp("empty")

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        return subprocess.run(
            [sys.executable, "-S", *arguments],
            cwd=empty, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return python


def test_the_grader_needs_the_base_dependencies_only(grader_only):
    done = grader_only(
        "-c",
        "import jaxcritique as jc, sys\n"
        "assert jc.Problem and jc.TINY_BASE and jc.load_problems\n"
        "print(jc.grade(r'\\frac{1}{2}', 'The answer is 0.5.').verdict)\n"
        "with jc.Grader(1) as grader:\n"
        "    [one] = grader.grade_all([(r'\\sqrt{3+2\\sqrt2}', r'1+\\sqrt{2}')], 'answer')\n"
        "print(one.verdict, 'jax' in sys.modules)",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["correct", "correct", "False"]


def test_a_call_says_which_extra_it_needs(grader_only):
    done = grader_only("-c", "import jaxcritique as jc\njc.load(jc.TINY_BASE)")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: `jaxcritique.load` needs flax, ")
    assert last.endswith("pip install 'jaxcritique[train]'")


def test_a_program_says_which_extra_it_needs(grader_only):
    done = grader_only("-m", "experiments.self_improve", "--run_dir=run")
    assert done.returncode == 1
    assert done.stderr.startswith("error: This program needs flax, ")
    assert done.stderr.endswith("pip install 'jaxcritique[train]'\n")
    assert len(done.stderr.splitlines()) == 1


def test_the_extra_s_modules_are_those_of_its_distributions():
    dist = distributions(PROJECT["optional-dependencies"]["train"])
    assert {name.removesuffix("-checkpoint") for name in dist} == set(TRAIN)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    """Built from the sdist, and that from a copy, so that nothing is left in the checkout."""
    sources, output = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in ("jaxcritique", "experiments", "launchers"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(output)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=sources, check=True, capture_output=True)
    [sdist] = output.glob("*.tar.gz")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, f"--wheel-dir={output}", str(sdist)], check=True, capture_output=True)
    [wheel] = output.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_wheel_holds_every_file(wheel):
    files = {
        str(path.relative_to(ROOT))
        for package in ("jaxcritique", "experiments", "launchers")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files <= set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def installed(wheel, program_environment, tmp_path_factory):
    """Returns a function: arguments -> Python of an environment with the wheel, as it ended.

    What the wheel depends on is found in the environment of the tests, in which jaxcritique itself
    is not: a path in a .pth file does not read the .pth files there.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    environment = {k: v for k, v in program_environment.items() if k != "PYTHONPATH"}
    install = ["install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, *install], env=environment, check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "tests.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    empty = tmp_path_factory.mktemp("empty")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(python), *arguments], cwd=empty, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done

    run.packages, run.folder = packages, empty
    return run


@pytest.mark.slow
def test_the_api_from_an_empty_folder(installed):
    code = """
import jaxcritique as jc
player = jc.load(jc.TINY_BASE)
question = "Tom has 3 apples. Tom buys 4 more apples. How many apples does Tom have now?"
solution = player.solve(question)
refinement = player.refine(player.critique(solution))
print(jc.__file__, jc.__version__, jc.grade("7", refinement.text).verdict)
"""
    file, version, verdict = installed("-c", code).stdout.split()
    assert pathlib.Path(file).is_relative_to(installed.packages)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert verdict in ("correct", "wrong", "unparsable")


@pytest.mark.slow
def test_the_quickstart_s_flagfile_from_an_empty_folder(installed):
    """At tiny sizes: training, sampling, grading, the report's templates."""
    smallest = {
        "train_problems": 10, "explore_problems": 5, "test_problems": 10, "refine_examples": 5,
        "iterations": 1, "critiques": 1, "epochs": 1, "critic_epochs": 1, "max_flawed": 8,
        "rg1_samples": 1, "filter_refinements": 2, "rows": 4, "micro_rows": 4, "sequence": 256,
        "actor_tokens": 60, "critic_tokens": 60, "slots": 32, "tau": 0,
    }  # fmt: skip
    installed(
        *("-m", "experiments.self_improve"),
        *("--flagfile=experiments/flagfiles/quickstart.flags", "--run_dir=run"),
        *(f"--{name}={value}" for name, value in smallest.items()),
    )
    assert (installed.folder / "run" / "results.json").is_file()


@pytest.mark.slow
def test_the_reproduction_s_plan_from_an_empty_folder(installed):
    plan = ("--flagfile=experiments/flagfiles/reproduce_laptop.flags", "--run_dir=all", "--dry_run")
    printed = installed("-m", "experiments.reproduce", *plan).stdout
    assert "python -m experiments.self_improve" in printed
    assert str(installed.packages / "experiments" / "flagfiles" / "laptop") in printed
