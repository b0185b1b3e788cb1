import gc
import json
import os
import signal

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from jaxcritique.models.sharding import make_mesh
from jaxcritique.training.data import Batch, Batches, pack
from jaxcritique.training.loop import TrainingRun, train
from jaxcritique.training.step import Execution, OptimizerConfig

STEPS = 6


def unchanged(step: int, batch: Batch) -> Batch:
    return batch


@pytest.fixture(scope="module")
def run(tiny, examples):
    """Returns a function: trains in a folder; gives the parameters and the steps it worked on."""
    whole = pack(examples, sequence=24)

    def run(folder, change=unchanged, checkpoint_steps=2, from_step=None):
        worked_on = []

        def build(step: int, rows: slice) -> Batch:
            worked_on.append(step)
            chosen = [step % 4, (step + 1) % 4]
            return change(step, Batch(*(array[chosen][rows] for array in whole)))

        trained = train(
            TrainingRun(
                name="test",
                config=tiny.config,
                initial=lambda: jax.tree.map(jax.numpy.array, tiny),  # A copy: it is donated.
                batches=Batches(2, 24, build),
                optimizer=OptimizerConfig(learning_rate=0.01, total_steps=STEPS, warmup_steps=1),
                execution=Execution(micro_rows=1),
                mesh=make_mesh(),
                folder=folder,
                checkpoint_steps=checkpoint_steps,
                from_step=from_step,
            )
        )
        return trained.model, worked_on

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


def test_a_gradient_that_overflows_becomes_no_checkpoint(run, tmp_path):
    def spoil(step: int, batch: Batch) -> Batch:
        return batch._replace(weights=batch.weights * np.float32(1e30)) if step == 3 else batch

    with pytest.raises(FloatingPointError, match="the gradient norm of step 4 is inf"):
        run(tmp_path, spoil, checkpoint_steps=1)
    assert run(tmp_path, checkpoint_steps=1)[1] == list(range(3, STEPS))


def board_events(folder) -> list[Event]:
    """What is in the TensorBoard files, oldest first: length, checksum, event, checksum."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            size = 12 + int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12:size]))
            data = data[size + 4 :]
    return found


def test_tensorboard_forgets_what_a_killed_run_did_after_its_checkpoint(run, tmp_path):
    def stop_it(step: int, batch: Batch) -> Batch:
        if step == 5:
            raise Stopped
        return batch

    with pytest.raises(Stopped):
        run(tmp_path, stop_it, checkpoint_steps=3)
    run(tmp_path, checkpoint_steps=3)
    starts = [e.step for e in board_events(tmp_path) if e.HasField("session_log")]
    assert starts == [1, 4]


def test_metrics_after_a_killed_process_left_half_a_line(run, finished, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    run(tmp_path)
    assert logged_steps(tmp_path) == list(range(1, STEPS + 1))


def test_asking_for_a_checkpoint(run, finished, tmp_path):
    run(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 3; there are 4, 6"):
        run(tmp_path, from_step=3)
    trained, worked_on = run(tmp_path, from_step=4)
    assert worked_on == [4, 5]
    jax.tree.map(np.testing.assert_array_equal, trained, finished[1])


@pytest.mark.parametrize(
    ("number", "stop"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_saves_and_the_same_command_goes_on(run, finished, tmp_path, number, stop):
    def terminate(step: int, batch: Batch) -> Batch:
        if step == 2:
            os.kill(os.getpid(), number)
        return batch

    with pytest.raises(stop) as ended:
        run(tmp_path, terminate, checkpoint_steps=100)
    assert stop is KeyboardInterrupt or ended.value.code == 143
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    trained, worked_on = run(tmp_path, checkpoint_steps=100)
    assert worked_on == [3, 4, 5]
    jax.tree.map(np.testing.assert_array_equal, trained, finished[1])


def test_metrics_say_what_a_step_cost(finished):
    first, *rest = map(json.loads, (finished[0] / "metrics.jsonl").read_text().splitlines())
    assert first["compile_seconds"] > 0
    assert first["bytes_per_device"] > first["argument_bytes_per_device"] > 0
    for row in rest:
        assert 0 < row["mfu"] < 1
        assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["step_seconds"])
        assert 0 <= row["padding_share"] < 1


def test_nothing_stays_on_the_device(run, tmp_path):
    run(tmp_path / "first")
    gc.collect()
    before = len(jax.live_arrays())
    run(tmp_path / "second")
    gc.collect()
    assert len(jax.live_arrays()) == before
