"""The report of a reproduction, from evidence in which the answers are known."""

import csv
import dataclasses
import html
import json
import re

import pytest
from synthetic import PROBLEMS, PROTOCOL, everything, rows

from experiments.reproduction.evidence import Evidence, PartCost, PartOutput
from experiments.reproduction.figures import flips, paper_figures
from experiments.reproduction.report import write_reproduction

TRANSCRIPT = {
    "question": "2+3?",
    "answer": "5",
    "response": "So 2+3=6.\nThe answer is 6.",
    "critique": "Step 1: So 2+3=6.\nExplanation: 2+3=5.\nCorrectness: Wrong",
    "refinement": "So 2+3=5.\nThe answer is 5.",
    "first_error": 0,
    "response_verdict": "wrong",
    "refinement_verdict": "correct",
}
DRAWN = {
    "figure_1", "figure_1_tokens", "figure_5", "figure_6", "figure_7", "figure_8", "figure_9",
    "figure_10", "figure_11", "figure_12",
}  # fmt: skip


def runs(**changed: PartOutput) -> dict[str, PartOutput]:
    improve = everything()["improve"]
    results = {"settings": {"samples": 3}, "transcripts": [TRANSCRIPT], "peak_rss_bytes": 2**30}
    found = {**everything(), "improve": dataclasses.replace(improve, results=results)}
    return {**found, **{name.replace("_", "-"): run for name, run in changed.items()}}


def write(evidence: Evidence, run_dir, settings=None, failed=0) -> dict:
    costs = [
        PartCost(part, seed, 60.0, 1000, 5, failed, f"python -m experiments.{part} --seed={seed}")
        for seed, found in evidence.outputs.items()
        for part in found
    ]
    settings = settings or {"evaluate": "--k=2,5"}
    write_reproduction(evidence, PROTOCOL, "python -m x", settings, costs, run_dir)
    return json.loads((run_dir / "results.json").read_text())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("reproduction")
    write(Evidence({0: runs(), 1: runs()}), run_dir)
    return run_dir


@pytest.fixture(scope="module")
def results(run_dir) -> dict:
    return json.loads((run_dir / "results.json").read_text())


@pytest.fixture(scope="module")
def page(run_dir) -> str:
    return (run_dir / "report.html").read_text()


