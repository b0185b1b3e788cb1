"""Every table, figure and claim of the paper: runs all other programs, then writes one report.

    python -m experiments.reproduce --flagfile=experiments/flagfiles/reproduce_laptop.flags \
      --run_dir=runs/laptop

`experiments/reproduction/parts.py` has the parts. They run in order, --jobs at a time, each in a
folder of its seed. The same command resumes: a part is done when it has come to its results by the
same command, settings and inputs, here or by hand. A part that fails is named, those that do not
read its results go on, and the exit code is then 1. The settings of the parts are in the flagfiles
in --settings.
"""

import contextlib
import dataclasses
import pathlib
import sys
from typing import Literal

import rich.live

from experiments.program import RunDir, run
from experiments.reproduction.measuring import VERDICTS
from experiments.reproduction.plan import ReproductionPlan, check_flags, print_commands
from experiments.reproduction.report import write_reproduction
from experiments.reproduction.schedule import Schedule
from jaxcritique.config import Config, setting
from jaxcritique.errors import checking_input
from jaxcritique.run_folder import command, hold
from jaxcritique.tasks import TINY_BASE


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceConfig(Config):
    """Settings of a reproduction."""

    settings: pathlib.Path = setting(
        pathlib.Path("experiments/flagfiles/laptop"),
        "Folder with a flagfile for each part; a part without one is left out.",
    )
    model: str = setting(str(TINY_BASE), "Hugging Face folder: the base model of all parts.")
    seeds: tuple[int, ...] = setting(
        (0, 1, 2), "Each is a whole reproduction; claims use them all.", low=0
    )
    only: tuple[str, ...] = setting(
        (), "Parts to run; empty: all. What they read must be there already."
    )
    protocol: Literal["refine_flagged", "refine_all"] = setting(
        "refine_flagged",
        "What 'with critic' means in claims: an answer is refined if the critic flags it, or "
        "always (the paper does not say; the report has a table of the claims by the other one).",
    )
    jobs: int = setting(
        1,
        "Parts run at a time, each on its share of the CPU's cores. A small model on a CPU has no "
        "use for more than one core; several parts on one accelerator fight for its memory.",
        low=1,
    )
    dry_run: bool = setting(False, "Print the commands; run nothing.")
    plan_topology: str | None = setting(
        None,
        "Hardware, as launchers.plan names it; `dry_run` then says for each part that fine-tunes "
        "which command checks whether it fits.",
    )


CONFIGS = ReproduceConfig, RunDir


def main(config: ReproduceConfig, run_dir: RunDir) -> None:
    """Runs the program."""
    with checking_input():
        plan = ReproductionPlan(run_dir.run_dir, config.settings, config.model)
        runs = plan.runs(config.seeds, config.only)
        if config.dry_run:
            check_flags(runs)
            print_commands(runs, config.plan_topology)
            return
        hold(plan.run_dir)
        for part in plan.runs(config.seeds):
            part.adopt()
        schedule = Schedule(runs, config.jobs)
        check_flags(schedule.left)
    results, unreported = None, None
    with (
        rich.live.Live(get_renderable=schedule.table, console=schedule.console),
        contextlib.closing(schedule.run()) as ended_seeds,
    ):
        for _ in ended_seeds:
            try:
                evidence, costs = plan.done(config.seeds)  # Those of other calls, too.
                if costs:
                    about = config.protocol, command(), plan.flags()
                    results = write_reproduction(evidence, *about, costs, plan.run_dir)
                unreported = None
            except (OSError, ValueError) as error:  # The other seeds go on.
                unreported = error
                schedule.say(f"no report: {error}")
    if unreported:
        sys.exit(f"error: no report: {unreported}")
    if results is None:
        sys.exit("no part is done: no report is written")
    for claim in results.claims:
        print(f"{claim.claim.id:>3}  {VERDICTS[claim.holds]:<13}  {claim.claim.says}")
    for name in ("results.json", "results.md", "report.html"):
        print(plan.run_dir / name)
    if schedule.failed:
        sys.exit(1)


if __name__ == "__main__":
    run(main, *CONFIGS)
