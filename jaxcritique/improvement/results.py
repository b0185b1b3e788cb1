"""The results of a self-improvement run, typed, with their table, headline and page."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from jaxcritique.analysis import figures
from jaxcritique.analysis.intervals import paired_difference
from jaxcritique.analysis.levels import hard_share
from jaxcritique.analysis.page import marked_lines, write_page
from jaxcritique.analysis.table import aligned, percent
from jaxcritique.improvement.algorithm import Counts
from jaxcritique.improvement.arms import ARMS
from jaxcritique.records import Refinement
from jaxcritique.run_folder import Results
from jaxcritique.testtime.critic_metrics import CriticReport

COLUMNS = (
    "Method",
    "Iter.",
    "Accuracy",
    "95% interval",
    "Training set",
    "Levels 4-5",
    "Generated tokens",
)
_SFT = "SFT actor"


@dataclasses.dataclass(frozen=True, kw_only=True)
class IterationRow(Counts):
    """One method after one iteration; iteration 0 is the actor that all methods start from."""

    method: str
    iteration: int
    accuracy: float  # Share of the test problems, one greedy answer each.
    ci95: tuple[float, float]
    accuracy_by_level: dict[str, float]
    train_size: int  # Solutions the actor was trained on.
    train_share_by_level: dict[str, float]  # Shares of these solutions.


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The critique method minus vanilla, after the last iteration."""

    critique_minus_vanilla: float
    ci95: tuple[float, float]
    paired_by: str = "problem"

    @classmethod
    def among(cls, differences: Iterable["Difference"]) -> "Comparison":
        """Returns that of differences in which the critique method is compared with vanilla."""
        [vanilla] = (row for row in differences if row.minus == "vanilla")
        return cls(vanilla.difference, vanilla.ci95)


@dataclasses.dataclass(frozen=True)
class Difference:
    """One method minus another, after the last iteration."""

    method: str
    minus: str
    difference: float
    ci95: tuple[float, float]
    paired_by: str = "problem"


