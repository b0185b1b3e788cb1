"""Critique-in-the-loop self-improvement against the vanilla method, and its ablations (section 5).

    python -m experiments.self_improve --flagfile=experiments/flagfiles/quickstart.flags

Runs the whole method: fine-tunes the actor and, on data that AutoMathCritique builds, the critic;
then explores and learns for T iterations in each of the ways that --methods names; evaluates every
actor. The same command again goes on where a killed run stopped.
"""

from experiments.program import RunDir, run
from jaxcritique.improvement.self_improve import SelfImproveConfig, self_improve
from jaxcritique.rollout.engines import EngineConfig

CONFIGS = SelfImproveConfig, EngineConfig, RunDir


def main(config: SelfImproveConfig, engine: EngineConfig, run_dir: RunDir) -> None:
    """Runs the program."""
    print(self_improve(config, run_dir.run_dir, engine))


if __name__ == "__main__":
    run(main, *CONFIGS)
