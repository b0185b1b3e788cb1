"""Asking a model to put a mistake into a right solution (RG3, section 3.1), and reading the reply.

The nine kinds of mistake, the examples and the wording are this project's; the paper names the
parts of an example but publishes none.
"""

import dataclasses
import re

from jaxcritique.prompts.critique import split_steps
from jaxcritique.records import Messages, Solution

ERROR_TYPES = {
    "calculation": "an operation is the right one but comes out wrong",
    "counting": "things are miscounted: one too many, one too few, or something twice",
    "question_value": "a number is taken wrongly from the question",
    "step_value": "a number is taken wrongly from an earlier step",
    "unit_conversion": "units are converted wrongly, or not at all",
    "operator": "the wrong operation is used: say, added where it should be subtracted",
    "missing_step": "a needed step is skipped, and the solution goes on without it",
    "formula": "a formula is confused with another or remembered wrongly",
    "irrelevant_fact": "a fact that has no bearing on the question, or was never given, is used",
}


@dataclasses.dataclass(frozen=True)
class MistakeExample:
    """A few-shot example: the paper's five parts, and the mistake in words for the hint.

    Of the flawed response, its last part, only the flawed step is shown: the rest is sampled.
    """

    question: str
    reference: str  # The correct solution, one step a line.
    step: int  # Where the mistake goes in, from 1.
    error_type: str
    flawed_step: str
    mistake: str  # In words.


EXAMPLES = (
    MistakeExample(
        "A baker fills 6 trays with 14 rolls each and sells 50 rolls. How many are left?",
        "The trays hold 6*14=84 rolls.\nAfter the sale 84-50=34 rolls are left.",
        1,
        "calculation",
        "The trays hold 6*14=74 rolls.",
        "6*14 is 84, not 74.",
    ),
    MistakeExample(
        "Posts stand every 5 metres along a 40-metre fence, one at each end. A post costs $9. "
        "What do the posts cost?",
        "There are 40/5=8 gaps, so 8+1=9 posts.\nThe posts cost 9*9=$81.",
        1,
        "counting",
        "There are 40/5=8 gaps, so there are 8 posts.",
        "The post at the far end is not counted: there are 9 posts.",
    ),
    MistakeExample(
        "Lena reads 18 pages on Monday and 25 on Tuesday. How many of her book's 90 pages are "
        "left?",
        "She reads 18+25=43 pages.\nThere are 90-43=47 pages left.",
        1,
        "question_value",
        "She reads 18+35=53 pages.",
        "She reads 25 pages on Tuesday, not 35.",
    ),
    MistakeExample(
        "Five friends share 60 marbles equally. One of them then loses 4 and wins 7. How many has "
        "that friend now?",
        "Each friend gets 60/5=12 marbles.\nAfter the loss there are 12-4=8.\n"
        "After the win there are 8+7=15.",
        3,
        "step_value",
        "After the win there are 12+7=19.",
        "The 12 marbles are from before the loss; after it there are 8.",
    ),
    MistakeExample(
        "A film lasts 2 hours and 15 minutes, and the trailers 20 minutes. How many minutes is "
        "that together?",
        "The film lasts 2*60+15=135 minutes.\nTogether it is 135+20=155 minutes.",
        1,
        "unit_conversion",
        "The film lasts 2*100+15=215 minutes.",
        "An hour has 60 minutes, not 100.",
    ),
    MistakeExample(
        "A tank holds 300 litres. 45 litres are let out, and a third of the rest is used. How much "
        "is used?",
        "After letting out there are 300-45=255 litres.\nThe use is 255/3=85 litres.",
        1,
        "operator",
        "After letting out there are 300+45=345 litres.",
        "The 45 litres are let out, so they are subtracted, not added.",
    ),
    MistakeExample(
        "Two boxes hold 24 pens each. A quarter of all pens are red. How many are not red?",
        "There are 2*24=48 pens.\nOf these 48/4=12 are red.\nThe others are 48-12=36.",
        1,
        "missing_step",
        "Of these 24/4=6 are red.",
        "The pens of both boxes, 2*24=48, have to be added up first.",
    ),
    MistakeExample(
        "A rectangular garden is 8 metres long and 5 metres wide. Fence costs $3 a metre. What "
        "does the fence cost?",
        "The fence is 2*(8+5)=26 metres long.\nIt costs 26*3=$78.",
        1,
        "formula",
        "The fence is 8*5=40 metres long.",
        "That is the area; the perimeter is 2*(8+5)=26 metres.",
    ),
    MistakeExample(
        "Mira saves $15 a week for 6 weeks. Her brother is 12 years old. How much does she save?",
        "She saves 15*6=$90.",
        1,
        "irrelevant_fact",
        "She saves 15*6+12=$102.",
        "Her brother's age has nothing to do with her savings.",
    ),
)
_SHOWN = 3  # Examples in a prompt: the wanted kind's first.

_REPLY = "Flawed step: the step as it reads with the mistake, on one line\nMistake: what is wrong"
_FLAWED = re.compile(r"^\W*(?:flawed|wrong|new|modified) step(?: \d+)?\W*[:：][\s*_\"]*(.*)$", re.I)
_MISTAKE = re.compile(r"^\W*(?:mistake|error|explanation)\W*[:：][\s*_]*(.*)$", re.I)
_NUMBERED = re.compile(r"^step \d+\s*[:.)]\s*", re.I)


@dataclasses.dataclass(frozen=True)
class Mistake:
    """What a model wrote when asked for a mistake."""

    step: str
    words: str  # The mistake; "" where it was not described.


def mistake_messages(solution: Solution, at: int, error_type: str) -> Messages:
    """Asks for a mistake of a kind in step `at` (from 0) of a right solution."""
    kinds = "\n".join(f"- {name}: {words}" for name, words in ERROR_TYPES.items())
    wanted = sorted(EXAMPLES, key=lambda example: example.error_type != error_type)[:_SHOWN]
    examples = "\n\n".join(
        _task(e.question, e.reference, e.step, e.error_type)
        + f"\nFlawed step: {e.flawed_step}\nMistake: {e.mistake}"
        for e in wanted
    )
    steps = "\n".join(split_steps(solution.text))
    task = _task(solution.problem.question, steps, at + 1, error_type)
    return [
        {
            "role": "user",
            "content": "You make exercises in finding mistakes. Given a problem and a correct "
            "solution, you rewrite one step so that it holds one mistake of a given kind, the "
            f"steps before it staying as they are.\n\nKinds of mistakes:\n{kinds}\n\n"
            f"Examples:\n\n{examples}\n\nNow do the same here. Write nothing but two lines:\n"
            f"{_REPLY}\n\n{task}",
        }
    ]


def read_mistake(solution: Solution, at: int, text: str) -> Mistake | None:
    """Reads the reply; None where there is no flawed step in it, or the step is as it was."""
    found = {"step": "", "words": ""}
    for line in text.splitlines():
        for name, pattern in (("step", _FLAWED), ("words", _MISTAKE)):
            if (match := pattern.match(line)) and not found[name]:
                found[name] = match[1].strip().strip('*"_ ')
    step = _NUMBERED.sub("", found["step"])
    original = split_steps(solution.text)[at]
    if not step or step.split() == original.split():
        return None
    return Mistake(step, found["words"])


def _task(question: str, steps: str, number: int, error_type: str) -> str:
    numbered = "\n".join(f"Step {i}: {line}" for i, line in enumerate(steps.split("\n"), start=1))
    return (
        f"Problem: {question}\nCorrect solution:\n{numbered}\n"
        f"Put the mistake into: step {number}\nKind of mistake: {error_type}"
    )
