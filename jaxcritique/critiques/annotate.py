"""Annotators: who writes the critiques of section 3.2.

`ArithmeticAnnotator` is a program. It needs a reference solution with calculations, and really
works out every step.
"""

import dataclasses

from jaxcritique.critiques.arithmetic import Calculation, calculations
from jaxcritique.prompts.critique import StepVerdict, render_critique, split_steps
from jaxcritique.records import Critique, Solution


@dataclasses.dataclass(frozen=True)
class ArithmeticAnnotator:
    """Checks each step's arithmetic, and its use of earlier values, against the reference.

    Attributes:
      one_plan: whether the reference's calculations are the only right ones, as in the generated
        stories. Elsewhere (GSM8K) a step that departs from the reference is called wrong only in
        a solution with a wrong answer.
      stop_at_first_error: end after the first wrong step, as the paper does; otherwise the steps
        after it are labelled too.
    """

    one_plan: bool
    stop_at_first_error: bool = True

    def annotate(self, solution: Solution) -> Critique | None:
        """Returns the critique, or None where the program cannot vouch for one.

        A right answer reached by a wrong step is discarded, as section 3.2 asks, and so is a text
        without calculations.
        """
        reference = calculations(solution.problem.rationale)
        if not reference or not calculations(solution.text):
            return None  # Nothing a program could check.
        left = list(reference)
        verdicts: list[StepVerdict] = []
        for step in split_steps(solution.text):
            verdict = self._check(step, left, solution.correct)
            verdicts.append(verdict)
            if not verdict.correct and self.stop_at_first_error:
                break
        first_error = next((i for i, verdict in enumerate(verdicts) if not verdict.correct), None)
        sound = first_error is None
        if solution.correct and (not sound or (self.one_plan and left)):
            return None  # A right answer, but a step is wrong or one of the only plan is missing.
        remark = ""
        if sound and not solution.correct:
            ending = f"the next step is {_worked_out(left[0])}." if left else None
            remark = ending or f"the last step gives {reference[-1].stated}."
        says_correct = sound and solution.correct
        text = render_critique(verdicts, says_correct, remark)
        return Critique(solution, text, says_correct, first_error)

    def _check(self, step: str, left: list[Calculation], answer_correct: bool) -> StepVerdict:
        """Judges a step; takes the calculations it performs off `left`, those still to be done."""
        explanations = []
        for mark in calculations(step):
            expected = self._match(mark, left)
            if expected is not None:
                left.remove(expected)
            elif self.one_plan or not answer_correct:
                expected = left[0] if left else None
                if expected is None:
                    return StepVerdict(step, "no step is left to do.", correct=False)
                wrong = f"{_worked_out(expected)}, not {mark.expression}={mark.stated}."
                return StepVerdict(step, wrong, correct=False)
            if not mark.right:
                right = _worked_out(expected or mark)
                return StepVerdict(step, f"{right}, not {mark.stated}.", correct=False)
            explanations.append(_worked_out(expected or mark))
        return StepVerdict(step, f"{', '.join(explanations) or 'no calculation'}.", correct=True)

    def _match(self, mark: Calculation, left: list[Calculation]) -> Calculation | None:
        for expected in left:
            if mark.same_operation(expected):
                return expected
            # Without a single plan, another way to a value the reference also has is right.
            if not self.one_plan and mark.right and mark.value == expected.value:
                return expected
        return None


def _worked_out(mark: Calculation) -> str:
    """`12+15=27`, with the true value whatever the mark states."""
    if mark.value is None:
        return f"{mark.expression} has no value"
    if mark.right:
        return f"{mark.expression}={mark.stated}"
    exact = mark.value.limit_denominator(1000)
    text = str(exact.numerator) if exact.denominator == 1 else f"{float(mark.value):.6g}"
    return f"{mark.expression}={text}"
