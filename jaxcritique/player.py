"""Models as objects: `load` or `fine_tune` one, then let it solve, criticise and refine.

actor, critic = load("path/to/actor"), load("path/to/critic")
solution = actor.solve("Tom has 3 apples and buys 4 more. How many has he now?")
refinement = actor.refine(critic.critique(solution))
"""

import dataclasses
import functools
import math
import operator
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar, Unpack, cast, overload

from jaxcritique.critiques.annotate import ModelAnnotator, require_checker
from jaxcritique.critiques.pipeline import CritiqueDataConfig, critique_dataset
from jaxcritique.errors import InvalidInput, checking_input
from jaxcritique.grading import Grader
from jaxcritique.models.huggingface import ModelFolder, check_weights, save_pretrained
from jaxcritique.models.tokenizer import check_tokenizer
from jaxcritique.prompts import templates
from jaxcritique.prompts.templates import PROMPT_SETS, PromptSet
from jaxcritique.records import Critique, Problem, Refinement, Solution
from jaxcritique.roles import Context, RolesConfig, Start, criticise, no_critique, refine, respond
from jaxcritique.rollout.engines import EngineConfig, Loaded, hold_fine_tuned
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.run_folder import claim, release
from jaxcritique.store import Store
from jaxcritique.testtime.rounds import as_solution
from jaxcritique.training.data import Example
from jaxcritique.training.loop import train
from jaxcritique.training.sft import ExecutionConfig, FineTuned, SftConfig, prepare

Record = Problem | Solution | Critique | Refinement
T = TypeVar("T")
R = TypeVar("R")

_ACTOR_TOKENS, _CRITIC_TOKENS = RolesConfig().actor_tokens, RolesConfig().critic_tokens


class Sampling(TypedDict, total=False):
    """Keywords of a player's methods."""

    temperature: float  # 0: greedy.
    seed: int
    max_tokens: int  # Of each sample.


