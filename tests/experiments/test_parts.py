"""The plan of a reproduction: commands wired from results folders that the tests make."""

import dataclasses
import json
import os
import pathlib
import shlex
import time

import pytest

from experiments.reproduction.parts import PARTS, Plan, flag_values, read_flagfile, seconds_left
from jaxcritique.analysis import evidence

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ("sft actor", "vanilla actor", "critique actor", "self_correction actor", "critic")


@pytest.fixture
def plan(tmp_path) -> Plan:
    """With a flagfile for every part, one of which names another."""
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "common.flags").write_text("# what all have\n--slots=8\n")
    for part in PARTS:
        text = f"# {part.name}\n--flagfile={settings}/common.flags\n--sequence=64\n"
        (settings / part.flagfile).write_text(text)
    return Plan(tmp_path / "run", settings, "base")


def finish(plan: Plan, name: str, seed: int = 0, **results) -> None:
    """Makes a part's results folder, and notes it as done."""
    folder = plan.folder(seed, name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    part = plan.named(name)
    plan.note(part, seed, plan.identity(part, seed), 10.0)


@pytest.fixture
def improved(plan) -> Plan:
    """With self_improve done: one model elsewhere, the others in its folder."""
    models = {name: f"stages/{name.replace(' ', '-')}-77/model" for name in MODELS}
    for path in models.values():
        (plan.folder(0, "improve") / path).mkdir(parents=True)
    finish(plan, "improve", models={**models, "critic": "base/of/others"})
    return plan


def command(plan: Plan, name: str, seed: int = 0) -> list[str]:
    return plan.command(plan.named(name), seed)


def one(flags: list[str], name: str) -> str:
    [value] = flag_values(flags, name)
    return value


def test_names_are_unique_and_every_part_reads_earlier_ones():
    names = [part.name for part in PARTS]
    assert len(set(names)) == len(names)
    for index, part in enumerate(PARTS):
        assert set(part.needs) <= set(names[:index]), part.name


def test_every_part_that_claims_are_read_from_is_in_the_plan():
    wanted = {
        evidence.IMPROVE, evidence.IMPROVE_SMALL, evidence.EVALUATE, evidence.VANILLA,
        evidence.CRITIQUE, evidence.SELF_CORRECTION, evidence.CRITICS, evidence.CRITICS_LARGE,
        evidence.FILTERS, evidence.SCALING, evidence.SELF_TALK,
    }  # fmt: skip
    assert wanted <= {part.name for part in PARTS}


def test_a_command_has_wiring_then_settings_then_seed_and_folder(improved):
    found = command(improved, "evaluate")
    stages = improved.folder(0, "improve") / "stages"
    assert found == [
        *("python", "-m", "experiments.evaluate"),
        f"--actor={stages / 'sft-actor-77' / 'model'}",
        "--critic=base/of/others",  # Not within the part's folder: as its results give it.
        f"--flagfile={improved.settings / 'evaluate.flags'}",
        "--seed=0",
        f"--run_dir={improved.folder(0, 'evaluate')}",
    ]


def test_each_actor_is_evaluated_with_the_same_critic(improved):
    actors = {
        name: one(command(improved, name), "actor").split("/")[-2]
        for name in ("evaluate", evidence.VANILLA, evidence.CRITIQUE, evidence.SELF_CORRECTION)
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
    folder = improved.folder(0, "critiques")
    assert data == [str(folder / f"critic-{kind}.jsonl") for kind in ("none", "soft", "hard")]
    compared = [flag for flag in command(improved, "filters") if flag.startswith("--critic=")]
    assert [pathlib.Path(flag).parts[-2] for flag in compared] == [
        "critic-none", "critic-soft", "critic-hard"
    ]  # fmt: skip


def test_seeds_have_folders_of_their_own(improved):
    assert f"--run_dir={improved.folder(1, 'improve')}" in command(improved, "improve", 1)
    with pytest.raises(ValueError, match="improve has not come to its results"):
        command(improved, "evaluate", 1)
    shown = improved.command(improved.named("evaluate"), 1, shown=True)
    assert "--actor={improve:sft actor}" in shown


def test_a_model_that_is_not_there_is_named(plan):
    finish(plan, "improve", models={"critic": "there"})
    with pytest.raises(ValueError, match="names no model 'sft actor', only critic"):
        command(plan, "evaluate")
    assert not plan.done(plan.named("evaluate"), 0)
    # Its flags can be looked at all the same, as those of parts whose inputs are not there yet.
    shown = plan.command(plan.named("evaluate"), 0, shown=True)
    assert {"--actor={improve:sft actor}", "--critic=there"} <= set(shown)


# ---- what is done


def test_a_part_is_done_once_it_has_results_by_the_same_command(improved):
    part = improved.named("evaluate")
    assert not improved.done(part, 0)
    finish(improved, "evaluate")
    assert improved.done(part, 0)
    elsewhere = Plan(improved.run_dir, improved.settings, "another/base")
    assert not elsewhere.done(elsewhere.named("improve"), 0)  # Its command names the base.
    assert not elsewhere.done(part, 0)  # And so what was made of it is not done either.


def test_other_settings_undo_a_part_and_what_reads_it(improved):
    finish(improved, "evaluate")
    path = improved.settings / "common.flags"
    path.write_text(path.read_text() + "# a remark\n")
    assert improved.done(improved.named("evaluate"), 0)
    path.write_text(path.read_text() + "--slots=9\n")
    assert not improved.done(improved.named("evaluate"), 0)
    assert not improved.done(improved.named("improve"), 0)


def test_other_inputs_undo_a_part(improved):
    finish(improved, "critiques")
    finish(improved, "critic-soft")
    finish(improved, "critiques", rows=3)
    assert improved.done(improved.named("critiques"), 0)
    assert not improved.done(improved.named("critic-soft"), 0)


def test_the_same_outcome_in_another_time_undoes_nothing(improved):
    finish(improved, "critiques", rows=3, wall_seconds=60.0)
    finish(improved, "critic-soft")
    finish(improved, "critiques", rows=3, wall_seconds=2.0, peak_rss_bytes=1)
    assert improved.done(improved.named("critic-soft"), 0)


def test_seconds_of_all_starts_are_added(improved):
    part = improved.named("improve")
    improved.note(part, 0, improved.identity(part, 0), 5.0, failed=True)
    assert not improved.done(part, 0)
    improved.note(part, 0, improved.identity(part, 0), 7.0)
    assert improved.record(part, 0)["seconds"] == 10 + 5 + 7
    assert improved.done(part, 0)


def test_seconds_of_settings_that_were_replaced_are_not_counted(improved):
    part = improved.named("improve")
    path = improved.settings / part.flagfile
    path.write_text(path.read_text() + "--slots=9\n")
    improved.note(part, 0, improved.identity(part, 0), 7.0)
    assert improved.record(part, 0)["seconds"] == 7


def test_critics_are_called_what_they_are_here(improved):
    finish(improved, "critiques")
    finish(improved, "critics")
    rows = [
        {"problem": "p", "method": "base", "metric": "helpfulness", "score": 0.0},
        {"problem": "p", "method": "base/of/others", "metric": "helpfulness", "score": 1.0},
    ]
    path = improved.folder(0, "critics") / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = improved.run(improved.named("critics"), 0).scores
    assert {row["method"]: row["score"] for row in scores} == {"untrained": 0.0, "trained": 1.0}


def test_a_critic_that_nothing_could_train_is_the_base_and_no_more(improved):
    finish(improved, "improve", models={**dict.fromkeys(MODELS, "there"), "critic": "base"})
    finish(improved, "critiques")
    finish(improved, "critics")
    assert flag_values(command(improved, "critics"), "critic") == ["base"]
    row = {"problem": "p", "method": "base", "metric": "helpfulness", "score": 0.0}
    (improved.folder(0, "critics") / "scores.jsonl").write_text(json.dumps(row) + "\n")
    scores = improved.run(improved.named("critics"), 0).scores
    assert [row["method"] for row in scores] == ["untrained"]


def test_a_part_that_somebody_ran_by_its_command_is_done(improved):
    part = improved.named("evaluate")
    folder = improved.folder(0, "evaluate")
    folder.mkdir()
    ran = command(improved, "evaluate")
    for argv in ([*ran, "--test_problems=3"], ran[:-1], []):
        results = {"command": shlex.join(argv), "wall_seconds": 4.5}
        (folder / "results.json").write_text(json.dumps(results))
        improved.adopt(part, 0)
        assert not improved.done(part, 0)
    results["command"] = shlex.join([*ran, "--distributed"])
    (folder / "results.json").write_text(json.dumps(results))
    improved.adopt(part, 0)
    assert improved.done(part, 0)
    assert improved.record(part, 0)["seconds"] == 4.5
    improved.note(part, 0, improved.identity(part, 0), 1.0, failed=True)
    improved.adopt(part, 0)  # What has been noted stays,
    assert not improved.done(part, 0)
    noted = improved.record(part, 0)
    os.utime(folder / "results.json", (time.time() + 9,) * 2)  # unless it was run since.
    improved.note(part, 0, noted | {"settings": ["--k=9"]}, 1.0, failed=True)
    improved.adopt(part, 0)
    assert not improved.done(part, 0)  # By other settings than it failed with, perhaps.
    improved.note(part, 0, improved.identity(part, 0), 1.0, failed=True)
    improved.adopt(part, 0)
    assert improved.done(part, 0)
    assert improved.record(part, 0)["seconds"] == 1.0 + 4.5
    elsewhere = dataclasses.replace(improved, run_dir=improved.run_dir.parent / "nothing")
    elsewhere.adopt(part, 0)
    assert not elsewhere.done(part, 0)


def test_a_parts_cost_is_what_its_stages_noted(improved):
    for name, note in (
        ("a", {"generated_tokens": 7, "failed": 2}),
        ("b", {"steps": 3}),
        ("c", {"rows": 1}),
    ):
        stage = improved.folder(0, "improve") / "stages" / name
        stage.mkdir()
        (stage / "manifest.json").write_text(json.dumps(note))
    cost = improved.cost(improved.named("improve"), 0)
    assert cost == {"generated_tokens": 7, "training_steps": 3, "failed": 2}


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
        _ = Plan(tmp_path, tmp_path, "base").parts


def test_flagfiles_are_read_with_those_they_name(plan):
    path = plan.settings / "improve.flags"
    assert read_flagfile(path) == ["--slots=8", "--sequence=64"]
    assert flag_values(["--a=1", "--b=2=3", "--a=4"], "a") == ["1", "4"]
    assert flag_values(["--b=2=3"], "b") == ["2=3"]
    assert flag_values(["--bb=2"], "b") == []
    assert flag_values(["--a", "1", "-a=2", "--noc", "-a", "3", "--c"], "a") == ["1", "2", "3"]


def test_flagfiles_are_read_as_the_programs_read_them(tmp_path, capsys):
    path, other = tmp_path / "a.flags", tmp_path / "b.flags"
    path.write_text(f"# a remark\n\n// another\n-flagfile={other}\n--rows\n8\n--noshuffle\n")
    other.write_text(f"--seed=1\n--flagfile={path}\n-sequence=64\n")
    assert read_flagfile(path) == ["--seed=1", "-sequence=64", "--rows", "8", "--noshuffle"]
    assert "circular" in capsys.readouterr().err
    other.unlink()
    with pytest.raises(ValueError, match=rf"{path}: .*No such file or directory: '{other}'"):
        read_flagfile(path)


@pytest.mark.parametrize("settings", ["laptop", "paper"])
def test_the_shipped_settings_are_whole(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = Plan(tmp_path, pathlib.Path("experiments/flagfiles") / settings, "base")
    large = {"critic-large", "critics-large"}
    wanted = [part.name for part in PARTS if settings == "paper" or part.name not in large]
    assert [part.name for part in plan.parts] == wanted
    for part in plan.parts:
        assert all(flag.startswith("--") for flag in read_flagfile(plan.settings / part.flagfile))
        shown = shlex.join(plan.command(part, 0, shown=True))
        assert shown.startswith(f"python -m experiments.{part.program} ")


def test_each_server_of_the_shipped_settings_has_the_gpus_it_shares_its_model_among(monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = pathlib.Path("experiments/flagfiles/paper")
    sizes = set()
    for path in folder.glob("*.flags"):
        given = read_flagfile(path)
        sharding = "--tensor-parallel-size="
        shares = [a for a in flag_values(given, "vllm_args") if a.startswith(sharding)]
        for devices in flag_values(given, "vllm_devices"):
            wanted = int(shares[-1].removeprefix(sharding)) if shares else 1
            assert len(devices.split(",")) == wanted, path
            sizes.add(wanted)
    assert sizes == {1, 8}
