import ast
import dataclasses
import importlib
import inspect
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jaxcritique as jc
from jaxcritique.prompts.templates import COMPACT, FULL, PromptSet
from jaxcritique.records import Verdict

# The tiny base solves it wrongly, sees the mistake, and mends it.
QUESTION = "Tom has 30 apples. Tom gives 12 apples to Ben. How many apples does Tom have now?"
OTHER = "Anna has 5 eggs. Anna loses 2 eggs. How many eggs does Anna have now?"
SMALL = jc.TINY_BASE.parent / "tiny_base_64x3"  # For tests that do not depend on what it writes.
SFT = jc.SftConfig(rows=4, micro_rows=2, sequence=512, learning_rate=1e-4)

# In a new process and an empty folder: what README shows first.
SNIPPET = f"""
import json, sys
import jaxcritique as jc

heavy = {{"jax", "jaxlib", "flax", "numpy", "torch", "transformers", "sympy", "absl"}}
at_import = sorted(name for name in heavy if sys.modules.get(name))
verdict = jc.grade("7", "The answer is 7.").verdict
after_grading = sorted(name for name in heavy - {{"sympy", "absl"}} if sys.modules.get(name))

player = jc.load(jc.TINY_BASE)
solution = player.solve({QUESTION!r})
critique = player.critique(solution)
refinement = player.refine(critique)
print(json.dumps([
    at_import, verdict, after_grading, solution.text, critique.says_correct, critique.first_error,
    critique.text, refinement.text, jc.grade("18", refinement.text).verdict
]))
"""


@pytest.fixture(scope="module")
def player():
    with jc.load(jc.TINY_BASE) as player:
        yield player


@pytest.fixture(scope="module")
def problems():
    return jc.load_problems("word_problems", None, "train", 12, seed=0)


