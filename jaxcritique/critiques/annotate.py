"""Annotators: who writes the critiques of section 3.2.

`ArithmeticAnnotator` is a program: it needs a reference solution with calculations, and really
works out every step. `ModelAnnotator` asks a language model through any engine.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from tqdm import tqdm

from jaxcritique.critiques.arithmetic import Calculation, calculations, evaluate, marks, parts
from jaxcritique.errors import InvalidInput
from jaxcritique.prompts.annotation import Mode, annotation_messages, read_annotation
from jaxcritique.prompts.critique import StepVerdict, parse_critique, render_critique, split_steps
from jaxcritique.prompts.templates import PromptSet
from jaxcritique.records import Critique, Problem, Solution
from jaxcritique.roles import Context, Prompt, Replies, read_critique, run_stage
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.store import Dataset
from jaxcritique.tasks import find_task

CHECKER = "checker"  # The setting of a program that criticises, instead of a model's folder.
Outcome = Literal["accepted", "disagrees", "unchecked", "unparsable", "failed"]


@dataclasses.dataclass(frozen=True)
class Annotation:
    """What came of annotating one solution; every solution has one."""

    solution: Solution
    # "disagrees": the annotator's verdict is not the grader's (section 3.2 discards these);
    # "unchecked": a program cannot check it; "failed": no reply came.
    outcome: Outcome
    text: str  # The critique where it is accepted, else what was written.

    @property
    def critique(self) -> Critique | None:
        """The critique, where there is one to be used."""
        return read_critique(self.solution, self.text) if self.outcome == "accepted" else None


@dataclasses.dataclass(frozen=True)
class Annotated:
    """The annotations, in the order of the solutions, and the stages they cost."""

    annotations: list[Annotation]
    stages: list[Dataset[Any]]


class Annotator(Protocol):
    """Whoever writes critiques of many solutions."""

    @property
    def key(self) -> str:
        """Names the annotator and its settings, for the stages that depend on them."""
        ...

    @property
    def name(self) -> str:
        """What the dataset calls it."""
        ...

    def annotate_all(self, context: Context, solutions: Sequence[Solution]) -> Annotated:
        """Annotates every solution, with the hints that its origin allows."""
        ...


@dataclasses.dataclass(frozen=True)
class ModelAnnotator:
    """Asks a language model, again where no usable reply comes.

    Attributes:
      model: any engine.
      name: what the dataset calls it.
      mode: whether it names the first error of the whole or labels step by step, or is asked as
        a critic is.
      max_tokens: of a reply.
      temperature: of the model.
      attempts: how often a solution is shown before its last reply is given up.
      prompts: those that the model was trained on; None: the context's.
    """

    model: Sampler
    name: str
    mode: Mode
    max_tokens: int
    temperature: float
    attempts: int
    prompts: PromptSet | None = None

    @property
    def key(self) -> str:
        """Names the weights and the mode; the stages know the rest by their requests."""
        return f"{self.model.key}/{self.mode}/{self.attempts}"

    def annotate_all(self, context: Context, solutions: Sequence[Solution]) -> Annotated:
        """See `Annotator`."""
        prompts = self.prompts or context.prompts
        settled: dict[int, Annotation] = {}
        stages: list[Dataset[Any]] = []
        for attempt in range(self.attempts):
            left = [
                i
                for i in range(len(solutions))
                if i not in settled or settled[i].outcome in ("failed", "unparsable")
            ]
            if not left:
                break
            replies = run_stage(
                context.reseeded(attempt),
                f"annotate-{attempt + 1}",
                Annotation,
                self.model,
                [
                    Prompt(s, annotation_messages(prompts, s, self.mode))
                    for s in (solutions[i] for i in left)
                ],
                self._read,
                1,
                self.temperature,
                self.max_tokens,
            )
            stages.append(replies)
            settled.update(zip(left, replies, strict=True))
        return Annotated([settled[i] for i in range(len(solutions))], stages)

    def _read(self, solution: Solution, replies: Replies) -> list[Annotation]:
        [(reply, _)] = replies
        if reply.finish_reason == "error":
            return [Annotation(solution, "failed", reply.error or "")]
        read = read_annotation(solution, reply.text, self.mode)
        if read is None:
            return [Annotation(solution, "unparsable", reply.text)]
        critique, says_correct = read
        if says_correct != solution.correct:
            return [Annotation(solution, "disagrees", reply.text)]
        return [Annotation(solution, "accepted", critique)]


@dataclasses.dataclass(frozen=True)
class ArithmeticAnnotator:
    """Checks each step's arithmetic, and its use of earlier values, against the reference.

    Attributes:
      one_plan: whether the reference's calculations are the only right ones, as in the generated
        stories. Elsewhere (GSM8K) a step that departs from the reference may be another way: a
        solution with a wrong answer and such a step is unchecked, unless RG3 put its mistake there.
    """

    one_plan: bool
    name = "arithmetic checker"

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> "ArithmeticAnnotator":
        """Returns the annotator for problems, which are taken to be of the first one's task."""
        task = problems[0].task if problems else ""
        return cls(bool(task) and find_task(task).one_plan)

    @property
    def key(self) -> str:
        """Names the program's settings; the hash cannot know its code."""
        return f"arithmetic/{self.one_plan}"

    def annotate_all(self, context: Context, solutions: Sequence[Solution]) -> Annotated:
        """See `Annotator`."""
        annotations = []
        for solution in tqdm(solutions, "annotate", unit="path", delay=2):
            critique = self.annotate(solution)
            text = critique.text if critique else ""
            outcome: Outcome = "accepted" if critique else "unchecked"
            annotations.append(Annotation(solution, outcome, text))
        return Annotated(annotations, [])

    def annotate(self, solution: Solution) -> Critique | None:
        """Returns the critique, or None where the program cannot vouch for one.

        A right answer reached by a wrong step is discarded, as section 3.2 asks, and so is a text
        without calculations. A critique ends with the first wrong step.
        """
        reference = calculations(solution.problem.rationale)
        if not reference or not calculations(solution.text):
            return None  # Nothing a program could check.
        left = list(reference)
        verdicts: list[StepVerdict] = []
        planted = solution.error_step if solution.source == "RG3" else None
        for i, step in enumerate(split_steps(solution.text)):
            departing: bool | None = True if solution.correct else None
            if self.one_plan or i == planted:
                departing = False
            verdict = self._check(step, left, departing)
            if verdict is None:
                return None
            verdicts.append(verdict)
            if not verdict.correct:
                break
        first_error = next((i for i, verdict in enumerate(verdicts) if not verdict.correct), None)
        sound = first_error is None
        if solution.correct and (not sound or (self.one_plan and left)):
            return None  # A right answer, but a step is wrong or one of the only plan is missing.
        remark = ""
        if sound and not solution.correct:
            # Neither remark holds the value that is still to be found.
            ending = f"the next step is {left[0].expression}." if left else None
            remark = ending or "the answer is not what the steps come to."
        says_correct = sound and solution.correct
        text = render_critique(verdicts, says_correct, remark)
        return Critique(solution, text, says_correct, first_error)

    def _check(
        self, step: str, left: list[Calculation], departing: bool | None
    ) -> StepVerdict | None:
        """Judges a step; takes the calculations it performs off `left`, those still to be done.

        `departing`: whether a calculation that the reference lacks is right. None: unknown; the
        step is then judged only if its arithmetic is wrong.
        """
        explanations = []
        for mark in calculations(step):
            expected = self._match(mark, left)
            if expected is not None:
                left.remove(expected)
            elif departing is None and (mark.right or mark.value is None):
                return None
            elif departing is False:
                expected = left[0] if left else None
                if expected is None:
                    return StepVerdict(step, "no step is left to do.", correct=False)
                wrong = f"{worked_out(expected)}, not {mark.expression}={mark.stated}."
                return StepVerdict(step, wrong, correct=False)
            if not mark.right:
                right = worked_out(expected or mark)
                return StepVerdict(step, f"{right}, not {mark.stated}.", correct=False)
            explanations.append(worked_out(expected or mark))
        return StepVerdict(step, f"{'; '.join(explanations) or 'no calculation'}.", correct=True)

    def _match(self, mark: Calculation, left: list[Calculation]) -> Calculation | None:
        for expected in left:
            if mark.same_operation(expected):
                return expected
            # Without a single plan, another way to a value the reference also has is right.
            if not self.one_plan and mark.right and mark.value == expected.value:
                return expected
        return None


