"""Self-talk (section 7): steps and what was said of each, as one text of somebody thinking aloud.

    That makes 46 books.
    Let me check: 19+27=46. That is right.
    That leaves 32 books.
    Let me check: 46/2=23, not 32. Wait, no. I do it again.
    That leaves 23 books.
    Let me check: 46/2=23. Good.
    The answer is 23.

A check says what it finds before it says what that means, as critiques do and for their reason. The
steps themselves stay as they are, one a line.
"""

import dataclasses
import random
from collections.abc import Iterable

from jaxcritique.records import Messages, Problem

_CHECKS = ("Let me check", "Checking that", "Let me make sure")
_RIGHT = ("That is right.", "Good.", "So far so good.")
_WRONG = (
    "Wait, that is wrong. Let me do it again.",
    "Wait, no. I do it again.",
    "Wait, that cannot be right. Once more.",
)


@dataclasses.dataclass(frozen=True)
class Thought:
    """A step, and what its critic said of it."""

    step: str  # "" where a solution that ended too early is found fault with.
    feedback: str  # "" where the critic gave no reason.
    correct: bool


def think_aloud(thoughts: Iterable[Thought], ending: str, rng: random.Random) -> str:
    """Joins thoughts with transitional phrases.

    Args:
      thoughts: in order, the steps that were given up included.
      ending: the line with the final answer; "" where the last step states it.
      rng: decides which phrases.
    """
    lines = []
    for thought in thoughts:
        check, verdict = rng.choice(_CHECKS), rng.choice(_RIGHT if thought.correct else _WRONG)
        feedback = thought.feedback.strip()
        if feedback and feedback[-1] not in ".!?":
            feedback += "."
        said = f"{check}: {feedback} {verdict}" if feedback else f"{check}. {verdict}"
        lines += [thought.step, said]
    return "\n".join(line for line in [*lines, ending] if line)


def smoothing_messages(problem: Problem, text: str) -> Messages:
    """Asks a model to make `think_aloud`'s text read as a person's train of thought."""
    return [
        {
            "role": "user",
            "content": "Here are a problem and a train of thought on it. Each step is followed by "
            "a check, and a step that the check finds wrong is done again.\n\n"
            f"Problem: {problem.question}\n\nTrain of thought:\n{text}\n\n"
            "Rewrite the train of thought so that it reads as one person thinking aloud. Add words "
            "that connect, such as 'wait', 'let me check' or 'so', and drop checks that say "
            "nothing. Keep every step, every mistake, what is said against it and its correction, "
            "in this order, with all calculations as they are; add no reasoning of your own. One "
            "thought a line. The last line is the last line above, unchanged.",
        }
    ]