def test_the_snippet_in_a_new_process_and_an_empty_folder(program_environment, tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", SNIPPET],
        cwd=tmp_path,
        env=program_environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""  # No bar for single samples, no message of a library.
    at_import, graded, after_grading, solution, *criticised, refinement, verdict = json.loads(
        process.stdout
    )
    assert (at_import, graded, after_grading) == ([], "correct", [])
    assert solution == "That leaves <<30-12=28>>28 apples.\nThe answer is 28."
    assert criticised[:2] == [False, 0]
    assert "30-10=20, 20-2=18" in criticised[2]
    assert refinement == "That leaves <<30-12=18>>18 apples.\nThe answer is 18."
    assert verdict == "correct"
    assert list(tmp_path.iterdir()) == []


def test_every_public_name_is_there_and_documented():
    assert jc.__version__.count(".") == 2
    assert {"load", "Player", "fine_tune", "build_critiques", "self_improve"} <= set(jc.__all__)
    assert {"evaluate", "Grader", "grade", "Problem", "EngineConfig"} <= set(jc.__all__)
    assert set(jc.__all__) <= set(dir(jc))
    for name in set(jc.__all__) - {"TINY_BASE"}:
        assert len(inspect.getdoc(getattr(jc, name))) > 15, name
    with pytest.raises(AttributeError, match="has no attribute 'sovle'"):
        _ = jc.sovle


def test_editors_see_the_names_that_are_imported_lazily():
    [block] = (node for node in ast.parse(inspect.getsource(jc)).body if isinstance(node, ast.If))
    imports = {a.name: node.module for node in block.body for a in node.names}
    assert sorted(imports) == sorted(jc.__all__)
    for name, module in imports.items():
        assert getattr(importlib.import_module(module), name) is getattr(jc, name)


@pytest.mark.parametrize("role", ["solve", "critique", "refine"])
def test_results_have_the_shape_of_what_is_given(role, player):
    items = [QUESTION, OTHER]
    if role != "solve":
        items = player.solve(items)
    if role == "refine":
        items = player.critique(items)
    sample = getattr(player, role)
    single = [sample(item) for item in items]
    assert {type(record) for record in single} <= {jc.Solution, jc.Critique, jc.Refinement}
    assert sample(items) == single == sample(iter(items))
    settings = {"temperature": 0.7, "seed": 1}
    groups = sample(items, n=4, **settings)
    assert [len(group) for group in groups] == [4, 4]
    assert sample(items[0], n=4, **settings) == groups[0]
    assert sample(items, n=1) == [[record] for record in single]
    assert sample([]) == sample([], n=4) == []


def test_the_same_call_gives_the_same_texts(player):
    drawn = player.solve([QUESTION] * 2, n=4, temperature=1.0, seed=1)
    assert player.solve([QUESTION] * 2, n=4, temperature=1.0, seed=1) == drawn
    assert player.solve([QUESTION] * 2, n=4, temperature=1.0, seed=2) != drawn
    assert drawn[0] != drawn[1]  # The same question twice is sampled twice.
    again = jc.load(jc.TINY_BASE)
    assert again.solve(QUESTION, n=4, temperature=1.0, seed=1) == drawn[0]


def test_a_second_call_compiles_nothing(player):
    player.solve(QUESTION)
    shapes = set(player.sampler.shapes)
    player.solve(OTHER)
    assert player.sampler.shapes == shapes


def test_only_what_has_an_answer_is_graded(player):
    assert "ungraded" in Verdict.__args__
    known = [jc.Problem.asked(QUESTION, answer) for answer in ("28", "18", "")]
    solutions = player.solve([*known, QUESTION])
    assert [s.verdict for s in solutions] == ["correct", "wrong", "ungraded", "ungraded"]
    assert [s.answer for s in solutions] == ["28"] * 4
    assert [s.correct for s in solutions] == [True, False, False, False]
    refinements = player.refine(player.critique(solutions))
    assert [r.verdict for r in refinements] == ["wrong", "correct", "ungraded", "ungraded"]
    record = jc.to_json(solutions[-1])
    assert jc.from_json(jc.Solution, json.loads(json.dumps(record))) == solutions[-1]


def test_rounds_and_self_correction(player):
    solution = player.solve(QUESTION)
    first = player.refine(player.critique(solution))
    second = player.critique(first)
    assert second.solution.text == first.text
    assert player.refine(solution).critique.text == ""


def test_actor_and_critic_beside_each_other(player):
    with jc.load(jc.TINY_BASE.parent / "tiny_base_128x2") as actor:
        solutions = actor.solve([QUESTION, OTHER], n=2, temperature=0.7)
        critiques = [player.critique(group) for group in solutions]
        assert actor.solve([QUESTION, OTHER], n=2, temperature=0.7) == solutions
    assert [len(group) for group in critiques] == [2, 2]
    with pytest.raises(jc.InvalidInput, match=r"tiny_base_128x2.* is closed"):
        actor.solve(QUESTION)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.solve(""), jc.InvalidInput, "the question is empty"),
        (lambda p: p.solve([QUESTION, " \n"]), jc.InvalidInput, "the question is empty"),
        (lambda p: p.solve(QUESTION, n=0), jc.InvalidInput, "`n=0` must be at least 1"),
        (lambda p: p.solve(QUESTION, max_tokens=0), jc.InvalidInput, "`max_tokens=0`"),
        (lambda p: p.solve(QUESTION, temperature=-1), jc.InvalidInput, "`temperature=-1`"),
        (lambda p: p.solve(QUESTION, temperature=math.nan), jc.InvalidInput, "`temperature=nan`"),
        (lambda p: p.solve(80 * QUESTION), jc.SamplerError, "tokens, the context 1024"),
        (lambda p: p.solve(7), TypeError, "expected str or Problem, not int: 7"),
        (lambda p: p.critique("no record"), TypeError, "expected Solution or Refinement, not str"),
        (lambda p: p.save("here"), jc.InvalidInput, "was not fine-tuned here"),
        (lambda p: p.solve({"question": QUESTION}), TypeError, "not dict"),
        (lambda p: p.solve(b"3 + 4"), TypeError, "not bytes"),
        (lambda p: jc.load("a/b"), jc.InvalidInput, "a/b: no such folder. Models are not downl"),
        (lambda p: jc.load("/"), jc.InvalidInput, "/ has no config.json"),
        (lambda p: jc.load(jc.TINY_BASE, engine="server"), TypeError, "must be an EngineConfig"),
        (lambda p: jc.fine_tune(p, jc.Problem.asked("1+1?")), TypeError, "must be a list"),
        (lambda p: jc.grade(18, "18"), TypeError, "must be texts, not int: 18"),
        (lambda p: jc.grade("18", 18), TypeError, "must be texts, not int: 18"),
        (lambda p: jc.load(jc.TINY_BASE, prompts="x"), jc.InvalidInput, "full, compact"),
        (lambda p: p.solve(QUESTION, n=2.5), TypeError, "float"),
        (lambda p: jc.fine_tune(p, []), jc.InvalidInput, "no examples"),
        (lambda p: jc.fine_tune(p, ["text"]), TypeError, "expected an Example or a record"),
        (
            lambda p: p.build_critiques([jc.Problem.asked(QUESTION)]),
            jc.InvalidInput,
            "has no answer",
        ),
    ],
)
def test_what_cannot_be_done_is_said(call, error, message, player):
    with pytest.raises(error, match=message):
        call(player)


