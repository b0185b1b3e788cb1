"""What each player is shown (section 2 of the paper), as chat messages.

`FULL` spells every request out, for models that know English; `COMPACT` is for models which
learn the formats in training and pay for every token, such as the laptop default.
"""

import dataclasses
import json
import os
import pathlib

from jaxcritique.errors import InvalidInput
from jaxcritique.records import Critique, Messages, Problem, Solution
from jaxcritique.store import write_atomically
from jaxcritique.tasks.task import Task, find_task

FILE = "jaxcritique.json"  # In a model's folder.


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """The wording of every request made of a player."""

    solve: str  # Fields: question, answer_form.
    critique: str  # Fields: question, solution.
    refine: str  # Fields: critique, answer_form.
    self_talk: str  # Fields: question, answer_form.
    self_correct: str  # Field: answer_form. Takes the place of `refine` where nobody criticises.

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "PromptSet":
        """Returns the prompts that a model was trained on, by the `jaxcritique.json` of its folder.

        The file holds the name of a prompt set, {"prompts": "compact"}, or the wording of one.
        Without a file they are `FULL`.

        Raises:
          InvalidInput: the file holds neither.
        """
        path = pathlib.Path(folder) / FILE
        if not path.is_file():
            return FULL
        try:
            prompts = json.loads(path.read_bytes())["prompts"]
            return PROMPT_SETS[prompts] if isinstance(prompts, str) else cls(**prompts)
        except (ValueError, TypeError, KeyError):
            raise InvalidInput(
                f'{path}: not {{"prompts": NAME}} with a name of {", ".join(PROMPT_SETS)}, nor the '
                "wording of prompts."
            ) from None

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes the `jaxcritique.json` that `read` reads."""
        names = (name for name, known in PROMPT_SETS.items() if known == self)
        text = json.dumps({"prompts": next(names, None) or dataclasses.asdict(self)}, indent=2)
        write_atomically(pathlib.Path(folder) / FILE, text + "\n")

    def to_solve(self, problem: Problem) -> Messages:
        """The actor's first turn: y = pi_theta(x)."""
        return [_user(self.solve, problem, question=problem.question)]

    def to_self_talk(self, problem: Problem) -> Messages:
        """The actor's only turn where it checks and corrects itself step by step (section 7)."""
        return [_user(self.self_talk, problem, question=problem.question)]

    def to_critique(self, solution: Solution) -> Messages:
        """The critic's turn: c = pi_phi(x, y). It sees the question and the solution only."""
        problem = solution.problem
        return [_user(self.critique, problem, question=problem.question, solution=solution.text)]

    def to_refine(self, critique: Critique) -> Messages:
        """The actor's second turn: y' = pi_theta(x, y, c).

        Where the critique has no text it is self-correction, y' = pi_theta(x, y) (section 2).
        """
        problem = critique.solution.problem
        template = self.refine if critique.text.strip() else self.self_correct
        return [
            *self.to_solve(problem),
            {"role": "assistant", "content": critique.solution.text},
            _user(template, problem, critique=critique.text),
        ]


FULL = PromptSet(
    solve=(
        "{question}\n\nSolve the problem step by step, one step a line. "
        "Give the final answer on a last line in the form '{answer_form}'"
    ),
    critique=(
        "Here are a problem and a proposed solution, in which each line is one step.\n\n"
        "Problem: {question}\n\nSolution:\n{solution}\n\n"
        "Check the solution step by step. For each step write three lines:\n"
        "Step N: the step, repeated\n"
        "Explanation: what the step should compute, and why it is right or not\n"
        "Correctness: Correct or Wrong\n"
        "Stop after the first wrong step. End with one line: 'Final answer: Correct' or "
        "'Final answer: Wrong'."
    ),
    refine=(
        "A reader has checked your solution step by step:\n\n{critique}\n\n"
        "Use this critique to write a new, complete, step-by-step solution, one step a line. "
        "Give the final answer on a last line in the form '{answer_form}'"
    ),
    self_talk=(
        "{question}\n\nSolve the problem step by step, thinking aloud: check each step, and where "
        "it is wrong say so and do it again before you go on. "
        "Give the final answer on a last line in the form '{answer_form}'"
    ),
    self_correct=(
        "Check your solution step by step yourself. Then write a new, complete, step-by-step "
        "solution in which whatever was wrong is right, one step a line. "
        "Give the final answer on a last line in the form '{answer_form}'"
    ),
)
COMPACT = PromptSet(
    solve="{question}",
    critique="{question}\nSolution:\n{solution}\nCheck each step.",
    refine="{critique}\nWrite a new solution.",
    self_talk="{question}\nThink aloud.",
    self_correct="Write a new solution.",
)
PROMPT_SETS = {"full": FULL, "compact": COMPACT}


def _user(template: str, problem: Problem, **fields: str) -> dict[str, str]:
    # Parts of the template are replaced in one pass, so braces in model text stay as they are.
    task = find_task(problem.task) if problem.task else Task
    fields["answer_form"] = task.answer_form
    return {"role": "user", "content": template.format_map(fields)}