def numbers(run_dir, name: str) -> list[dict[str, str]]:
    with (run_dir / "figures" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_results_have_all_that_is_asked_of_them(results):
    assert [claim["id"] for claim in results["claims"]] == [f"C{n}" for n in range(1, 15)]
    for claim in results["claims"]:
        assert claim["holds"] == "yes"
        assert {"effect", "ci95", "n", "paper"} <= claim.keys()
    assert results["seeds"] == [0, 1]
    assert results["settings"] == {"evaluate": "--k=2,5"}
    assert len(results["cost"]) == 2 * len(runs())
    assert results["cost"][0]["generated_tokens"] == 1000
    command = "python -m experiments.improve --seed=0"
    assert results["commands"][0] == {"part": "improve", "seed": 0, "command": command}


def test_samples_that_could_not_be_had_head_the_page(page, tmp_path):
    assert "samples failed" not in page
    write(Evidence({0: runs()}), tmp_path, failed=2)
    failing = (tmp_path / "report.html").read_text()
    assert f"{2 * len(runs())} samples failed" in failing
    assert failing.index("samples failed") < failing.index("<h1>")
    cost = (tmp_path / "results.md").read_text().split("## What it cost")[1]
    assert "Failed samples" in cost
    assert cost.strip().endswith(f"| {2 * len(runs())} |")


def test_each_part_of_a_claim_has_its_effect_in_each_seed(results, run_dir):
    text = (run_dir / "results.md").read_text().split("## What each claim was measured by")[1]
    for claim in results["claims"]:
        for aspect in claim["aspects"]:
            [line] = [
                x for x in text.split("\n") if x.startswith(f"| {claim['id']} {aspect['says']} |")
            ]
            assert ", ".join(f"{100 * effect:+.1f}" for effect in aspect["seeds"].values()) in line


def test_without_a_trained_critic_table_2_has_the_others(tmp_path):
    critics = everything()["critics"]
    kept = [row for row in critics.scores if row["method"] != "trained"]
    results = write(Evidence({0: runs(critics=PartOutput(critics.results, kept))}), tmp_path)
    [table] = [table for table in results["tables"] if table["title"].startswith("Table 2")]
    assert [row[0] for row in table["rows"][1:3]] == ["no critic", "untrained critic"]


def test_every_figure_is_drawn_and_has_its_numbers(results, run_dir, page):
    assert {figure["name"] for figure in results["figures"]} == DRAWN
    assert {path.stem for path in (run_dir / "figures").glob("*.csv")} == DRAWN
    assert page.count("<svg") == len(DRAWN)
    for name in DRAWN:
        [drawn] = re.findall(rf'<figure id="{name}">(.*?)</figure>', page, re.S)
        assert f"figures/{name}.csv" in drawn
        assert "<code>python -m experiments." in drawn


def test_figures_hold_the_means_of_the_records(run_dir):
    votes = {(r["series"], r["k"]): float(r["mean"]) for r in numbers(run_dir, "figure_1")}
    assert votes["no critic", "5"] == pytest.approx(0.42, abs=0.011)
    assert votes["with critic", "5"] == pytest.approx(0.6)
    by_tokens = numbers(run_dir, "figure_1_tokens")
    alone = {r["tokens"]: float(r["mean"]) for r in by_tokens if r["series"] == "no critic"}
    assert alone.keys() == {str(40.0 * samples) for samples in (2, 4, 6, 5, 10, 15)}
    assert alone["80.0"] == votes["no critic", "2"]
    assert alone["600.0"] == votes["no critic, 3K", "5"]
    gain = {r["level"]: float(r["mean"]) for r in numbers(run_dir, "figure_8")}
    assert gain == pytest.approx({"1": 0.1, "2": 0.1, "3": 0.1, "4": 0.3, "5": 0.3}, abs=0.011)
    shares = {r["level"]: r for r in numbers(run_dir, "figure_7")}
    assert float(shares["5"]["critique"]) == pytest.approx(2 / 7)
    assert float(shares["5"]["vanilla"]) == pytest.approx(1 / 5)
    assert float(shares["5"]["mean"]) == pytest.approx(2 / 7 - 1 / 5)
    actors = [row["actor"] for row in numbers(run_dir, "figure_9")]
    assert actors == ["small"] * 3 + ["large"] * 3  # By size.
    questions = numbers(run_dir, "figure_10")
    assert len(questions) == 2 * 2 * len(PROBLEMS)


def test_votes_that_turn_are_counted():
    changed = [
        *rows(0.4, method="no critic", metric="vote", k=5),
        *rows(0.4, method=f"parallel, {PROTOCOL}", metric="vote", k=5),
    ]
    after = changed[len(PROBLEMS) :]
    lost = [row for row in after if row["score"]][:3]
    gained = [row for row in after if not row["score"]][:5]
    for row in (*lost, *gained):
        row["score"] = 1 - row["score"]
    evidence = Evidence({0: {"evaluate": PartOutput({}, changed)}})
    assert flips(evidence, PROTOCOL) == (5, 3, len(PROBLEMS))


def test_tables_are_the_papers(results):
    titles = [table["title"].split(".")[0] for table in results["tables"]]
    assert titles == ["Table 1", "Section 3", "Table 2", "Table 3", "Table 4", "Table 5"]
    by_title = {table["title"].split(".")[0]: table["rows"] for table in results["tables"]}
    assert by_title["Table 1"][1] == ["word_problems", "RG1", "240", "180"]
    assert by_title["Section 3"][2] == ["soft, tau=0.3", "120", "200", "60.0%", "60.0%", "-"]
    assert [row[0] for row in by_title["Table 2"][1:4]] == [
        "no critic", "untrained critic", "trained critic"
    ]  # fmt: skip
    combined = {tuple(row[:2]): row for row in by_title["Table 3"]}
    assert combined["Training", "Test time"][2:] == ["Acc.", "Pass@5", "MV@5"]
    assert combined["Critique-in-the-loop", "with critic"][4].startswith("75.0% (")
    assert combined["Vanilla self-improvement", "response only"][2] == "-"  # Not made up.
    assert by_title["Table 4"][2][2].startswith("-15.5 (")


def test_the_page_says_what_holds_and_shows_where_a_response_went_wrong(page):
    assert (
        "Of the paper's 14 claims 14 hold here by their 95% intervals, 0 do not, and 0 are "
        "undecided."
    ) in html.unescape(page)
    assert re.findall(r'<div class="wrong">(.*?)<strong>', page) == ["So 2+3=6."]
    assert "from wrong to right" in page
    assert "Seeds: 0, 1." in re.sub(r"\s+", " ", page)
    for tag in ("script", "img", "link", "iframe"):
        assert f"<{tag}" not in page


def test_claims_and_tables_are_there_to_be_read_in_a_repository(run_dir, results):
    text = (run_dir / "results.md").read_text()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 2 + len(results["tables"]) + 1  # Claims, their aspects, and the cost.
    for table in tables:
        assert len({row.count("|") for row in table}) == 1
    claims, aspects, *others = tables
    assert [row.split()[1] for row in claims[2:]] == [claim["id"] for claim in results["claims"]]
    assert len(aspects) == 2 + sum(len(claim["aspects"]) for claim in results["claims"])
    for table, shown in zip(results["tables"], others[:-1], strict=True):
        cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in shown]
        assert [cells[0], *cells[2:]] == table["rows"]


