"""What a self-improvement run's results show: a table, a headline, a page."""

import dataclasses
import html.parser
import re

import pytest

from jaxcritique.improvement.results import (
    Comparison,
    Difference,
    IterationRow,
    SelfImprovement,
    Transcript,
)
from jaxcritique.testtime.critic_metrics import CriticReport

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and visible text, and insists that tags nest."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.text, self._open = [], [], [], []
        self.feed(source)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text.append(data)


@pytest.fixture
def results(tmp_path):
    """Made-up results: three iterations, five levels."""
    rows = []
    for method, gain in (("vanilla", 0.02), ("critique", 0.04)):
        for iteration in range(4):
            accuracy = 0.45 + gain * iteration
            rows.append(
                IterationRow(
                    method=method,
                    iteration=iteration,
                    accuracy=accuracy,
                    ci95=(accuracy - 0.03, accuracy + 0.03),
                    accuracy_by_level={
                        str(level): accuracy + 0.48 - 0.16 * level for level in range(1, 6)
                    },
                    train_size=2000 + 800 * iteration,
                    train_share_by_level={
                        str(level): 0.2 + (0.05 - gain * iteration / 4) * (3 - level) / 2
                        for level in range(1, 6)
                    },
                    generated_tokens=1_234_567 * iteration,
                    responses=0,
                    correct_responses=0,
                    critiques=0,
                    refinements=0,
                    correct_refinements=0,
                )
            )
    return SelfImprovement(
        command="python -m experiments.self_improve --flagfile=quickstart.flags --seed=7",
        seed=7,
        settings={"iterations": 3, "samples": 5, "learning_rate": 2e-3, "self_correction": True},
        wall_seconds=287.4,
        peak_rss_bytes=2_254_857_830,
        run_dir=tmp_path / "run",
        test_problems=1000,
        failed=0,
        iterations=rows,
        comparison=Comparison(0.06, (0.031, 0.088)),
        levels_by="the data",
        critic=CriticReport(
            n=1000,
            accuracy_without=0.45,
            accuracy_refine_all=0.603,
            accuracy_refine_flagged=0.6,
            accuracy_oracle=0.622,
            discriminability=0.794,
            discriminability_right=0.8,
            discriminability_wrong=0.79,
            helpfulness=0.312,
            helpfulness_flagged=0.3,
            unparsable=4,
            c2c=431,
            c2i=19,
            i2c=172,
            i2i=378,
        ),
        critique_data={"flawed_solutions": 5120, "annotated": 4400, "kept_by_filter": 3100},
        models={},
        transcripts=[
            Transcript(
                question="A shop has 48 apples. It sells half of them, then gets 7 more. "
                "How many apples are there now?",
                answer="31",
                response="It sells 48/2=<<48/2=24>>24 apples.\n\n"
                "Then it has 24+7=<<24+7=32>>32 apples.\nThe answer is 32.",
                critique="Step 1: It sells 48/2=24 apples.\nExplanation: 48/2=24.\n"
                "Correctness: Correct\nStep 2: Then it has 24+7=32 apples.\n"
                "Explanation: 24+7=31, not 32.\nCorrectness: Wrong\nFinal answer: Wrong",
                refinement="It sells 48/2=<<48/2=24>>24 apples.\n"
                "Then it has 24+7=<<24+7=31>>31 apples.\nThe answer is 31.",
                first_error=1,
                response_verdict="wrong",
                refinement_verdict="correct",
            )
        ],
    )


def render(results: SelfImprovement) -> str:
    results.write_report()
    return results.report.read_text()


def without_levels(results: SelfImprovement) -> SelfImprovement:
    rows = [
        dataclasses.replace(row, accuracy_by_level={}, train_share_by_level={"unknown": 1.0})
        for row in results.iterations
    ]
    return dataclasses.replace(results, iterations=rows)


def test_page_shows_what_the_results_hold(results):
    page = Page(render(results))
    text = re.sub(r"\s+", " ", " ".join(page.text))
    assert page.tags.count("svg") == 3
    for shown in (
        results.headline,
        "54.0-60.0",
        "3,703,701",
        results.command,
        "0:04:47",
        "2.10 GiB",
        "learning_rate",
        "79.4%",
        "kept by filter",
        "Seed 7",
    ):
        assert shown in text


def test_page_needs_nothing_besides_itself(results):
    source = render(results)
    page = Page(source)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith("#")
        assert not name.startswith("on")
    assert re.findall(r"url\((?!#)", source) == []
    assert "@import" not in source


def test_ids_are_unique_and_every_reference_has_its_target(results):
    source = render(results)
    # One definition may be drawn by two figures (an equal clip path): it is then the same one.
    definitions = re.findall(r'<(clipPath|path) id="([^"]+)"', source)
    ids = {name for _, name in definitions}
    assert set(re.findall(r' id="([^"]+)"', source)) == ids
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', source)) <= ids


