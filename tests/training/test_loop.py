import json

import jax
import numpy as np
import pytest

from jaxcritique.training.data import Batch, pack
from jaxcritique.training.loop import train
from jaxcritique.training.step import OptimizerConfig

STEPS = 6


def unchanged(step: int, batch: Batch) -> Batch:
    return batch


@pytest.fixture(scope="module")
def run(tiny, examples):
    """Returns a function: trains in a folder; gives the parameters and the steps it worked on."""
    _, structure, params = tiny
    whole = pack(examples, sequence=24)

    def run(folder, change=unchanged, checkpoint_steps=2):
        worked_on = []

        def batch_at(step: int) -> Batch:
            worked_on.append(step)
            rows = [step % 4, (step + 1) % 4]
            return change(step, Batch(*(array[rows] for array in whole)))

        trained = train(
            structure,
            jax.tree.map(jax.numpy.array, params),  # A copy, since the loop donates it.
            batch_at,
            OptimizerConfig(learning_rate=0.01, total_steps=STEPS, warmup_steps=1),
            micro_rows=1,
            folder=folder,
            checkpoint_steps=checkpoint_steps,
            name="test",
        )
        return trained, worked_on

    return run


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    """The folder and the parameters of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder)[0]


def logged_steps(folder) -> list[int]:
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(row)["step"] for row in rows]


class Stopped(Exception):
    pass


@pytest.mark.parametrize(("stop", "resumes_at"), [(1, 0), (3, 2), (4, 4)])
def test_stopped_run_ends_as_if_it_never_stopped(stop, resumes_at, run, finished, tmp_path):
    def stop_it(step: int, batch: Batch) -> Batch:
        if step == stop:
            raise Stopped
        return batch

    with pytest.raises(Stopped):
        run(tmp_path, stop_it)
    trained, worked_on = run(tmp_path)
    assert worked_on == list(range(resumes_at, STEPS))
    assert logged_steps(tmp_path) == list(range(1, STEPS + 1))
    jax.tree.map(np.testing.assert_array_equal, trained, finished[1])


def test_finished_run_is_not_redone(run, finished):
    folder, params = finished
    again, worked_on = run(folder)
    assert worked_on == []
    assert logged_steps(folder) == list(range(1, STEPS + 1))
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize("bad", [3, STEPS - 1])
def test_diverged_run_stops_and_goes_on_from_before(bad, run, finished, tmp_path):
    def spoil(step: int, batch: Batch) -> Batch:
        return batch._replace(weights=batch.weights * np.nan) if step == bad else batch

    with pytest.raises(FloatingPointError, match=f"the loss of step {bad + 1} is nan"):
        run(tmp_path, spoil, checkpoint_steps=1)
    trained, worked_on = run(tmp_path, checkpoint_steps=1)
    assert worked_on == list(range(bad, STEPS))
    jax.tree.map(np.testing.assert_array_equal, trained, finished[1])


def test_metrics_after_a_killed_process_left_half_a_line(run, finished, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    run(tmp_path)
    assert logged_steps(tmp_path) == list(range(1, STEPS + 1))
