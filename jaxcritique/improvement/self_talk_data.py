"""Self-talk via critique (section 7): one actor learns to check and correct itself step by step.

1. Each step of a reasoning path is followed by what a critic says of it.
2. From the first wrong step on the actor refines; from the first refined step on the critic speaks
   again, until it finds nothing wrong or there have been enough rounds.
3. What was thought is smoothed into one text, and kept if its final answer is right.
"""

import collections
import dataclasses
import random
from collections.abc import Sequence
from typing import Any

from jaxcritique.config import Config, setting
from jaxcritique.critiques.duplicates import distinct
from jaxcritique.critiques.filtering import hardly_reasons
from jaxcritique.prompts.critique import StepVerdict, parse_critique, render_steps, split_steps
from jaxcritique.prompts.templates import PromptSet, self_talk_messages
from jaxcritique.prompts.thinking import Thought, smoothing_messages, think_aloud
from jaxcritique.records import Critique, Problem, Refinement, Solution, Verdict, digest
from jaxcritique.roles import Context, Prompt, Start, costs_of, refine, respond, run_stage
from jaxcritique.rollout.sampler import Completion, Sampler
from jaxcritique.store import Dataset
from jaxcritique.testtime.rounds import Critic, as_solution
from jaxcritique.training.data import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTalkDataConfig(Config):
    """Settings of the construction."""

    samples: int = setting(4, "Reasoning paths sampled for each problem.", low=1)
    rounds: int = setting(3, "Most refinements of a path.", low=1)
    temperature: float = setting(0.7, "Of all samples but greedy ones (paper: 0.7).", low=0)
    self_talk_examples: int = setting(
        4000, "Most self-talk examples (paper: 4,000); 0: all.", low=0
    )


@dataclasses.dataclass(frozen=True)
class ThinkingChain:
    """A reasoning path under construction, with all that was thought on the way.

    The steps of `path` begin with those of `sound`.
    """

    path: Solution
    thoughts: tuple[Thought, ...] = ()
    rounds: int = 0  # Refinements so far.

    @property
    def sound(self) -> tuple[Thought, ...]:
        """The thoughts that stand: a step that was found right is never given up."""
        return tuple(thought for thought in self.thoughts if thought.correct)

    @property
    def ending(self) -> str:
        """The line of the path that states the answer; "" where no line is only for that."""
        return _ending(self.path.text)

    @property
    def verdicts(self) -> str:
        """A critique of the sound steps, for the critic to go on from."""
        return render_steps([StepVerdict(t.step, t.feedback, correct=True) for t in self.sound])


@dataclasses.dataclass(frozen=True)
class SelfTalk:
    """A self-talk text and what the grader said of its final answer."""

    problem: Problem
    text: str
    verdict: Verdict
    answer: str | None
    corrections: int  # Refinements that went into it.

    @property
    def correct(self) -> bool:
        """Whether the final answer equals the ground truth."""
        return self.verdict == "correct"


@dataclasses.dataclass(frozen=True)
class SelfTalkData:
    """The examples; how many paths were lost where; and what was asked, by stage."""

    examples: list[SelfTalk]
    counts: dict[str, int]
    costs: dict[str, dict[str, int]]


def judge(chain: ThinkingChain, critique: Critique) -> tuple[ThinkingChain, bool] | None:
    """Adds to a chain what a critique of its path says of the steps after the sound ones.

    Where it finds no step wrong, but the answer, the ending is the thought that is wrong.

    Returns:
      The chain, and whether nothing was found wrong. None where the critique cannot be used: it
      has no verdict, leaves out a step or calls one wrong that is not there to be judged.
    """
    steps, parsed = split_steps(chain.path.text), parse_critique(critique.text)
    said = {step.number: step for step in parsed.steps}
    known, first = len(chain.sound), parsed.first_error
    if parsed.says_correct is None or (first is not None and not known <= first < len(steps)):
        return None
    thoughts = list(chain.thoughts)
    for number in range(known, len(steps) if first is None else first + 1):
        if number not in said or said[number].correct is None:
            return None
        verdict = said[number]
        thoughts.append(Thought(steps[number], verdict.explanation, verdict.correct is True))
    clean = first is None and parsed.says_correct
    if first is None and not clean:
        thoughts.append(Thought(chain.ending, parsed.remark, correct=False))
    return dataclasses.replace(chain, thoughts=tuple(thoughts)), clean


def revise(chain: ThinkingChain, refinement: Refinement) -> ThinkingChain | None:
    """Puts a refinement that goes on from the sound steps in the place of the path.

    Returns None where nothing follows on them.
    """
    steps, sound = split_steps(refinement.text), [thought.step for thought in chain.sound]
    if steps[: len(sound)] != sound:
        return None
    if len(steps) == len(sound) and not _ending(refinement.text):
        return None
    return ThinkingChain(as_solution(refinement), chain.thoughts, chain.rounds + 1)


