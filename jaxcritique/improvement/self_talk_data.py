"""Construction of self-talk data (section 7): reasoning that checks and corrects itself.

1. A critic gives feedback on each step of a sampled reasoning path.
2. The actor refines the path from the first wrong step on, and the critic checks the refined steps,
   until it finds no error or the maximum number of rounds is reached.
3. Steps and feedback are smoothed into one text, which is kept if its final answer is right.
"""

import collections
import dataclasses
import random
from collections.abc import Sequence

from jaxcritique.config import Config, setting
from jaxcritique.critiques.duplicates import distinct
from jaxcritique.critiques.filtering import hardly_reasons
from jaxcritique.prompts.critique import StepVerdict, parse_critique, render_steps, split_steps
from jaxcritique.prompts.templates import PromptSet
from jaxcritique.prompts.thinking import Thought, smoothing_messages, think_aloud
from jaxcritique.records import Critique, Problem, Refinement, Solution, digest
from jaxcritique.roles import Context, Prompt, Replies, Start, costs_of, refine, respond, run_stage
from jaxcritique.rollout.sampler import Sampler
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
    """A reasoning path under construction, and its steps so far with their feedback.

    `path` begins with the steps of `sound`.
    """

    path: Solution
    thoughts: tuple[Thought, ...] = ()
    rounds: int = 0  # Refinements so far.

    @property
    def sound(self) -> tuple[Thought, ...]:
        """The steps that the critic called right; they are never revised."""
        return tuple(thought for thought in self.thoughts if thought.correct)

    @property
    def ending(self) -> str:
        """The line of the path that only states the answer; "" if there is none."""
        return _ending(self.path.text)

    @property
    def verdicts(self) -> str:
        """A critique of the sound steps, as the prefix of the critic's next critique."""
        return render_steps([StepVerdict(t.step, t.feedback, correct=True) for t in self.sound])


@dataclasses.dataclass(frozen=True)
class SelfTalk(Solution):
    """A self-talk text, graded by its final answer."""

    corrections: int = 0  # Refinements that went into it.


@dataclasses.dataclass(frozen=True)
class SelfTalkData:
    """The examples, the number of paths lost at each step, and `roles.COSTS` of each stage."""

    examples: list[SelfTalk]
    counts: dict[str, int]
    costs: dict[str, dict[str, int]]


def judge(chain: ThinkingChain, critique: Critique) -> tuple[ThinkingChain, bool] | None:
    """Adds a critique's feedback on the steps after the sound ones to a chain.

    If the critique calls no step wrong, but the answer, the ending is added as a wrong step.

    Returns:
      The chain, and whether no error was found. None if the critique cannot be used: it has no
      verdict, skips a step, or calls a step wrong that is sound or does not exist.
    """
    steps, parsed = split_steps(chain.path.text), parse_critique(critique.text)
    feedback = {step.number: step for step in parsed.steps}
    known, first = len(chain.sound), parsed.first_error
    if parsed.says_correct is None or (first is not None and not known <= first < len(steps)):
        return None
    thoughts = list(chain.thoughts)
    for number in range(known, len(steps) if first is None else first + 1):
        if number not in feedback or feedback[number].correct is None:
            return None
        verdict = feedback[number]
        thoughts.append(Thought(steps[number], verdict.explanation, verdict.correct is True))
    clean = first is None and parsed.says_correct
    if first is None and not clean:
        thoughts.append(Thought(chain.ending, parsed.remark, correct=False))
    return dataclasses.replace(chain, thoughts=tuple(thoughts)), clean


def revise(chain: ThinkingChain, refinement: Refinement) -> ThinkingChain | None:
    """Replaces the path by a refinement that continues the sound steps.

    Returns None if nothing follows them.
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
    """Builds self-talk examples. Everything sampled is a stage of the store.

    Args:
      context: of the run.
      actor: solves the problems, and refines.
      critic: gives the feedback.
      smoother: a model that rewrites the texts; None: a program joins steps and feedback.
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
        SelfTalk(c.path.problem, text, grade.verdict, grade.extracted, corrections=c.rounds)
        for c, text, grade in zip(finished, texts, context.grader.grade_all(rows), strict=True)
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
    """Returns the examples that the self-talk actor is fine-tuned on, in addition to D_reason."""
    return [Example(prompts.to_self_talk(talk.problem), talk.text) for talk in talks]


def _iterate(
    context: Context,
    actor: Sampler,
    critic: Critic,
    chains: Sequence[ThinkingChain],
    config: SelfTalkDataConfig,
    counts: collections.Counter[str],
) -> tuple[list[ThinkingChain], dict[str, dict[str, int]]]:
    """Criticises and refines; returns the chains without an error left, in order, and costs."""
    costs: dict[str, dict[str, int]] = {}
    finished: dict[int, ThinkingChain] = {}
    alive = dict(enumerate(chains))
    for dropped in ("unusable critiques", "nothing refined", "never clean"):
        counts[dropped] = 0
    for number in range(config.rounds + 1):
        reseeded = context.reseeded(number)
        stage = f"self-talk-criticise-{number + 1}"
        paths, prefixes = [c.path for c in alive.values()], [c.verdicts for c in alive.values()]
        critiques = critic(reseeded, stage, paths, 0.0, prefixes)
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
        refined = refine(reseeded, stage, actor, subjects, 1, config.temperature, begun)
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
    """Returns the texts rewritten by a model, "" if it lost the reasoning, and the cost."""

    def records(chain: ThinkingChain, replies: Replies) -> list[Solution]:
        # The verdict is a placeholder: `build_self_talk` grades the final texts.
        return [Solution(chain.path.problem, c.text, "unparsable", None) for c, _ in replies]

    prompts = [
        Prompt(chain, smoothing_messages(chain.path.problem, text))
        for chain, text in zip(chains, texts, strict=True)
    ]
    rewritten = run_stage(
        context,
        "self-talk-smooth",
        Solution,
        smoother,
        prompts,
        records,
        1,
        0.0,
        2 * context.actor_tokens,
    )
    smooth = [
        "" if hardly_reasons(reply.text, text) else reply.text.strip()
        for reply, text in zip(rewritten, texts, strict=True)
    ]
    counts["smoothed away"] = smooth.count("")
    return smooth, costs_of(rewritten)


def _rng(seed: int, path: Solution) -> random.Random:
    return random.Random(digest(seed, path.problem.id, path.text))


def _ending(solution: str) -> str:
    lines = [line.strip() for line in solution.splitlines()]
    steps = set(split_steps(solution))
    return next((line for line in reversed(lines) if line and line not in steps), "")