def test_the_same_results_give_the_same_page(results):
    assert render(results) == render(results)


@pytest.mark.parametrize("field", ["question", "answer", "response", "critique", "refinement"])
def test_text_of_models_is_escaped(results, field):
    hostile = "</p></div><script>alert(1)</script><img src=http://x.test/a onerror=alert(1)>&amp;"
    [transcript] = results.transcripts
    transcripts = [dataclasses.replace(transcript, **{field: hostile})]
    page = Page(render(dataclasses.replace(results, transcripts=transcripts)))
    assert hostile in "".join(page.text)
    assert not {"script", "img"} & set(page.tags)


def test_command_settings_and_stage_names_are_escaped(results):
    hostile = "<script>alert(1)</script>"
    changed = {"command": hostile, "settings": {hostile: hostile}, "critique_data": {hostile: 1}}
    page = Page(render(dataclasses.replace(results, **changed)))
    assert "script" not in page.tags
    assert "".join(page.text).count(hostile) == 4


def test_the_first_wrong_step_is_marked_and_no_other(results):
    marked = re.findall(r'<div class="wrong">(.*?)<strong>', render(results))
    assert marked == ["Then it has 24+7=&lt;&lt;24+7=32&gt;&gt;32 apples."]
    transcripts = [dataclasses.replace(results.transcripts[0], first_error=None)]
    unmarked = dataclasses.replace(results, transcripts=transcripts)
    assert 'class="wrong"' not in render(unmarked)


def test_further_methods_are_in_table_figure_and_comparisons(results):
    others = ("no_difficulty_awareness", "more_refinements", "vanilla_equal_tokens")
    vanilla = results.rows("vanilla")
    rows = [dataclasses.replace(row, method=method) for method in others for row in vanilla]
    differences = [
        Difference("critique", method, 0.01 * (index - 1), (-0.025, 0.02))
        for index, method in enumerate(others)
    ]
    results = dataclasses.replace(
        results, iterations=[*results.iterations, *rows], comparisons=differences
    )
    text = re.sub(r"\s+", " ", " ".join(Page(render(results)).text))
    assert "No difficulty awareness -1.0 -2.5 to +2.0 More refinements +0.0" in text
    assert "More refinements: one critique of each wrong response, and L refinements" in text
    table = results.table.splitlines()
    assert len(table) == 2 + 5 * 4
    labels = ("No difficulty awareness", "More refinements", "Vanilla, equal tokens")
    for label, line in zip(labels, table[-12::4], strict=True):
        assert line.startswith(label)


def test_figures_by_level_are_left_out_without_levels(results):
    page = Page(render(without_levels(results)))
    text = "".join(page.text)
    assert page.tags.count("svg") == 1
    assert text.count("is left out") == 2


def test_a_short_run_whose_critic_was_given_is_shown(results):
    rows = [row for row in results.iterations if row.iteration <= 1]
    page = Page(
        render(dataclasses.replace(results, iterations=rows, critique_data=None, transcripts=[]))
    )
    text = "".join(page.text)
    assert page.tags.count("svg") == 3
    assert "over 1 iteration on" in re.sub(r"\s+", " ", text)
    assert "After iteration 1," in text
    assert "The critique data" not in text
    assert "transcripts" not in text


def test_a_critic_without_wrong_responses_has_no_helpfulness(results):
    critic = dataclasses.replace(results.critic, helpfulness=None)
    page = render(dataclasses.replace(results, critic=critic))
    assert "its helpfulness is unknown" in page


@pytest.mark.parametrize(
    ("ci95", "words"),
    [
        ([0.01, 0.1], "excludes zero: this critique-in-the-loop actor is better"),
        ([-0.1, -0.01], "excludes zero: this critique-in-the-loop actor is worse"),
        ([-0.01, 0.1], "includes zero"),
        ([0.0, 0.1], "includes zero"),
    ],
)
def test_headline_reads_the_interval(results, ci95, words):
    results = dataclasses.replace(results, comparison=Comparison(0.06, ci95))
    assert words in results.headline
    assert "57.0%" in results.headline
    assert "51.0%" in results.headline
    assert "+6.0 percentage points" in results.headline


def test_terminal_table_is_aligned_and_complete(results):
    header, rule, *rows = results.table.splitlines()
    assert len(rows) == 8
    assert len({len(line) for line in (header, rule, *rows)}) == 1
    assert rows[-1].split() == [
        *("Critique-in-the-loop", "3", "57.0%", "54.0-60.0", "4,400", "37.0%", "3,703,701")
    ]


def test_terminal_table_has_a_dash_where_levels_are_unknown(results):
    rows = without_levels(results).table.splitlines()[2:]
    assert all(row.split()[-2] == "-" for row in rows)