def build_self_talk(
    context: Context,
    actor: Sampler,
    critic: Critic,
    smoother: Sampler | None,
    problems: Sequence[Problem],
    config: SelfTalkDataConfig,
) -> SelfTalkData:
    """Builds the self-talk examples; what asks a model is a stage of the store.

    Args:
      context: what is played with.
      actor: who solves the problems, and refines.
      critic: who gives feedback.
      smoother: a model that rewrites the texts; None: phrases put in by program are enough.
      problems: with their answers.
      config: settings.
    """
    counts: collections.Counter[str] = collections.Counter()
    costs: dict[str, dict[str, int]] = {}
    starts = [Start(problem) for problem in problems]
    paths = respond(context, "self-talk-paths", actor, starts, config.samples, config.temperature)
    costs["self-talk-paths"] = costs_of(paths)
    different = distinct(list(paths))
    chains = [ThinkingChain(path) for path in different if split_steps(path.text)]
    counts["paths"] = len(paths)
    counts["equal paths"] = len(paths) - len(different)
    counts["paths without steps"] = len(different) - len(chains)
    finished, spent = _iterate(context, actor, critic, chains, config, counts)
    costs |= spent
    counts["clean at once"] = sum(not chain.rounds for chain in finished)
    counts["clean after refining"] = len(finished) - counts["clean at once"]
    texts = [
        think_aloud(chain.thoughts, chain.ending, _rng(context.seed, chain.path))
        for chain in finished
    ]
    if smoother is not None:
        texts, costs["self-talk-smooth"] = _smoothed(context, smoother, finished, texts, counts)
    rows = ((c.path.problem.answer, text) for c, text in zip(finished, texts, strict=True))
    graded = [
        SelfTalk(chain.path.problem, text, grade.verdict, grade.extracted, chain.rounds)
        for chain, text, grade in zip(finished, texts, context.grader.grade_all(rows), strict=True)
        if text
    ]
    right = [talk for talk in graded if talk.correct]
    counts["wrong final answers"] = len(graded) - len(right)
    kept = list({(talk.problem.id, talk.text): talk for talk in right}.values())
    counts["equal texts"] = len(right) - len(kept)
    if wanted := config.self_talk_examples:
        rng = random.Random(f"self-talk/{context.seed}")
        chosen = sorted(rng.sample(range(len(kept)), min(wanted, len(kept))))
        counts["more than wanted"] = len(kept) - len(chosen)
        kept = [kept[index] for index in chosen]
    counts["kept"] = len(kept)
    counts["kept with corrections"] = sum(talk.corrections > 0 for talk in kept)
    return SelfTalkData(kept, dict(counts), costs)


def self_talk_examples(prompts: PromptSet, talks: Sequence[SelfTalk]) -> list[Example]:
    """What the self-talk actor learns beside D_reason."""
    return [Example(self_talk_messages(prompts, talk.problem), talk.text) for talk in talks]


def _iterate(
    context: Context,
    actor: Sampler,
    critic: Critic,
    chains: Sequence[ThinkingChain],
    config: SelfTalkDataConfig,
    counts: collections.Counter[str],
) -> tuple[list[ThinkingChain], dict[str, dict[str, int]]]:
    """Criticises and refines; returns the chains that come out clean, in their order, and costs."""
    costs: dict[str, dict[str, int]] = {}
    finished: dict[int, ThinkingChain] = {}
    alive = dict(enumerate(chains))
    for dropped in ("unusable critiques", "nothing refined", "never clean"):
        counts[dropped] = 0
    for number in range(config.rounds + 1):
        turn = context.reseeded(number)
        stage = f"self-talk-criticise-{number + 1}"
        paths, told = [c.path for c in alive.values()], [c.verdicts for c in alive.values()]
        critiques = critic(turn, stage, paths, 0.0, told)
        costs[stage] = costs_of(critiques)
        flawed: dict[int, tuple[ThinkingChain, Critique]] = {}
        for (index, chain), critique in zip(alive.items(), critiques, strict=True):
            judged = judge(chain, critique)
            if judged is None:
                counts["unusable critiques"] += 1
            elif judged[1]:
                finished[index] = judged[0]
            else:
                flawed[index] = judged[0], critique
        if number == config.rounds:
            counts["never clean"] = len(flawed)
            break
        stage = f"self-talk-refine-{number + 1}"
        subjects = [critique for _, critique in flawed.values()]
        begun = ["".join(f"{t.step}\n" for t in chain.sound) for chain, _ in flawed.values()]
        refined = refine(turn, stage, actor, subjects, 1, config.temperature, begun)
        costs[stage] = costs_of(refined)
        revised = {
            index: revise(chain, refinement)
            for (index, (chain, _)), refinement in zip(flawed.items(), refined, strict=True)
        }
        alive = {index: chain for index, chain in revised.items() if chain is not None}
        counts["nothing refined"] += len(revised) - len(alive)
    return [finished[index] for index in sorted(finished)], costs


def _smoothed(
    context: Context,
    smoother: Sampler,
    chains: Sequence[ThinkingChain],
    texts: Sequence[str],
    counts: collections.Counter[str],
) -> tuple[list[str], dict[str, int]]:
    """A model's rewriting of the texts, "" where its reasoning got lost, and what it cost."""

    def records(asked: Sequence[Any], answers: Sequence[list[Completion]]) -> list[Solution]:
        # Not graded yet: all texts are, whoever smoothed them.
        return [
            Solution(chain.path.problem, reply.text, "unparsable", None)
            for chain, [reply] in zip(asked, answers, strict=True)
        ]

    turns = [
        Prompt(chain, smoothing_messages(chain.path.problem, text))
        for chain, text in zip(chains, texts, strict=True)
    ]
    replies: Dataset[Solution] = run_stage(
        context,
        "self-talk-smooth",
        Solution,
        smoother,
        turns,
        records,
        1,
        0.0,
        2 * context.actor_tokens,
    )
    smooth = [
        "" if hardly_reasons(reply.text, text) else reply.text.strip()
        for reply, text in zip(replies, texts, strict=True)
    ]
    counts["smoothed away"] = smooth.count("")
    return smooth, costs_of(replies)


def _rng(seed: int, path: Solution) -> random.Random:
    return random.Random(digest(seed, path.problem.id, path.text))


def _ending(solution: str) -> str:
    lines = [line.strip() for line in solution.splitlines()]
    steps = set(split_steps(solution))
    return next((line for line in reversed(lines) if line and line not in steps), "")
