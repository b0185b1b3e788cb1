import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers

from jaxcritique.models.huggingface import save_pretrained
from jaxcritique.models.sharding import make_mesh
from jaxcritique.training.data import Batch, pack
from jaxcritique.training.step import (
    Execution,
    OptimizerConfig,
    compile_step,
    init_state,
    learning_rate,
    summed_loss,
    train_step,
)

OPTIMIZER = OptimizerConfig(
    learning_rate=0.02, total_steps=5, warmup_steps=2, weight_decay=0.1, clip_norm=0.2, b2=0.95
)


row_loss_and_gradient = jax.jit(jax.value_and_grad(summed_loss))


def loss_and_gradient(model, batch):
    """Row by row, so that a batch of any size is compiled only once."""
    rows = (Batch(*(array[i : i + 1] for array in batch)) for i in range(len(batch.tokens)))
    results = [row_loss_and_gradient(model, row) for row in rows]
    return jax.tree.map(lambda *x: sum(x), *results)


def step(state, batch, optimizer=OPTIMIZER, **execution):
    """One step from a copy of `state`, which the step itself would use up."""
    state = jax.tree.map(jnp.array, state)
    static = Execution(**execution), optimizer.schedule, optimizer.moment_dtype
    return train_step(*static, state, batch, optimizer.rates())


def assert_close(ours, theirs, **tolerance) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


def test_packing_changes_no_loss_and_no_gradient(tiny, examples):
    packed = pack(examples, sequence=32)
    assert len(packed.tokens) < len(examples)
    alone = [pack([example], sequence=32) for example in examples]
    alone = Batch(*(np.concatenate(arrays) for arrays in zip(*alone, strict=True)))
    got, expected = (loss_and_gradient(tiny, batch) for batch in (packed, alone))
    assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_loss_is_on_targets_only(tiny, examples):
    batch = pack(examples, sequence=32)
    other = batch._replace(targets=np.where(batch.weights > 0, batch.targets, 7))
    assert not np.array_equal(batch.targets, other.targets)
    assert_close(loss_and_gradient(tiny, other), loss_and_gradient(tiny, batch))


def test_weights_scale_each_example(tiny, examples):

    def loss(*weights: float) -> float:
        pair = [e._replace(weight=w) for e, w in zip(examples, weights, strict=False)]
        return loss_and_gradient(tiny, pack(pair, sequence=32))[0]

    first, second = loss(1.0, 0.0), loss(0.0, 1.0)
    assert loss(1.0, 1.0) == pytest.approx(first + second)
    assert loss(0.3, 2.0) == pytest.approx(0.3 * first + 2.0 * second)


@pytest.mark.slow
def test_micro_batches_equal_one_batch(tiny, examples):
    batch = pack(examples, sequence=24)  # The rows differ in their number of targets.
    assert len(batch.tokens) == 4
    state = init_state(tiny, OPTIMIZER)
    whole, micro = (step(state, batch, micro_rows=rows) for rows in (None, 1))
    assert_close(micro, whole, rtol=1e-5, atol=1e-5)


def test_training_is_torch_adamw_on_the_same_model(tiny, examples, tokenizer_folder, tmp_path):
    save_pretrained(tmp_path, tiny, tokenizer_folder)
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    adamw = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    state = init_state(tiny, OPTIMIZER)
    batch = pack(examples, sequence=24)
    count = sum(len(e.tokens) - e.prompt_length for e in examples)
    for index, rate in enumerate([0.0, 0.01, 0.02, 0.015, 0.005]):  # Two up, a cosine down.
        state, metrics = step(state, batch)
        loss = sum(e.weight * reply_loss(model, e) for e in examples) / count
        adamw.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.2)
        adamw.param_groups[0]["lr"] = rate
        adamw.step()
        assert metrics["learning_rate"] == pytest.approx(rate)
        assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-4)
        assert metrics["gradient_norm"] == pytest.approx(norm.item(), rel=1e-3)
        assert norm > 0.2, "the gradient is to be clipped"
        assert metrics["target_tokens"] == count
        tokens = sum(len(e.tokens) for e in examples)
        assert metrics["tokens"] == tokens
        assert metrics["padding_share"] == pytest.approx(1 - tokens / batch.tokens.size)
        assert state.step == index + 1
    head = model.lm_head.weight.detach().numpy()
    np.testing.assert_allclose(state.params.head, head, atol=1e-4)


