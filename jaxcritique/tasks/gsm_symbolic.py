"""GSM-Symbolic (Mirzadeh et al., 2024): GSM8K's stories with other names and numbers.

As the package `reasoning-gym` generates them. Its rationales do not mark their calculations, and
some 5% hold one that is rounded, so no program can check solutions.
"""

import hashlib
import importlib

from jaxcritique.records import Problem, digest
from jaxcritique.tasks.task import GeneratedTask, Split, register

_TEST_SHARE = 8  # One question in so many is a test question.


def generate(split: Split, count: int, seed: int) -> list[Problem]:
    """Returns `count` different problems.

    The hash of a question decides its split, so that train and test never share one.

    Raises:
      ImportError: `reasoning-gym` is not installed.
      ValueError: there are not `count` different problems.
    """
    try:
        reasoning_gym = importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise ImportError(
            f"{error}: `task=gsm_symbolic` needs pip install 'jaxcritique[reasoning-gym]'."
        ) from error

    problems: dict[str, Problem] = {}
    rows = reasoning_gym.create_dataset(
        "gsm_symbolic", seed=seed, size=4 * _TEST_SHARE * (count + 25)
    )
    for number in range(rows.size):
        if len(problems) == count:
            break
        row = rows[number]
        question, answer = row["question"], row["answer"]
        if _split_of(question) == split:
            steps, _, _ = row["metadata"]["answer_cot"].rpartition("####")
            problems[question] = Problem(
                id=f"gsm_symbolic-{digest(question)}",
                question=question,
                answer=answer,
                rationale=f"{steps.strip()}\nThe answer is {answer}.",
                task="gsm_symbolic",
            )
    if len(problems) < count:
        raise ValueError(f"there are fewer than {count} different {split} problems to be had")
    return list(problems.values())


def _split_of(question: str) -> Split:
    number = int(hashlib.sha256(question.encode()).hexdigest(), 16)
    return "test" if number % _TEST_SHARE == 0 else "train"


register(GeneratedTask(name="gsm_symbolic", licence="apache-2.0", generate=generate))