def test_one_prompt_that_is_too_long_loses_no_other(player, caplog):
    good, failed = player.solve([QUESTION, 80 * QUESTION])
    assert good == player.solve(QUESTION)
    assert (failed.text, failed.answer, failed.tokens) == ("", None, 0)
    assert "1 of 2 samples failed (the prompt has" in caplog.text


def test_any_language_and_a_model_without_a_chat_template(player, tmp_path):
    question = "Zoë hat 3 Äpfel 🍎 und kauft 4.\u2028Wie viele {hat} sie?"
    assert player.solve(question).problem.question == question
    folder = shutil.copytree(jc.TINY_BASE, tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("chat_template", None)
    path.write_text(json.dumps(settings))
    assert jc.load(folder).solve(question, max_tokens=8).tokens <= 8


def test_the_prompts_a_model_was_trained_on_travel_with_it(player, tmp_path):
    assert player.prompts == COMPACT
    assert jc.load(jc.TINY_BASE, prompts="full").prompts == FULL
    folder = shutil.copytree(jc.TINY_BASE, tmp_path / "other")
    (folder / "jaxcritique.json").unlink()
    assert jc.load(folder).prompts == FULL
    (folder / "jaxcritique.json").write_text('{"prompts": "short"}')
    with pytest.raises(jc.InvalidInput, match=r"jaxcritique.json: not .*full, compact"):
        jc.load(folder)


@pytest.mark.slow
def test_fine_tuning_in_memory_and_saving(problems, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    small = jc.load(SMALL)
    tuned = jc.fine_tune(small, problems, SFT, seed=3)
    again = jc.fine_tune(SMALL, problems, SFT, seed=3)
    [loss] = [step["loss"] for step in tuned.trained.history]
    assert [step["loss"] for step in again.trained.history] == [loss]
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    questions = [problem.question for problem in problems]
    solutions = tuned.solve(questions, max_tokens=40)
    assert solutions != small.solve(questions, max_tokens=40)
    for _ in range(2):  # It may replace an earlier save, and nothing else.
        tuned.save("tuned")
    Path("notes").mkdir()
    Path("notes/thesis.tex").write_text("mine")
    for other in ("notes", "notes/thesis.tex", "."):
        with pytest.raises(jc.InvalidInput, match="holds something else"):
            tuned.save(other)
    assert Path("notes/thesis.tex").read_text() == "mine"
    with jc.load("tuned") as loaded:
        assert loaded.prompts == COMPACT
        assert loaded.solve(questions, max_tokens=40) == solutions
    assert jc.fine_tune(tuned, problems, SFT).trained.history[0]["loss"] < loss
    tuned.close()
    assert jc.fine_tune(tuned, problems, SFT).trained.history[0]["loss"] < loss


@pytest.mark.slow
def test_fine_tuning_into_a_folder(problems, tmp_path):
    small = jc.load(SMALL)
    examples = [small.example(problem, weight=0.5) for problem in problems]
    tuned = jc.fine_tune(small, examples, SFT, folder=tmp_path / "sft")
    assert (tmp_path / "sft" / "metrics.jsonl").is_file()
    assert PromptSet.read(tmp_path / "sft" / "model") == COMPACT
    with jc.load(tmp_path / "sft" / "model") as loaded:
        assert loaded.solve(QUESTION, max_tokens=40) == tuned.solve(QUESTION, max_tokens=40)
    with pytest.raises(jc.InvalidInput, match="holds a run with another `examples`"):
        jc.fine_tune(small, examples[1:], SFT, folder=tmp_path / "sft")


@pytest.mark.slow
def test_a_finished_fine_tuning_is_the_base_of_the_same_one_again(problems, tmp_path):
    """Resumed, it has no history; what it is known by must not depend on that."""
    one, other = problems[:1], problems[1:2]
    sft = dataclasses.replace(SFT, epochs=20)  # As many steps as there are between checkpoints.
    for again in (False, True):
        first = jc.fine_tune(SMALL, one, sft, folder=tmp_path / "first")
        second = jc.fine_tune(SMALL, other, sft, folder=tmp_path / "second")
        assert again == (first.trained.history == second.trained.history == [])
        jc.fine_tune(first, problems, SFT, folder=tmp_path / "on")
        with pytest.raises(jc.InvalidInput, match="holds a run with another `base`"):
            jc.fine_tune(second, problems, SFT, folder=tmp_path / "on")


def test_a_refused_fine_tuning_leaves_its_folder_free(problems, tmp_path):
    with pytest.raises(jc.InvalidInput, match="no examples"):
        jc.fine_tune(SMALL, [], SFT, folder=tmp_path / "sft")
    assert list(tmp_path.iterdir()) == []


def test_examples_of_records(player, problems):
    solution = player.solve(problems[0])
    critique = player.critique(solution)
    refinement = player.refine(critique)
    examples = [player.example(r) for r in (problems[0], solution, critique, refinement)]
    assert [e.reply for e in examples] == [
        problems[0].rationale, solution.text, critique.text, refinement.text,
    ]  # fmt: skip
    assert [len(e.messages) for e in examples] == [1, 1, 1, 3]
    assert isinstance(examples[0], jc.Example)
    with pytest.raises(jc.InvalidInput, match="without text cannot be learnt"):
        player.example(jc.Problem.asked(QUESTION))


@pytest.mark.slow
def test_building_critiques_in_memory(player, problems, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problems = problems[:6]
    config = jc.CritiqueDataConfig(
        rg1_samples=2, rg2_rounds=0, rg3_attempts=1, max_flawed=6, filter_refinements=2
    )
    critiques = player.build_critiques(problems, config, seed=1, max_tokens=140)
    assert player.build_critiques(problems, config, seed=1, max_tokens=140) == critiques
    assert {c.says_correct for c in critiques} == {True, False}
    assert all(c.says_correct == c.solution.correct for c in critiques)
    assert all(player.example(c).reply for c in critiques)
    assert player.build_critiques([]) == []
    by_model = player.build_critiques(problems, config, annotator=player, max_tokens=140)
    assert all(c.says_correct == c.solution.correct for c in by_model)
    assert list(tmp_path.iterdir()) == []
