import copy
import html.parser
import re

import pytest

from jaxcritique.analysis.report import headline, write_report
from jaxcritique.analysis.table import results_table

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
def render(tmp_path):
    def render(results):
        path = tmp_path / "run" / "report.html"
        write_report(results, path)
        return path.read_text()

    return render


def without_levels(results):
    results = copy.deepcopy(results)
    for row in results["iterations"]:
        row["accuracy_by_level"] = {}
        row["train_share_by_level"] = {"unknown": 1.0}
    return results


def test_page_shows_what_the_results_hold(results, render):
    page = Page(render(results))
    text = re.sub(r"\s+", " ", " ".join(page.text))
    assert page.tags.count("svg") == 3
    for shown in (
        headline(results),
        "54.0-60.0",
        "3,703,701",
        results["command"],
        "0:04:47",
        "2.10 GiB",
        "learning_rate",
        "79.4%",
        "kept by filter",
        "Seed 7",
    ):
        assert shown in text


def test_page_needs_nothing_besides_itself(results, render):
    source = render(results)
    page = Page(source)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith("#")
        assert not name.startswith("on")
    assert re.findall(r"url\((?!#)", source) == []
    assert "@import" not in source


def test_ids_are_unique_and_every_reference_has_its_target(results, render):
    source = render(results)
    # One definition may be drawn by two figures (an equal clip path): it is then the same one.
    definitions = re.findall(r'<(clipPath|path) id="([^"]+)"', source)
    ids = {name for _, name in definitions}
    assert set(re.findall(r' id="([^"]+)"', source)) == ids
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', source)) <= ids


def test_the_same_results_give_the_same_page(results, render):
    assert render(results) == render(results)


@pytest.mark.parametrize("field", ["question", "answer", "response", "critique", "refinement"])
def test_text_of_models_is_escaped(results, render, field):
    hostile = "</p></div><script>alert(1)</script><img src=http://x.test/a onerror=alert(1)>&amp;"
    results["transcripts"][0][field] = hostile
    page = Page(render(results))
    assert hostile in "".join(page.text)
    assert not {"script", "img"} & set(page.tags)


def test_command_settings_and_stage_names_are_escaped(results, render):
    hostile = "<script>alert(1)</script>"
    results |= {"command": hostile, "settings": {hostile: hostile}, "critique_data": {hostile: 1}}
    page = Page(render(results))
    assert "script" not in page.tags
    assert "".join(page.text).count(hostile) == 4


def test_the_first_wrong_step_is_marked_and_no_other(results, render):
    marked = re.findall(r'<div class="wrong">(.*?)<strong>', render(results))
    assert marked == ["Then it has 24+7=&lt;&lt;24+7=32&gt;&gt;32 apples."]
    results["transcripts"][0]["first_error"] = None
    assert 'class="wrong"' not in render(results)


def test_further_methods_are_in_table_figure_and_comparisons(results, render):
    others = ("no_difficulty_awareness", "more_refinements", "vanilla_equal_tokens")
    for index, method in enumerate(others):
        rows = [row for row in results["iterations"] if row["method"] == "vanilla"]
        results["iterations"] += [{**row, "method": method} for row in rows]
        comparison = {"method": "critique", "minus": method, "difference": 0.01 * (index - 1)}
        results.setdefault("comparisons", []).append({**comparison, "ci95": [-0.025, 0.02]})
    text = re.sub(r"\s+", " ", " ".join(Page(render(results)).text))
    assert "no difficulty awareness -1.0 -2.5 to +2.0 more refinements +0.0" in text
    for label in ("No difficulty awareness", "More refinements", "Vanilla, equal tokens"):
        assert label in text
    table = results_table(results).splitlines()
    assert len(table) == 2 + 5 * 4
    assert [line.split()[0] for line in table[-12::4]] == list(others)


def test_figures_by_level_are_left_out_without_levels(results, render):
    page = Page(render(without_levels(results)))
    text = "".join(page.text)
    assert page.tags.count("svg") == 1
    assert text.count("is left out") == 2


def test_a_short_run_without_a_critic_is_shown(results, render):
    results["iterations"] = [row for row in results["iterations"] if row["iteration"] <= 1]
    del results["critic"], results["critique_data"]
    results["transcripts"] = []
    page = Page(render(results))
    text = "".join(page.text)
    assert page.tags.count("svg") == 3
    assert "over 1 iteration on" in re.sub(r"\s+", " ", text)
    assert "After iteration 1," in text
    assert "discriminability" not in text
    assert "transcripts" not in text


def test_a_critic_without_wrong_responses_has_no_helpfulness(results, render):
    results["critic"]["helpfulness"] = None
    assert "its helpfulness is unknown" in render(results)


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
    results["comparison"]["ci95"] = ci95
    assert words in headline(results)
    assert "57.0%" in headline(results)
    assert "51.0%" in headline(results)
    assert "+6.0 percentage points" in headline(results)


def test_terminal_table_is_aligned_and_complete(results):
    header, rule, *rows = results_table(results).splitlines()
    assert len(rows) == 8
    assert len({len(line) for line in (header, rule, *rows)}) == 1
    assert rows[-1].split() == [
        *("critique", "3", "57.0%", "54.0-60.0", "4,400", "37.0%", "3,703,701")
    ]


def test_terminal_table_has_a_dash_where_levels_are_unknown(results):
    rows = results_table(without_levels(results)).splitlines()[2:]
    assert all(row.split()[-2] == "-" for row in rows)
