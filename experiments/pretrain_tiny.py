"""Trains the tiny base that ships with the package: its tokenizer, then its weights.

    python -m experiments.pretrain_tiny --run_dir=runs/tiny_base

The same command again resumes from the newest checkpoint.
"""

from experiments.pretraining.tiny_base import PretrainConfig, pretrain
from experiments.program import RunDir, run

CONFIGS = PretrainConfig, RunDir


def main(config: PretrainConfig, folder: RunDir) -> None:
    """Runs the program."""
    print(pretrain(config, folder.run_dir))


if __name__ == "__main__":
    run(main, *CONFIGS)
