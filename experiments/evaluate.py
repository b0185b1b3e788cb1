"""Evaluates an actor, with or without a critic, as test-time compute grows (sections 4.2 and 6).

    python -m experiments.evaluate --actor=DIR --critic=DIR --task=gsm8k --data_dir=DIR \
      --run_dir=runs/evaluation

Greedy accuracy, Maj@K and Pass@K; rounds of critique and refinement in parallel or in sequence,
compared with the actor alone at K, 2K and 3K samples and at equal tokens; all by difficulty. Every
sample is kept in the run folder: the same command again resumes a killed run, and another
--protocol or --scaling draws only the stages that it changes. Another number of samples (another
largest K, --samples, --noequal_compute) draws all of them again.
"""

from experiments.program import RunDir, run
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.testtime.evaluate import EvaluateConfig, evaluate

CONFIGS = EvaluateConfig, EngineConfig, RunDir


def main(config: EvaluateConfig, engine: EngineConfig, run_dir: RunDir) -> None:
    """Runs the program."""
    print(evaluate(config, run_dir.run_dir, engine))


if __name__ == "__main__":
    run(main, *CONFIGS)
