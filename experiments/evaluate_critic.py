"""Evaluates critics: Table 2 of the paper, and first-error localisation as ProcessBench scores it.

    python -m experiments.evaluate_critic --critic=DIR --actor=DIR --data=FILE --run_dir=DIR

FILE is JSONL. Its rows are either problems: GSM8K's {question, answer}, MATH's {problem, solution,
answer}, or those that experiments/build_critiques.py writes; the actor then answers them. Or they
are {problem, steps, first_error}, given solutions with the first wrong step (from 0, -1: none);
where such rows have `gold`, the answer, Table 2 is made of them too.
"""

from experiments.program import RunDir, run
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.testtime.evaluate_critic import EvaluateCriticConfig, evaluate_critic

CONFIGS = EvaluateCriticConfig, EngineConfig, RunDir


def main(config: EvaluateCriticConfig, engine: EngineConfig, run_dir: RunDir) -> None:
    """Runs the program."""
    print(evaluate_critic(config, run_dir.run_dir, engine))


if __name__ == "__main__":
    run(main, *CONFIGS)
