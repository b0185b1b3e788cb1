"""Self-talk via critique (section 7, Table 5): one actor that checks itself step by step.

    python -m experiments.self_talk --flagfile=experiments/flagfiles/laptop/self-talk.flags \
      --critic=DIR --run_dir=runs/self_talk

Builds self-talk data out of the actor's solutions, a critic's feedback on each step and the actor's
corrections; fine-tunes an actor on it; and compares that with an actor that corrects its whole
solution and with an actor that has a critic. RUN_DIR/self_talk.jsonl has the examples as
experiments/sft.py reads them. The same command again goes on where a killed run stopped.
"""

from experiments.program import RunDir, run
from jaxcritique.improvement.self_talk import SelfTalkConfig, self_talk
from jaxcritique.rollout.engines import EngineConfig

CONFIGS = SelfTalkConfig, EngineConfig, RunDir


def main(config: SelfTalkConfig, engine: EngineConfig, run_dir: RunDir) -> None:
    """Runs the program."""
    print(self_talk(config, run_dir.run_dir, engine))


if __name__ == "__main__":
    run(main, *CONFIGS)