@dataclasses.dataclass(frozen=True)
class Transcript:
    """A response with its critique and refinement."""

    question: str
    answer: str
    response: str
    critique: str
    refinement: str
    first_error: int | None  # The step that the critique calls wrong first, from 0.
    response_verdict: str
    refinement_verdict: str

    @classmethod
    def of(cls, refinement: Refinement) -> "Transcript":
        """Returns the transcript that ends in a refinement."""
        critique, solution = refinement.critique, refinement.critique.solution
        return cls(
            question=solution.problem.question,
            answer=solution.problem.answer,
            response=solution.text,
            critique=critique.text,
            refinement=refinement.text,
            first_error=critique.first_error,
            response_verdict=solution.verdict,
            refinement_verdict=refinement.verdict,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfImprovement(Results):
    """The results of `self_improve`."""

    test_problems: int
    iterations: Sequence[IterationRow]
    comparison: Comparison
    levels_by: str  # What the difficulty levels were read from.
    critic: CriticReport
    critique_data: dict[str, int] | None = None  # Counts by stage; None where a critic was given.
    transcripts: Sequence[Transcript]
    models: dict[str, str]  # Folders by role, such as "critique actor"; relative to `run_dir`.
    comparisons: Sequence[Difference] | None = None  # Where there are more methods than these two.

    @property
    def last_iteration(self) -> int:
        """The number of the last iteration, T."""
        return max(row.iteration for row in self.iterations)

    @property
    def methods(self) -> list[str]:
        """The names of the methods, in their order."""
        return list(dict.fromkeys(row.method for row in self.iterations))

    def rows(self, method: str) -> list[IterationRow]:
        """Returns the rows of a method by iteration, the SFT actor (0) first."""
        rows = [row for row in self.iterations if row.method == method]
        return sorted(rows, key=lambda row: row.iteration)

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """The cells of the table under `COLUMNS`, a row for each method and iteration."""
        return [
            (
                ARMS[method].label,
                str(row.iteration),
                percent(row.accuracy),
                "{:.1f}-{:.1f}".format(*(100 * bound for bound in row.ci95)),
                f"{row.train_size:,}",
                percent(hard_share(row.train_share_by_level)),
                f"{row.generated_tokens:,}",
            )
            for method in self.methods
            for row in self.rows(method)
        ]

    @property
    def table(self) -> str:
        """The table, method by iteration, as text."""
        return aligned([COLUMNS, *self.cells])

    def __str__(self) -> str:
        return f"{self.headline}\n\n{super().__str__()}"

    @property
    def headline(self) -> str:
        """How critique-in-the-loop and vanilla compare after the last iteration, in words."""
        points = 100 * self.comparison.critique_minus_vanilla
        low, high = (100 * bound for bound in self.comparison.ci95)
        critique, vanilla = (
            percent(self.rows(method)[-1].accuracy) for method in ("critique", "vanilla")
        )
        if low > 0:
            meaning = "The interval excludes zero: this critique-in-the-loop actor is better."
        elif high < 0:
            meaning = "The interval excludes zero: this critique-in-the-loop actor is worse."
        else:
            meaning = "The interval includes zero: this run does not tell the two methods apart."
        return (
            f"After iteration {self.last_iteration}, critique-in-the-loop solves {critique} of "
            f"the {self.test_problems:,} test problems and vanilla self-improvement {vanilla}: "
            f"a difference of {points:+.1f} percentage points "
            f"(95% interval {low:+.1f} to {high:+.1f}). {meaning}"
        )

    def write_report(self) -> None:
        """Writes the page. Figures by level are left out where problems have no levels."""
        write_page(
            "self_improve.html.jinja",
            self,
            self.report,
            columns=COLUMNS,
            arms=ARMS,
            figures=self._figures(),
            marked_lines=marked_lines,
        )

    def _figures(self) -> list[tuple[str, str | None]]:
        """Returns captions and drawings; None where there is nothing to draw."""
        labels = {name: ARMS[name].label for name in self.methods}
        styles = {ARMS[name].label: ARMS[name].style for name in self.methods}
        styles[_SFT] = figures.STYLES[2]
        curves = {
            labels[name]: [(row.iteration, row.accuracy, *row.ci95) for row in self.rows(name)]
            for name in self.methods
        }
        last = {name: self.rows(name)[-1] for name in ("vanilla", "critique")}
        by_level = {_SFT: self.rows("vanilla")[0].accuracy_by_level}
        by_level |= {labels[name]: row.accuracy_by_level for name, row in last.items()}
        training = {labels[name]: row.train_share_by_level for name, row in last.items()}
        ylabel = "Accuracy on the test set"
        return [
            (
                "Accuracy by iteration, with 95% intervals",
                figures.curves(curves, "Iteration (0: the SFT actor)", False, ylabel, styles),
            ),
            (
                "Accuracy by difficulty level, of the SFT actor and of the last iteration",
                figures.bars_by_level(by_level, ylabel, styles),
            ),
            (
                "Training data of the last iteration by difficulty level",
                figures.bars_by_level(training, "Share of the training data", styles),
            ),
        ]


def differences(scores: Mapping[str, Mapping[str, float]], seed: int) -> list[Difference]:
    """Compares the critique method with every other, by method and problem."""
    compared = {
        other: paired_difference(scores["critique"], scores[other], seed)
        for other in scores
        if other != "critique"
    }
    return [Difference("critique", other, d.mean, d.ci95) for other, d in compared.items()]


def transcripts(refinements: Iterable[Refinement]) -> list[Transcript]:
    """Picks a few refinements of each kind: repaired, still wrong, broken, still right."""
    flows: dict[tuple[bool, bool], list[Refinement]] = defaultdict(list)
    for refinement in refinements:
        flows[refinement.critique.solution.correct, refinement.correct].append(refinement)
    chosen = [*flows[False, True][:3], *flows[False, False][:2], *flows[True, False][:1]]
    return [Transcript.of(r) for r in (*chosen, *flows[True, True][:1])]