def checker(problems: Sequence[Problem]) -> ArithmeticAnnotator | None:
    """Returns the program that checks calculations; None unless most of the problems have them."""
    checkable = sum(
        bool(problem.task and find_task(problem.task).checkable and marks(problem.rationale))
        for problem in problems
    )
    return ArithmeticAnnotator.of(problems) if 2 * checkable >= len(problems) else None


def require_checker(setting: str, problems: Sequence[Problem]) -> ArithmeticAnnotator:
    """Returns the checker, where there is no other annotator or critic.

    Raises:
      InvalidInput: most of the problems' solutions have no calculations to check.
    """
    annotator = checker(problems)
    if annotator is None:
        raise InvalidInput(
            f"`{setting}`: the checker works out calculations (<<1+2=3>>), which most of these "
            "problems' solutions do not have. Use a model, or a task that has them."
        )
    return annotator


def is_false(critique: Critique, checker: ArithmeticAnnotator) -> bool | None:
    """Whether a critique errs: another first error than the checker's, or a correction that does.

    Returns None where the checker cannot say.
    """
    checked = checker.annotate(critique.solution)
    if checked is None:
        return None
    if (critique.says_correct, critique.first_error) != (checked.says_correct, checked.first_error):
        return True
    steps = dict(enumerate(split_steps(critique.solution.text)))
    return any(
        _misleads(read.explanation, steps.get(read.number, ""))
        for read in parse_critique(critique.text).steps
    )


def _misleads(explanation: str, step: str) -> bool:
    """Whether a sum in it is wrong, or the parts of one do not come to the whole.

    Sums of the step itself are only quoted.
    """
    quoted = calculations(step)
    right, _, _ = explanation.partition(", not ")  # After it stands what is wrong.
    for clause in right.split(";"):
        found = [calculation for calculation in calculations(clause) if calculation not in quoted]
        if not all(calculation.right for calculation in found):
            return True
        whole, colon, _ = clause.partition(":")
        value = evaluate(whole) if colon and re.search(r"\d\s*[-+*/]", whole) else None
        if found and value is not None and found[-1].value != value:
            return True
    return False


def worked_out(mark: Calculation) -> str:
    """`12+15: 12+10=22, 22+5=27`, with the true value whatever the mark states.

    In parts because a critic that writes down more of its work than the actor does makes other
    and fewer mistakes than the actor (docs/log.md).
    """
    if in_parts := parts(mark.expression):
        return f"{mark.expression}: {', '.join(in_parts)}"
    if mark.value is None:
        return f"{mark.expression} has no value"
    if mark.right:
        return f"{mark.expression}={mark.stated}"
    exact = mark.value.limit_denominator(1000)
    text = str(exact.numerator) if exact.denominator == 1 else f"{float(mark.value):.6g}"
    return f"{mark.expression}={text}"