def test_text_of_models_and_commands_is_escaped(tmp_path):
    hostile = "</p><script>alert(1)</script>"
    improve = runs()["improve"]
    transcript = {**TRANSCRIPT, "question": hostile, "response": hostile}
    changed = dataclasses.replace(improve, results={**improve.results, "transcripts": [transcript]})
    write(Evidence({0: {"improve": changed}}), tmp_path, {hostile: hostile})
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 3


def test_claims_by_the_other_protocol_are_there_where_it_was_run_too(tmp_path):
    other = everything("refine_all")["evaluate"]
    evaluate = everything()["evaluate"]
    weaker = [
        {**row, "score": row["score"] * 0.5} for row in other.scores if "refine" in row["method"]
    ]
    both = dataclasses.replace(evaluate, scores=[*evaluate.scores, *weaker])
    results = write(Evidence({0: runs(evaluate=both)}), tmp_path)
    table = results["tables"][0]
    assert table["title"] == "The claims, where answers are refined by refine_all"
    verdicts = {row[0]: row[1:3] for row in table["rows"][1:]}
    # Not claims about training, which are the same, nor those whose other parts were not run so.
    assert verdicts.keys() == {"C1", "C3", "C10", "C11", "C12"}
    assert verdicts["C1"][0] == "does not hold"
    assert verdicts["C1"][1].startswith("-12.5 (")
    by_id = {claim["id"]: claim for claim in results["claims_otherwise"]["claims"]}
    assert results["claims_otherwise"]["protocol"] == "refine_all"
    assert by_id["C1"]["effect"] == pytest.approx(0.3 - 0.42, abs=0.011)
    assert {claim["holds"] for claim in results["claims"]} == {"yes"}


def test_a_claim_of_which_a_part_fails_says_how_many_hold(tmp_path):
    evaluate = everything()["evaluate"]
    beaten = [
        {**row, "score": 1.0} if row["method"] == "no critic, 3K" else row
        for row in evaluate.scores
    ]
    write(Evidence({0: runs(evaluate=dataclasses.replace(evaluate, scores=beaten))}), tmp_path)
    assert "3 of 4 parts hold" in (tmp_path / "report.html").read_text()
    assert "| does not hold (3 of 4 parts hold) | +17.5 (" in (tmp_path / "results.md").read_text()


def test_without_sequential_rounds_figure_1_has_its_tokens_all_the_same():
    evaluate = everything()["evaluate"]
    scores = [row for row in evaluate.scores if not row["method"].startswith("sequential")]
    evidence = Evidence({0: {"evaluate": dataclasses.replace(evaluate, scores=scores)}})
    [figure] = [f for f in paper_figures(evidence, PROTOCOL) if f.name == "figure_1_tokens"]
    assert {row["series"] for row in figure.rows} == {"no critic", "parallel, with critic"}


def test_what_was_not_run_is_said_not_drawn(tmp_path):
    write(Evidence({0: runs()}), tmp_path)
    results = write(Evidence({0: {"improve": runs()["improve"]}}), tmp_path)
    page = (tmp_path / "report.html").read_text()
    claims = {claim["id"]: claim for claim in results["claims"]}
    assert claims["C8"]["holds"] == "yes"
    assert claims["C1"]["effect"] is None
    assert claims["C1"]["why"] == "evaluate has not been run"
    assert "not measured: C1, C2, C3, C7" in page
    assert "Figure 9. One critic, actors of several sizes: not drawn" in page
    assert page.count("<svg") == 3  # Figures 6 to 8.
    assert {path.stem for path in (tmp_path / "figures").glob("*")} == {
        "figure_6", "figure_7", "figure_8"
    }  # fmt: skip


def test_nothing_at_all_is_a_page_too(tmp_path):
    results = write(Evidence({0: {}}), tmp_path)
    assert {claim["holds"] for claim in results["claims"]} == {"unmeasured"}
    assert (
        "0 hold here by their 95% intervals, 0 do not, and 0 are undecided; not measured: C1, "
        in (tmp_path / "report.html").read_text()
    )


def test_the_same_evidence_gives_the_same_figures():
    evidence = Evidence({0: {"improve": runs()["improve"]}})
    assert paper_figures(evidence, PROTOCOL) == paper_figures(evidence, PROTOCOL)
