"""The plan of a reproduction: commands wired from results folders that the tests make."""

import dataclasses
import json
import os
import pathlib
import shlex
import time

import pytest

from experiments.program import read_flagfiles
from experiments.reproduction import parts
from experiments.reproduction.parts import PARTS
from experiments.reproduction.plan import PartRun, ReproductionPlan
from experiments.reproduction.schedule import seconds_left
from jaxcritique.rollout.engines import EngineConfig

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ("sft actor", "vanilla actor", "critique actor", "self_correction actor", "critic")


@pytest.fixture
def plan(tmp_path) -> ReproductionPlan:
    """With a flagfile for every part, one of which names another."""
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "common.flags").write_text("# what all have\n--slots=8\n")
    for part in PARTS:
        text = f"# {part.name}\n--flagfile={settings}/common.flags\n--sequence=64\n"
        (settings / part.flagfile).write_text(text)
    return ReproductionPlan(tmp_path / "run", settings, "base")


def finish(plan: ReproductionPlan, name: str, seed: int = 0, **results) -> None:
    """Makes a part's results folder, and notes it as done."""
    run = plan.run(name, seed)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "results.json").write_text(json.dumps(results))
    run.note(run.wanted(), 10.0)


@pytest.fixture
def improved(plan) -> ReproductionPlan:
    """With self_improve done: one model elsewhere, the others in its folder."""
    models = {name: f"stages/{name.replace(' ', '-')}-77/model" for name in MODELS}
    for path in models.values():
        (plan.run("improve", 0).folder / path).mkdir(parents=True)
    finish(plan, "improve", models={**models, "critic": "base/of/others"})
    return plan


def command(plan: ReproductionPlan, name: str, seed: int = 0) -> list[str]:
    return plan.run(name, seed).command()


def values(flags: list[str], name: str) -> list[str]:
    return [flag.removeprefix(f"--{name}=") for flag in flags if flag.startswith(f"--{name}=")]


def one(flags: list[str], name: str) -> str:
    [value] = values(flags, name)
    return value


def test_names_are_unique_and_every_part_reads_earlier_ones():
    names = [part.name for part in PARTS]
    assert len(set(names)) == len(names)
    for index, part in enumerate(PARTS):
        assert set(part.needs) <= set(names[:index]), part.name


def test_every_part_that_claims_are_read_from_is_in_the_plan():
    wanted = {
        parts.IMPROVE, parts.IMPROVE_SMALL, parts.EVALUATE, parts.VANILLA,
        parts.CRITIQUE, parts.SELF_CORRECTION, parts.CRITICS, parts.CRITICS_LARGE,
        parts.FILTERS, parts.SCALING, parts.SELF_TALK,
    }  # fmt: skip
    assert wanted <= {part.name for part in PARTS}


def test_a_command_has_wiring_then_settings_then_seed_and_folder(improved):
    found = command(improved, "evaluate")
    stages = improved.run("improve", 0).folder / "stages"
    assert found == [
        *("python", "-m", "experiments.evaluate"),
        f"--actor={stages / 'sft-actor-77' / 'model'}",
        "--critic=base/of/others",  # Not within the part's folder: as its results give it.
        f"--flagfile={improved.settings / 'evaluate.flags'}",
        "--seed=0",
        f"--run_dir={improved.run('evaluate', 0).folder}",
    ]


def test_each_actor_is_evaluated_with_the_same_critic(improved):
    actors = {
        name: one(command(improved, name), "actor").split("/")[-2]
        for name in ("evaluate", parts.VANILLA, parts.CRITIQUE, parts.SELF_CORRECTION)
    }
    assert actors == {
        "evaluate": "sft-actor-77",
        "evaluate-vanilla": "vanilla-actor-77",
        "evaluate-critique": "critique-actor-77",
        "evaluate-self-correction": "self_correction-actor-77",
    }
    critics = [one(command(improved, name), "critic") for name in actors]
    assert critics == ["base/of/others"] * 3 + ["self"]


def test_three_critics_learn_the_same_critiques_each_filtered_in_its_way(improved):
    finish(improved, "critiques")
    data = [one(command(improved, f"critic-{k}"), "data") for k in ("none", "soft", "hard")]
    folder = improved.run("critiques", 0).folder
    assert data == [str(folder / f"critic-{kind}.jsonl") for kind in ("none", "soft", "hard")]
    compared = [flag for flag in command(improved, "filters") if flag.startswith("--critic=")]
    assert [pathlib.Path(flag).parts[-2] for flag in compared] == [
        "critic-none", "critic-soft", "critic-hard"
    ]  # fmt: skip


def test_seeds_have_folders_of_their_own(improved):
    assert f"--run_dir={improved.run('improve', 1).folder}" in command(improved, "improve", 1)
    with pytest.raises(ValueError, match="improve has no results yet"):
        command(improved, "evaluate", 1)
    shown = improved.run("evaluate", 1).command(shown=True)
    assert "--actor={improve:sft actor}" in shown


