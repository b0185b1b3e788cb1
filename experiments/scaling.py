"""One critic beside actors of several sizes (section 6.1, Figure 9).

    python -m experiments.scaling --flagfile=experiments/flagfiles/laptop/scaling.flags \
      --critic=DIR

Each base of --actor_base is fine-tuned on the same D_reason and D_refine; those of --actor are used
as they are. Every actor answers greedily and refines each answer after its critique: accuracy
without a critic, with it, and where an oracle picks the answers to be refined. The same command
again resumes a killed run.
"""

from experiments.program import RunDir, run
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.testtime.scaling import ScalingConfig, scaling

CONFIGS = ScalingConfig, EngineConfig, RunDir


def main(config: ScalingConfig, engine: EngineConfig, run_dir: RunDir) -> None:
    """Runs the program."""
    print(scaling(config, run_dir.run_dir, engine))


if __name__ == "__main__":
    run(main, *CONFIGS)
