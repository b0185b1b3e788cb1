"""Training reasoning models with critics in JAX (arXiv 2411.16579).

    import jaxcritique as jc

    player = jc.load(jc.TINY_BASE)
    solution = player.solve(
        "Tom has 30 apples. Tom gives 12 apples to Ben. How many apples does Tom have now?"
    )
    critique = player.critique(solution)
    refinement = player.refine(critique)
    jc.grade("18", refinement.text).verdict

The names of `__all__` are imported when they are first used, so that importing the package is quick
and starts no JAX backend.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcritique.config import Config
    from jaxcritique.critiques.build_critiques import BuildCritiquesConfig, build_critiques
    from jaxcritique.critiques.pipeline import CritiqueDataConfig
    from jaxcritique.critiques.results import CritiqueData
    from jaxcritique.errors import InvalidInput
    from jaxcritique.grading import Grade, Grader, extract_answer, grade
    from jaxcritique.improvement.results import SelfImprovement
    from jaxcritique.improvement.self_improve import SelfImproveConfig, self_improve
    from jaxcritique.player import Player, fine_tune, load
    from jaxcritique.records import Critique, Problem, Refinement, Solution, from_json, to_json
    from jaxcritique.rollout.engines import EngineConfig
    from jaxcritique.rollout.sampler import SamplerError
    from jaxcritique.tasks import TINY_BASE, TaskConfig, load_problems
    from jaxcritique.testtime.evaluate import EvaluateConfig, Evaluation, evaluate
    from jaxcritique.training.data import Example
    from jaxcritique.training.sft import SftConfig

__version__ = "0.1.0"
__all__ = [
    "TINY_BASE",
    "BuildCritiquesConfig",
    "Config",
    "Critique",
    "CritiqueData",
    "CritiqueDataConfig",
    "EngineConfig",
    "EvaluateConfig",
    "Evaluation",
    "Example",
    "Grade",
    "Grader",
    "InvalidInput",
    "Player",
    "Problem",
    "Refinement",
    "SamplerError",
    "SelfImproveConfig",
    "SelfImprovement",
    "SftConfig",
    "Solution",
    "TaskConfig",
    "build_critiques",
    "evaluate",
    "extract_answer",
    "fine_tune",
    "from_json",
    "grade",
    "load",
    "load_problems",
    "self_improve",
    "to_json",
]

# Where the names are; the modules of _LIGHT need neither JAX nor another package of `train`.
_LIGHT = {
    "config": ("Config",),
    "errors": ("InvalidInput",),
    "grading": ("Grade", "Grader", "extract_answer", "grade"),
    "records": ("Critique", "Problem", "Refinement", "Solution", "from_json", "to_json"),
    "tasks": ("TINY_BASE", "TaskConfig", "load_problems"),
}
_HEAVY = {
    "critiques.build_critiques": ("BuildCritiquesConfig", "build_critiques"),
    "critiques.pipeline": ("CritiqueDataConfig",),
    "critiques.results": ("CritiqueData",),
    "improvement.results": ("SelfImprovement",),
    "improvement.self_improve": ("SelfImproveConfig", "self_improve"),
    "player": ("Player", "fine_tune", "load"),
    "rollout.engines": ("EngineConfig",),
    "rollout.sampler": ("SamplerError",),
    "testtime.evaluate": ("EvaluateConfig", "Evaluation", "evaluate"),
    "training.data": ("Example",),
    "training.sft": ("SftConfig",),
}
_MODULES = {name: module for module, names in {**_LIGHT, **_HEAVY}.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports a public name; see PEP 562."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES[name]
    if module in _HEAVY:
        from jaxcritique.extras import require_train

        require_train(f"`jaxcritique.{name}`")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
