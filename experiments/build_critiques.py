"""Builds critique data with AutoMathCritique (section 3 of the paper).

    python -m experiments.build_critiques --flagfile=experiments/flagfiles/critiques_laptop.flags \
      --run_dir=runs/critiques

The dataset is in RUN_DIR/dataset, for `datasets.load_dataset`, and in RUN_DIR/critic.jsonl as
experiments/sft.py learns it. The same command again resumes; with another --tau or --filter it
samples nothing, with another --max_flawed, --mixture, --filter_refinements or --alone_samples only
for the filter.
"""

import dataclasses

from experiments.program import RunDir, run
from jaxcritique.config import Config, setting
from jaxcritique.critiques.build_critiques import BuildCritiquesConfig, build_critiques
from jaxcritique.critiques.estimate import dry_run
from jaxcritique.rollout.engines import EngineConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRun(Config):
    """Whether anything is sampled."""

    dry_run: bool = setting(
        False, "Print an estimate of the cost and one example of each prompt; sample nothing."
    )


CONFIGS = BuildCritiquesConfig, EngineConfig, RunDir, DryRun


def main(
    config: BuildCritiquesConfig, engine: EngineConfig, folder: RunDir, program: DryRun
) -> None:
    """Runs the program."""
    if program.dry_run:
        print(dry_run(config))
        return
    results = build_critiques(config, folder.run_dir, engine)
    print(results.table)
    print(f"{results.dataset}\n{results.run_dir / 'results.json'}")
    print(f"{results.examples}: --data of experiments.sft, to train a critic")


if __name__ == "__main__":
    run(main, *CONFIGS)
