"""The parts of a reproduction: what each runs, and which other parts' results it needs.

In the flags of a part `{PART}` is another part's run folder, `{PART:MODEL}` a model that the other
part's results.json names, and `{model}` the base model of the reproduction.
"""

import dataclasses
import re

BASE = "{model}"
REFERENCE = re.compile(r"\{([\w-]+)(?::([^}]+))?\}")

IMPROVE, IMPROVE_SMALL = "improve", "improve-small"  # self_improve with the larger and smaller N.
EVALUATE = "evaluate"  # evaluate: the SFT actor and the critic.
VANILLA, CRITIQUE = "evaluate-vanilla", "evaluate-critique"  # The same of the improved actors.
SELF_CORRECTION = "evaluate-self-correction"  # The self-correcting actor, without a critic.
CRITIQUES = "critiques"  # build_critiques: data for the critics of FILTERS and CRITICS_LARGE.
CRITICS = "critics"  # evaluate_critic: UNTRAINED and TRAINED.
CRITIC_LARGE = "critic-large"  # sft of a larger critic.
CRITICS_LARGE = "critics-large"  # evaluate_critic of that critic.
FILTERS = "filters"  # evaluate_critic: the critics trained on data filtered by each of KINDS.
SCALING, SELF_TALK = "scaling", "self-talk"

UNTRAINED, TRAINED = "untrained", "trained"  # Critics of CRITICS.
KINDS = ("none", "soft", "hard")  # How critique data is filtered.


@dataclasses.dataclass(frozen=True)
class Part:
    """One run of one program."""

    name: str  # Also of its run folder.
    program: str  # Module of `experiments`.
    shows: str
    flags: tuple[str, ...]  # Those that refer to other parts; its flagfile has the others.
    critics: tuple[tuple[str, str], ...] = ()  # evaluate_critic: name and folder of each.
    settings: str = ""  # The name of its flagfile, if that is not the part's.
    trains: str = ""  # The flag of the models that it fine-tunes, if it does.

    @property
    def flagfile(self) -> str:
        """The name of its flagfile in the folder of settings."""
        return f"{self.settings or self.name}.flags"

    @property
    def all_flags(self) -> list[str]:
        """`flags`, and one for each critic."""
        return [*self.flags, *(f"--critic={folder}" for _, folder in self.critics)]

    @property
    def needs(self) -> list[str]:
        """The names of the parts whose results it needs."""
        names = [name for flag in self.all_flags for name, _ in REFERENCE.findall(flag)]
        return [name for name in dict.fromkeys(names) if f"{{{name}}}" != BASE]


_MODEL = f"--model={BASE}"
_ACTOR = "--actor={improve:sft actor}"
_CRITIC = "--critic={improve:critic}"
_QUESTIONS = "--data={critiques}/test_problems.jsonl"


def _evaluation(name: str, actor: str, shows: str, critic: str = _CRITIC) -> Part:
    flags = (f"--actor={{improve:{actor}}}", critic)
    return Part(name, "evaluate", f"Table 3: {shows}", flags, settings="combinations")


def _filtered(kind: str) -> Part:
    data = f"--data={{critiques}}/critic-{kind}.jsonl"
    shows = f"a critic of data under the filter '{kind}' (claim 14)"
    return Part(f"critic-{kind}", "sft", shows, (_MODEL, data), settings="critic", trains="model")


PARTS = (
    Part(
        IMPROVE,
        "self_improve",
        "the models of all parts below; Figures 6 to 8 with the larger N, Table 4",
        (_MODEL,),
        trains="model",
    ),
    Part(
        IMPROVE_SMALL,
        "self_improve",
        "Figure 6 with the smaller N, of the same models",
        (_MODEL, _ACTOR, _CRITIC),
        trains="model",
    ),
    Part(
        EVALUATE,
        "evaluate",
        "Figures 1, 5 and 10 to 12; the first rows of Table 3",
        (_ACTOR, _CRITIC),
    ),
    _evaluation(VANILLA, "vanilla actor", "vanilla self-improvement"),
    _evaluation(CRITIQUE, "critique actor", "critique-in-the-loop"),
    _evaluation(SELF_CORRECTION, "self_correction actor", "self-correction", "--critic=self"),
    Part(
        CRITIQUES,
        "build_critiques",
        "Table 1; the data of the critics below",
        (_ACTOR, "--annotator={improve:critic}"),
    ),
    Part(
        CRITICS,
        "evaluate_critic",
        "Table 2",
        (_ACTOR, _QUESTIONS),
        critics=((UNTRAINED, BASE), (TRAINED, "{improve:critic}")),
    ),
    *map(_filtered, KINDS),
    Part(
        FILTERS,
        "evaluate_critic",
        "claim 14",
        (_ACTOR, _QUESTIONS),
        critics=tuple((kind, f"{{critic-{kind}}}/model") for kind in KINDS),
        settings=CRITICS,
    ),
    Part(
        CRITIC_LARGE,
        "sft",
        "a larger critic, of the same data",
        (_MODEL, "--data={critiques}/critic.jsonl"),
        trains="model",
    ),
    Part(
        CRITICS_LARGE,
        "evaluate_critic",
        "Table 2, the larger critic",
        (_ACTOR, _QUESTIONS),
        critics=(("trained, larger", "{critic-large}/model"),),
    ),
    Part(SCALING, "scaling", "Figure 9", (_CRITIC,), trains="actor_base"),
    Part(SELF_TALK, "self_talk", "Table 5", (_MODEL, _ACTOR, _CRITIC), trains="model"),
)