def test_a_model_that_is_not_there_is_named(plan):
    finish(plan, "improve", models={"critic": "there"})
    with pytest.raises(ValueError, match="names no model 'sft actor', only critic"):
        command(plan, "evaluate")
    assert not plan.run("evaluate", 0).done()
    # Its flags can be looked at all the same, as those of parts whose inputs are not there yet.
    shown = plan.run("evaluate", 0).command(shown=True)
    assert {"--actor={improve:sft actor}", "--critic=there"} <= set(shown)


# ---- what is done


def test_a_part_is_done_once_it_has_results_by_the_same_command(improved):
    run = improved.run("evaluate", 0)
    assert not run.done()
    finish(improved, "evaluate")
    assert run.done()
    elsewhere = ReproductionPlan(improved.run_dir, improved.settings, "another/base")
    assert not elsewhere.run("improve", 0).done()  # Its command names the base.
    assert not PartRun(
        elsewhere, run.part, 0
    ).done()  # And so what was made of it is not done either.


def test_other_settings_undo_a_part_and_what_reads_it(improved):
    finish(improved, "evaluate")
    path = improved.settings / "common.flags"
    path.write_text(path.read_text() + "# a remark\n")
    assert improved.run("evaluate", 0).done()
    path.write_text(path.read_text() + "--slots=9\n")
    assert not improved.run("evaluate", 0).done()
    assert not improved.run("improve", 0).done()


def test_other_inputs_undo_a_part(improved):
    finish(improved, "critiques")
    finish(improved, "critic-soft")
    finish(improved, "critiques", rows=3)
    assert improved.run("critiques", 0).done()
    assert not improved.run("critic-soft", 0).done()


def test_the_same_outcome_in_another_time_undoes_nothing(improved):
    finish(improved, "critiques", rows=3, wall_seconds=60.0)
    finish(improved, "critic-soft")
    finish(improved, "critiques", rows=3, wall_seconds=2.0, peak_rss_bytes=1)
    assert improved.run("critic-soft", 0).done()


def test_seconds_of_all_starts_are_added(improved):
    run = improved.run("improve", 0)
    run.note(run.wanted(), 5.0, failed=True)
    assert not run.done()
    run.note(run.wanted(), 7.0)
    assert run.record().seconds == 10 + 5 + 7
    assert run.done()


def test_seconds_of_settings_that_were_replaced_are_not_counted(improved):
    run = improved.run("improve", 0)
    path = run.flagfile
    path.write_text(path.read_text() + "--slots=9\n")
    run.note(run.wanted(), 7.0)
    assert run.record().seconds == 7


def test_critics_are_called_what_they_are_here(improved):
    finish(improved, "critiques")
    finish(improved, "critics")
    rows = [
        {"problem": "p", "method": "base", "metric": "helpfulness", "score": 0.0},
        {"problem": "p", "method": "base/of/others", "metric": "helpfulness", "score": 1.0},
    ]
    path = improved.run("critics", 0).folder / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = improved.run("critics", 0).output().scores
    assert {row["method"]: row["score"] for row in scores} == {"untrained": 0.0, "trained": 1.0}


def test_a_critic_that_nothing_could_train_is_the_base_and_no_more(improved):
    finish(improved, "improve", models={**dict.fromkeys(MODELS, "there"), "critic": "base"})
    finish(improved, "critiques")
    finish(improved, "critics")
    assert values(command(improved, "critics"), "critic") == ["base"]
    row = {"problem": "p", "method": "base", "metric": "helpfulness", "score": 0.0}
    (improved.run("critics", 0).folder / "scores.jsonl").write_text(json.dumps(row) + "\n")
    scores = improved.run("critics", 0).output().scores
    assert [row["method"] for row in scores] == ["untrained"]


def test_a_part_that_somebody_ran_by_its_command_is_done(improved):
    run = improved.run("evaluate", 0)
    folder = improved.run("evaluate", 0).folder
    folder.mkdir()
    ran = command(improved, "evaluate")
    for argv in ([*ran, "--test_problems=3"], ran[:-1], []):
        results = {"command": shlex.join(argv), "wall_seconds": 4.5}
        (folder / "results.json").write_text(json.dumps(results))
        run.adopt()
        assert not run.done()
    results["command"] = shlex.join([*ran, "--distributed"])
    (folder / "results.json").write_text(json.dumps(results))
    run.adopt()
    assert run.done()
    assert run.record().seconds == 4.5
    run.note(run.wanted(), 1.0, failed=True)
    run.adopt()  # What has been noted stays,
    assert not run.done()
    noted = run.record()
    os.utime(folder / "results.json", (time.time() + 9,) * 2)  # unless it was run since.
    run.note(dataclasses.replace(noted, settings=["--k=9"]), 1.0, failed=True)
    run.adopt()
    assert not run.done()  # By other settings than it failed with, perhaps.
    run.note(run.wanted(), 1.0, failed=True)
    run.adopt()
    assert run.done()
    assert run.record().seconds == 1.0 + 4.5
    elsewhere = dataclasses.replace(improved, run_dir=improved.run_dir.parent / "nothing")
    PartRun(elsewhere, run.part, 0).adopt()
    assert not PartRun(elsewhere, run.part, 0).done()