class Player:
    """A model with the prompts that it was trained on, as actor and critic.

    Its three methods sample records. What they return has the shape of what they are given:

        solve(question)               a Solution
        solve([question, ...])        a list of Solutions, in the order of the questions
        solve(question, n=4)          a list of four Solutions
        solve([question, ...], n=4)   a list of four Solutions for each question

    The texts are a function of the arguments: the same call returns the same texts (on a server as
    far as it honours seeds). The model stays loaded until `close`, or the end of a `with` block.

    Attributes:
      prompts: the wording of its prompts.
      engine: where it is sampled.
      folder: the Hugging Face folder it was loaded from; None: it was fine-tuned here, or is on a
        server.
      trained: what came of its fine-tuning here, with the loss of each step in `trained.history`;
        None: it was loaded.
    """

    def __init__(
        self,
        sampler: Loaded,
        prompts: PromptSet,
        engine: EngineConfig,
        folder: pathlib.Path | None = None,
        trained: FineTuned | None = None,
    ):
        """Takes what `load` and `fine_tune` make."""
        self.prompts = prompts
        self.engine = engine
        self.folder = folder
        self.trained = trained
        self._name = sampler.key
        self._sampler: Loaded | None = sampler

    def __repr__(self) -> str:
        return f"Player({self._name!r})"

    @overload
    def solve(
        self, question: str | Problem, *, n: None = None, **sampling: Unpack[Sampling]
    ) -> Solution: ...
    @overload
    def solve(
        self, question: str | Problem, *, n: int, **sampling: Unpack[Sampling]
    ) -> list[Solution]: ...
    @overload
    def solve(
        self, question: Iterable[str | Problem], *, n: None = None, **sampling: Unpack[Sampling]
    ) -> list[Solution]: ...
    @overload
    def solve(
        self, question: Iterable[str | Problem], *, n: int, **sampling: Unpack[Sampling]
    ) -> list[list[Solution]]: ...
    def solve(
        self,
        question: str | Problem | Iterable[str | Problem],
        *,
        n: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        max_tokens: int = _ACTOR_TOKENS,
    ) -> Any:
        """Samples solutions, y = pi_theta(x), and grades them.

        Args:
          question: one question or several. The solutions of a text, or of a `Problem` without an
            answer, are "ungraded".
          n: solutions of each question; None: one, which is not in a list.
          temperature: of sampling; 0 is greedy.
          seed: of sampling.
          max_tokens: the longest solution.

        Returns:
          See the class.

        Raises:
          InvalidInput: a question is empty, or a number is out of range.
          SamplerError: nothing could be sampled, for example since the prompt exceeds the model's
            context. If only some samples fail, these are without text, and a warning is logged.
        """
        return self._sample(
            "solve", respond, question, (str, Problem), _start, n, temperature, seed, max_tokens
        )

    @overload
    def critique(
        self, solution: Solution | Refinement, *, n: None = None, **sampling: Unpack[Sampling]
    ) -> Critique: ...
    @overload
    def critique(
        self, solution: Solution | Refinement, *, n: int, **sampling: Unpack[Sampling]
    ) -> list[Critique]: ...
    @overload
    def critique(
        self,
        solution: Iterable[Solution | Refinement],
        *,
        n: None = None,
        **sampling: Unpack[Sampling],
    ) -> list[Critique]: ...
    @overload
    def critique(
        self, solution: Iterable[Solution | Refinement], *, n: int, **sampling: Unpack[Sampling]
    ) -> list[list[Critique]]: ...
    def critique(
        self,
        solution: Solution | Refinement | Iterable[Solution | Refinement],
        *,
        n: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        max_tokens: int = _CRITIC_TOKENS,
    ) -> Any:
        """Samples critiques, c = pi_phi(x, y), and parses them.

        The critic sees the question and the solution, never the verdict.

        Args:
          solution: one solution or several; a refinement is one too, of the next round.
          n, temperature, seed, max_tokens: see `solve`.

        Returns:
          See the class. `says_correct` is None where a text has no verdict.

        Raises:
          InvalidInput, SamplerError: see `solve`.
        """
        return self._sample(
            "critique",
            criticise,
            solution,
            (Solution, Refinement),
            as_solution,
            n,
            temperature,
            seed,
            max_tokens,
        )

    @overload
    def refine(
        self, critique: Critique | Solution, *, n: None = None, **sampling: Unpack[Sampling]
    ) -> Refinement: ...
    @overload
    def refine(
        self, critique: Critique | Solution, *, n: int, **sampling: Unpack[Sampling]
    ) -> list[Refinement]: ...
    @overload
    def refine(
        self,
        critique: Iterable[Critique | Solution],
        *,
        n: None = None,
        **sampling: Unpack[Sampling],
    ) -> list[Refinement]: ...
    @overload
    def refine(
        self, critique: Iterable[Critique | Solution], *, n: int, **sampling: Unpack[Sampling]
    ) -> list[list[Refinement]]: ...
    def refine(
        self,
        critique: Critique | Solution | Iterable[Critique | Solution],
        *,
        n: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        max_tokens: int = _ACTOR_TOKENS,
    ) -> Any:
        """Samples refinements, y' = pi_theta(x, y, c), and grades them.

        Args:
          critique: one critique or several; in place of a critique a solution, for self-correction
            without one.
          n, temperature, seed, max_tokens: see `solve`.

        Returns:
          See the class.

        Raises:
          InvalidInput, SamplerError: see `solve`.
        """
        return self._sample(
            "refine",
            refine,
            critique,
            (Critique, Solution),
            _critique,
            n,
            temperature,
            seed,
            max_tokens,
        )

    def build_critiques(
        self,
        problems: Iterable[Problem],
        config: CritiqueDataConfig | None = None,
        *,
        annotator: "Player | None" = None,
        seed: int = 0,
        max_tokens: int = _ACTOR_TOKENS,
    ) -> list[Critique]:
        """Builds critique data (section 3) with this model as the actor, in memory.

        Flawed solutions are sampled, criticised, and filtered by whether the actor refines them
        rightly; for a run folder and statistics see `jaxcritique.build_critiques`.

        Args:
          problems: with their answers.
          config: the settings; None: those of the paper.
          annotator: the critic; None: a program, for problems whose rationales mark their
            calculations (<<1+2=3>>).
          seed: of sampling, and of what is chosen.
          max_tokens: of each sample.

        Returns:
          Critiques of wrong solutions that passed the filter, and as many of right solutions.

        Raises:
          InvalidInput: a problem has no answer, or the program cannot check the problems.
          SamplerError: see `solve`.
        """
        subjects, config = list(problems), config or CritiqueDataConfig()
        for problem in subjects:
            if not problem.answer:
                raise InvalidInput(f"problem {problem.id!r} has no answer to grade solutions by.")
        if not subjects:
            return []
        if annotator is None:
            writer = require_checker("annotator", subjects)
        else:
            writer = ModelAnnotator(
                model=annotator.sampler,
                name=str(annotator),
                mode="critic",
                max_tokens=max_tokens,
                temperature=config.temperature,
                attempts=1,
                prompts=annotator.prompts,
            )
        context = self._context(seed, max_tokens)
        return list(critique_dataset(context, self.sampler, subjects, writer, config))

    def example(self, record: Record, weight: float = 1.0) -> Example:
        """Returns the training example of a record: this model's prompt, and the record's text.

        Args:
          record: a problem (whose rationale is learnt), solution, critique or refinement.
          weight: of the example in the loss; beta of equation 2 for refinements.

        Raises:
          InvalidInput: the record has no text to learn.
        """
        return _example(self.prompts, record, weight)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes a fine-tuned model as a Hugging Face folder, with the name of its prompts.

        Args:
          folder: a new one, an empty one, or an earlier save, which is replaced.

        Raises:
          InvalidInput: the model was loaded, so that it is in a folder already, or on a server; or
            the folder has other files.
        """
        trained = self.trained
        if trained is None:
            raise InvalidInput(f"{self} was not fine-tuned here: it is stored already.")
        target = pathlib.Path(folder)
        is_saved = (target / templates.FILE).is_file() and (target / "config.json").is_file()
        if target.exists() and not is_saved and not (target.is_dir() and not any(target.iterdir())):
            raise InvalidInput(f"{target} holds something else; name a new folder for the model.")
        save_pretrained(folder, trained.model, trained.tokenizer.folder, trained.dtype)
        self.prompts.write(folder)

    @property
    def sampler(self) -> Loaded:
        """The engine with the model, for requests of your own; see `rollout.sampler.Sampler`.

        Raises:
          InvalidInput: the player is closed.
        """
        if self._sampler is None:
            raise InvalidInput(f"{self} is closed.")
        return self._sampler

    def close(self) -> None:
        """Frees the sampler's memory; ends the servers that were started for it.

        A fine-tuned model can still be saved and trained further: its fp32 weights stay in
        `trained` as long as the player lives.
        """
        if self._sampler is not None:
            self._sampler.close()
        self._sampler = None

    def __enter__(self) -> "Player":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sample(
        self,
        name: str,
        role: Callable[[Context, str, Sampler, Sequence[T], int, float], Iterable[R]],
        given: Any,
        types: tuple[type, ...],
        subject: Callable[[Any], T],
        n: int | None,
        temperature: float,
        seed: int,
        max_tokens: int,
    ) -> R | list[R] | list[list[R]]:
        """Samples for one item or several; returns records in the shape that the class describes.

        Args:
          name: of the method, for progress and errors.
          role: `respond`, `criticise` or `refine`.
          given: one item or an iterable of them.
          types: of an item.
          subject: makes of an item what `role` takes.
          n: samples of each; None: one, which is not in a list.
          temperature: of sampling.
          seed: of sampling.
          max_tokens: of each sample.
        """
        count = 1 if n is None else _at_least_one("n", n)
        if not 0 <= temperature < math.inf:
            raise InvalidInput(
                f"`temperature={temperature}` must be a finite number of at least 0."
            )
        # A mapping or bytes would be taken for a list of their keys.
        single = not isinstance(given, Iterable) or isinstance(given, (*types, Mapping, str, bytes))
        items: list[Any] = [given] if single else list(cast(Iterable[Any], given))
        for item in items:
            if not isinstance(item, types):
                expected = " or ".join(kind.__name__ for kind in types)
                raise TypeError(f"expected {expected}, not {type(item).__name__}: {item!r}")
        with checking_input():
            subjects = [subject(item) for item in items]
        context, temperature = self._context(seed, max_tokens), float(temperature)
        sampled = role(context, name, self.sampler, subjects, count, temperature)
        records = list(sampled) if subjects else []
        if n is None:
            return records[0] if single else records
        groups = [records[start : start + count] for start in range(0, len(records), count)]
        return groups[0] if single else groups

    def _context(self, seed: int, max_tokens: int) -> Context:
        tokens = _at_least_one("max_tokens", max_tokens)
        return Context(Store(None), _grader(), self.prompts, operator.index(seed), tokens, tokens)


def load(
    model: str | os.PathLike[str],
    *,
    engine: EngineConfig | None = None,
    prompts: str | PromptSet | None = None,
) -> Player:
    """Loads a model.

    Args:
      model: a Hugging Face folder; with `engine.endpoint`, the name of a model on the servers.
      engine: where it is sampled; None: the JAX engine on all devices of this host.
      prompts: "full", "compact", or a wording of your own; None: the prompts that the model was
        trained on, by the file `jaxcritique.json` of its folder, or "full" without one.

    Raises:
      InvalidInput: the folder or a setting cannot be used, or no server answers.
      SamplerError: vLLM does not start; the message ends with its log.
    """
    config = engine or EngineConfig()
    if not isinstance(cast(Any, config), EngineConfig):
        raise TypeError(f"`engine` must be an EngineConfig, not {config!r}")
    with checking_input():
        if config.is_hosted:
            wording = _prompts(prompts, None)
            return Player(config.hosted(str(model)), wording, config)
        folder = pathlib.Path(model)
        if not (folder / "config.json").is_file():
            raise ValueError(_no_model(folder))
        check_weights(folder)
        check_tokenizer(folder)
        wording = _prompts(prompts, folder)
        started = config.start()
    return Player(started.load(ModelFolder(folder, folder.resolve().name)), wording, config, folder)


def fine_tune(
    base: Player | str | os.PathLike[str],
    examples: Iterable[Example | Record],
    config: SftConfig | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Player:
    """Fine-tunes a model on examples (equations 1 and 2), with JAX in this process.

    On a GPU, close what vLLM samples there before.

    Args:
      base: a player, which stays as it is, or a Hugging Face folder.
      examples: `Example`s, or records: see `Player.example`.
      config: the settings; None: `SftConfig()`, for models of billions of parameters.
      folder: for checkpoints, `metrics.jsonl`, TensorBoard's events and the Hugging Face folder
        `model`; a call that was interrupted resumes there. None: nothing is written.
      seed: of the order of the examples.

    Returns:
      The fine-tuned model, in memory.

    Raises:
      InvalidInput: there are no examples, one is too long, the base is on a server, or the folder
        has another fine-tuning.
      FloatingPointError: the loss is not finite.
    """
    if isinstance(base, Player):
        start, prompts, engine = base.trained or base.folder, base.prompts, base.engine
    else:
        start, prompts, engine = pathlib.Path(base), _prompts(None, base), EngineConfig()
    if start is None:
        raise InvalidInput(f"{base} is on a server; fine-tuning needs the folder of its weights.")
    if isinstance(examples, Example | Record):
        raise TypeError("`examples` must be a list of examples or records, not one of them")
    rows = [e if isinstance(e, Example) else _example(prompts, e) for e in examples]
    with checking_input():
        job = prepare(
            start, rows, config, seed,
            folder=folder, name=pathlib.Path(folder or "fine-tuning").name,
            execution=ExecutionConfig(mesh=engine.mesh),
        )  # fmt: skip
        if job.folder is not None:  # No other fine-tuning may resume from its checkpoints.
            claim(job.folder, "fine_tune", job.settings)
    try:
        trained = job.save_result(train(job))
        if job.folder is not None:
            prompts.write(job.folder / "model")
    finally:
        if job.folder is not None:
            release(job.folder)
    engine = dataclasses.replace(engine, engine="jax", vllm_python=None)
    return Player(hold_fine_tuned(trained, engine.jax()), prompts, engine, trained=trained)


@functools.cache
def _grader() -> Grader:
    """All players share the grader; it starts processes only for answers that need them."""
    return Grader()


def _prompts(prompts: str | PromptSet | None, folder: str | os.PathLike[str] | None) -> PromptSet:
    if isinstance(prompts, PromptSet):
        return prompts
    if prompts is None:
        return PromptSet.read(folder) if folder else PROMPT_SETS["full"]
    if prompts not in PROMPT_SETS:
        raise ValueError(f"`prompts={prompts}`: choose from {', '.join(PROMPT_SETS)}.")
    return PROMPT_SETS[prompts]


def _example(prompts: PromptSet, record: Record, weight: float = 1.0) -> Example:
    match record:
        case Problem():
            messages, reply = prompts.to_solve(record), record.rationale
        case Solution():
            messages, reply = prompts.to_solve(record.problem), record.text
        case Critique():
            messages, reply = prompts.to_critique(record.solution), record.text
        case Refinement():
            messages, reply = prompts.to_refine(record.critique), record.text
        case _:
            raise TypeError(f"expected an Example or a record, not {record!r}")
    if not reply.strip():
        raise InvalidInput(f"a record without text cannot be learnt: {record}")
    return Example(messages, reply, weight)


def _no_model(folder: pathlib.Path) -> str:
    if (folder / "model" / "config.json").is_file():
        return f"{folder} is the folder of a fine-tuning; its model is in {folder / 'model'}."
    if not folder.exists():
        return f"{folder}: no such folder. Models are not downloaded: `hf download {folder}` does."
    return f"{folder} has no config.json: it is not the Hugging Face folder of a model."


def _start(question: str | Problem) -> Start:
    problem = Problem.asked(question) if isinstance(question, str) else question
    if not problem.question.strip():
        raise ValueError(f"the question of problem {problem.id!r} is empty.")
    return Start(problem)


def _critique(critique: Critique | Solution) -> Critique:
    return no_critique(critique) if isinstance(critique, Solution) else critique


def _at_least_one(name: str, number: int) -> int:
    if operator.index(number) < 1:
        raise InvalidInput(f"`{name}={number}` must be at least 1.")
    return operator.index(number)