def reply_loss(model: transformers.PreTrainedModel, example) -> torch.Tensor:
    tokens = torch.tensor(example.tokens)
    logits = model(tokens[None]).logits[0]
    first = example.prompt_length
    return torch.nn.functional.cross_entropy(
        logits[first - 1 : -1], tokens[first:], reduction="sum"
    )


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_schedules_are_optax_s(name, warmup):
    steps = 10
    after = {
        "constant": optax.constant_schedule(0.5),
        "linear": optax.linear_schedule(0.5, 0.0, steps - warmup),
        "cosine": optax.cosine_decay_schedule(0.5, steps - warmup),
    }[name]
    up = optax.linear_schedule(0.0, 0.5, warmup)
    expected = optax.join_schedules([up, after], [warmup]) if warmup else after
    rates = OptimizerConfig(0.5, steps, warmup_steps=warmup).rates()
    for index in range(steps + 2):
        rate = learning_rate(name, rates, jnp.asarray(index))
        assert rate == pytest.approx(float(expected(index)), abs=1e-7)


def test_other_rates_compile_nothing(tiny, examples):
    batch = pack(examples, sequence=24)
    step(init_state(tiny, OPTIMIZER), batch)
    compiled = train_step._cache_size()
    longer = OptimizerConfig(0.1, total_steps=50, weight_decay=0.3, clip_norm=9.0, b2=0.9)
    step(init_state(tiny, longer), batch, longer)
    assert train_step._cache_size() == compiled


@pytest.mark.slow
def test_bf16_compute_follows_fp32(tiny, examples):
    batch = pack(examples, sequence=24)
    state = init_state(tiny, OPTIMIZER)
    (exact, exact_metrics), (rounded, metrics) = (
        step(state, batch, compute_dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    assert metrics["loss"] == pytest.approx(float(exact_metrics["loss"]), rel=0.02)
    assert metrics["loss"] != exact_metrics["loss"]
    assert {x.dtype for x in jax.tree.leaves(rounded.params)} == {jnp.dtype("float32")}
    # The first moments are the gradient, scaled: it has the right direction in every array.
    for ours, theirs in zip(
        *(jax.tree.leaves(after.opt_state[0].mu) for after in (rounded, exact)), strict=True
    ):
        cosine = jnp.vdot(ours, theirs) / (jnp.linalg.norm(ours) * jnp.linalg.norm(theirs))
        assert cosine > 0.999


@pytest.mark.slow
def test_bf16_adds_up_the_gradients_of_a_frequent_token_in_fp32(tiny):
    shape = 16, 512
    frequent = 5
    rng = np.random.default_rng(0)
    batch = Batch(
        tokens=np.where(
            rng.random(shape) < 0.9, frequent, rng.integers(tiny.config.vocab_size, size=shape)
        ),
        targets=rng.integers(8, size=shape),
        weights=np.ones(shape, np.float32),
        segments=np.ones(shape, np.int32),
        positions=np.broadcast_to(np.arange(shape[1]), shape),
    )

    def gradient(dtype: str):
        execution = Execution(compute_dtype=dtype)
        loss = functools.partial(summed_loss, execution=execution)
        return jax.jit(jax.grad(loss))(tiny, batch).embedding[frequent]

    exact, rounded = gradient("float32"), gradient("bfloat16")
    assert jnp.linalg.norm(rounded - exact) < 0.05 * jnp.linalg.norm(exact)


def test_bf16_moments_are_the_first_ones_only(tiny, examples):
    optimizer = OptimizerConfig(0.02, 5, moment_dtype="bfloat16")
    state = init_state(tiny, optimizer)
    after, _ = step(state, pack(examples, sequence=24), optimizer)
    adam = after.opt_state[0]
    assert adam.mu.embedding.dtype == jnp.bfloat16
    assert adam.nu.embedding.dtype == jnp.float32


@pytest.mark.slow
def test_memory_does_not_grow_with_the_vocabulary_but_by_a_chunk(tiny):
    rows, sequence, chunk = 16, 512, 1024

    def temp(vocab_size: int) -> int:
        config = dataclasses.replace(tiny.config, vocab_size=vocab_size)
        execution = Execution(remat="full")
        step = compile_step(config, make_mesh(), execution, "cosine", "float32", rows, sequence)
        return step.run.memory_analysis().temp_size_in_bytes

    more = 16_000
    growth = temp(64 + more) - temp(64)
    in_chunks = growth / (chunk * more * 4)
    print(f"\ntemp memory grows by {in_chunks:.2f} chunks of fp32 logits")
    assert in_chunks < 1
    assert rows * sequence > 3 * chunk