def test_a_parts_cost_is_what_its_stages_noted(improved):
    for name, note in (
        ("a", {"generated_tokens": 7, "failed": 2}),
        ("b", {"steps": 3}),
        ("c", {"rows": 1}),
    ):
        stage = improved.run("improve", 0).folder / "stages" / name
        stage.mkdir()
        (stage / "manifest.json").write_text(json.dumps(note))
    cost = improved.run("improve", 0).cost()
    assert (cost.generated_tokens, cost.training_steps, cost.failed) == (7, 3, 2)


def test_time_left_is_what_the_parts_done_took():
    took = {"improve": [100.0, 140.0], "evaluate": [60.0]}
    assert seconds_left(took, ["improve", "evaluate"], [], 1) == 120 + 60
    assert seconds_left(took, ["critics"], [], 1) == (120 + 60) / 2  # As those known, on average.
    assert seconds_left(took, ["evaluate"], [("improve", 50.0)], 1) == 60 + 70
    assert seconds_left(took, [], [("evaluate", 75.0)], 1) == 0  # It is late.
    assert seconds_left(took, [], [("improve", 50.0), ("improve", 20.0)], 1) == 70 + 100
    assert seconds_left(took, [], [], 1) == 0
    assert seconds_left({}, ["improve"], [], 1) is None
    assert seconds_left(took, ["evaluate"], [("improve", 50.0), ("improve", 20.0)], 2) == 230 / 2
    assert seconds_left(took, [], [("improve", 50.0), ("evaluate", 59.0)], 2) == 70  # Alone.


# ---- settings


def test_a_part_without_a_flagfile_is_left_out(plan):
    (plan.settings / "scaling.flags").unlink()
    names = [part.name for part in plan.parts]
    assert names == [part.name for part in PARTS if part.name != "scaling"]


def test_a_part_that_reads_one_left_out_is_refused(plan):
    (plan.settings / "critiques.flags").unlink()
    with pytest.raises(ValueError, match="critics reads critiques, which has no flagfile"):
        _ = plan.parts


def test_a_folder_without_flagfiles_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no flagfile of a part"):
        _ = ReproductionPlan(tmp_path, tmp_path, "base").parts


def read(path: pathlib.Path) -> list[str]:
    return read_flagfiles([f"--flagfile={path}"])


def test_flagfiles_are_read_with_those_they_name(plan):
    assert plan.flags()["improve"] == "--slots=8 --sequence=64"


def test_flagfiles_are_read_as_the_programs_read_them(tmp_path, capsys):
    path, other = tmp_path / "a.flags", tmp_path / "b.flags"
    path.write_text(f"# a remark\n\n// another\n-flagfile={other}\n--rows\n8\n--noshuffle\n")
    other.write_text(f"--seed=1\n--flagfile={path}\n-sequence=64\n")
    assert read(path) == ["--seed=1", "-sequence=64", "--rows", "8", "--noshuffle"]
    assert "circular" in capsys.readouterr().err
    other.unlink()
    with pytest.raises(ValueError, match=rf"No such file or directory: '{other}'"):
        read(path)


SHIPPED = pathlib.Path("experiments/flagfiles")


@pytest.mark.parametrize("settings", ["laptop", "paper"])
def test_the_shipped_settings_are_whole(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = ReproductionPlan(tmp_path, SHIPPED / settings, "base")
    large = {"critic-large", "critics-large"}
    wanted = [part.name for part in PARTS if settings == "paper" or part.name not in large]
    assert [part.name for part in plan.parts] == wanted
    for run in plan.runs([0]):
        assert all(flag.startswith("--") for flag in read(run.flagfile))
        shown = shlex.join(run.command(shown=True))
        assert shown.startswith(f"python -m experiments.{run.part.program} ")


@pytest.mark.parametrize("settings", ["laptop", "paper"])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_programs_take_the_flags_of_the_shipped_settings(part, settings, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = ReproductionPlan(pathlib.Path("runs"), SHIPPED / settings, "base")
    if part in plan.parts:
        assert plan.run(part.name, 0).configs()


def test_each_server_of_the_shipped_settings_has_the_gpus_it_shares_its_model_among(monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = ReproductionPlan(pathlib.Path("runs"), SHIPPED / "paper", "base")
    sharding = "--tensor-parallel-size="
    sizes = set()
    for run in plan.runs([0]):
        for engine in (config for config in run.configs() if isinstance(config, EngineConfig)):
            arguments = shlex.split(engine.vllm_args)
            shares = [arg for arg in arguments if arg.startswith(sharding)]
            for devices in engine.vllm_devices:
                wanted = int(shares[-1].removeprefix(sharding)) if shares else 1
                assert len(devices.split(",")) == wanted, run
                sizes.add(wanted)
    assert sizes == {1, 8}
