"""`grade` and `Grader`: the verdict on a response, given the gold answer."""

import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from jaxcritique.grading.algebra import FastAlgebra
from jaxcritique.grading.compare import Decision, compare
from jaxcritique.grading.extract import extract_answer
from jaxcritique.grading.pool import Pool
from jaxcritique.records import Verdict

Kind = Literal["response", "answer"]
CACHE_SIZE = 1 << 14  # Pairs of answers.
MAX_CACHED = 500  # Characters of a cached pair, so that the cache stays below 100 MB.
LONGEST_ANSWER = 300  # Characters; a longer reference is taken for a solution.

_Decide = Callable[[str, str | None], Decision]


@dataclasses.dataclass(frozen=True)
class Grade:
    """The verdict on one prediction.

    Attributes:
      verdict: "correct", "wrong", "unparsable" (no answer, or one that cannot be read) or
        "timeout" (the comparison ran past its deadline or its memory).
      rule: what decided, such as "number", "interval" or "no answer".
      extracted: the answer found in the prediction; None if there is none.
      gold: the answer found in the gold text.
      fallback: whether the prediction does not announce its answer, so that it was guessed.
    """

    verdict: Verdict
    rule: str
    extracted: str | None
    gold: str
    fallback: bool = False


class Grader:
    """Grades predictions. A context manager; safe to share between threads.

    Numbers, and most else, are compared in the calling thread; a worker process is started only
    when an answer first needs more (see `compare`). From async code, call it in a thread:
    `await asyncio.to_thread(grader.grade, gold, prediction)`. Decisions are cached, timeouts
    included.

    Args:
      workers: the most worker processes to have at once.
      timeout: seconds that one comparison may take in a worker, from the moment it starts there.
        Of the four verdicts only "timeout" can depend on how busy the machine is.
      strict: accept only the same form: no rounded decimals, no 10% for 10, lists in order,
        units and names present on both sides or neither.

    Raises:
      ValueError: `workers` or `timeout` is not positive.
    """

    def __init__(self, workers: int = 2, timeout: float = 5.0, strict: bool = False):
        self._settings = (workers, timeout, strict)
        self._workers = workers
        self._strict = strict
        self._algebra = FastAlgebra(strict)
        self._pool = Pool(workers, timeout)
        self._at_once = _remembered(self._compare_at_once)
        self._in_worker = _remembered(self._compare_in_worker)

        # Ends the workers of a grader that is never closed, at the latest when the process exits.
        weakref.finalize(self, self._pool.close)

    def __reduce__(self):
        return _grader_of_this_process, self._settings

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker processes. The grader may be used again; it then starts new ones."""
        self._pool.close()

    @property
    def workers_started(self) -> int:
        """How many worker processes were started so far, replacements included."""
        return self._pool.started

    def grade(self, gold: str, prediction: str, kind: Kind = "response") -> Grade:
        """Grades one prediction.

        Args:
          gold: the reference answer, or a solution that boxes it.
          prediction: model text; never evaluated.
          kind: "response" for a whole solution, whose answer is extracted first; "answer" for an
            answer alone.

        Raises:
          ValueError: `kind` is neither.
        """
        question = _question(gold, prediction, kind)
        decision = self._at_once(*question.pair)
        if decision.verdict is None:
            decision = self._in_worker(*question.pair)
        return _grade(question, decision)

    def grade_all(self, rows: Iterable[tuple[str, str]], kind: Kind = "response") -> list[Grade]:
        """Grades (gold, prediction) rows; the grades are in the order of the rows.

        Raises:
          ValueError: `kind` is neither "response" nor "answer".
        """
        questions = [_question(gold, prediction, kind) for gold, prediction in rows]
        decisions = [self._at_once(*question.pair) for question in questions]
        undecided = [index for index, decision in enumerate(decisions) if decision.verdict is None]
        if undecided:
            with ThreadPoolExecutor(self._workers) as threads:
                pairs = (questions[index].pair for index in undecided)
                in_order = threads.map(lambda pair: self._in_worker(*pair), pairs)
                for index, decision in zip(undecided, in_order, strict=True):
                    decisions[index] = decision
        return list(map(_grade, questions, decisions))

    def _compare_at_once(self, gold: str, answer: str | None) -> Decision:
        if answer is None:
            return Decision("unparsable", "no answer")
        return compare(gold, answer, self._algebra, self._strict)

    def _compare_in_worker(self, gold: str, answer: str | None) -> Decision:
        assert answer is not None
        return self._pool.compare(gold, answer, self._strict)


@functools.cache
def _grader_of_this_process(workers: int, timeout: float, strict: bool) -> Grader:
    """Returns the grader that all pickled copies with these settings become in this process."""
    return Grader(workers, timeout, strict)


def grade(gold: str, prediction: str, *, kind: Kind = "response", strict: bool = False) -> Grade:
    """Grades one prediction as `Grader.grade` does, in a grader of its own.

    For more than a few predictions use a `Grader`: it keeps its worker processes.

    Raises:
      ValueError: `kind` is neither "response" nor "answer".
    """
    with Grader(workers=1, strict=strict) as grader:
        return grader.grade(gold, prediction, kind)


def _remembered(decide: _Decide) -> _Decide:
    """Returns `decide` with a cache for pairs of short answers."""
    cached = functools.lru_cache(maxsize=CACHE_SIZE)(decide)

    def call(gold: str, answer: str | None) -> Decision:
        is_short = len(gold) + len(answer or "") <= MAX_CACHED
        return (cached if is_short else decide)(gold, answer)

    return call


@dataclasses.dataclass(frozen=True)
class _Question:
    """The texts to compare; `answer` is None if the prediction has none."""

    gold: str
    answer: str | None
    fallback: bool

    @property
    def pair(self) -> tuple[str, str | None]:
        return self.gold, self.answer


def _question(gold: str, prediction: str, kind: Kind) -> _Question:
    if not isinstance(gold, str) or not isinstance(prediction, str):
        wrong = prediction if isinstance(gold, str) else gold
        raise TypeError(f"gold and prediction must be texts, not {type(wrong).__name__}: {wrong!r}")
    if kind == "answer":
        return _Question(_bare(gold), _bare(prediction), fallback=False)
    if kind != "response":
        raise ValueError(f"kind is {kind!r}, not 'response' or 'answer'")
    extraction = extract_answer(prediction)
    if extraction is None:
        return _Question(_bare(gold), None, fallback=False)
    return _Question(_bare(gold), extraction.text, extraction.fallback)


def _bare(answer: str) -> str:
    """Returns an answer without the box or the solution it may come in."""
    if "boxed" in answer or "####" in answer or len(answer) > LONGEST_ANSWER:
        extraction = extract_answer(answer)
        # The last number of a long text that announces no answer is not its answer.
        if extraction is not None and not extraction.fallback:
            return extraction.text
    return answer


def _grade(question: _Question, decision: Decision) -> Grade:
    if decision.verdict is None:
        raise RuntimeError("a comparison was left undecided")
    return Grade(decision.verdict, decision.rule, question.answer, question.gold, question.fallback)
