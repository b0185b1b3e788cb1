"""The transformer agrees with itself: packed and alone, at once and token by token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import TypeCheckError

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.transformer import REMAT, abstract, initialize


@functools.partial(jax.jit, static_argnames="remat")
def hidden_states(model, tokens, segments, positions, remat="none"):
    return model.hidden(tokens, positions, segments, remat=remat)


@pytest.fixture(scope="module")
def prompt(tiny):
    """Two rows of tokens longer than a chunk of attention, and their hidden states."""
    tokens = np.random.default_rng(0).integers(0, 48, (2, 140))
    positions = np.broadcast_to(np.arange(140), (2, 140))
    return tokens, hidden_states(tiny, tokens, np.ones_like(tokens), positions)


def test_packed_segments_are_as_each_alone(tiny, prompt):
    tokens, alone = prompt
    lengths = {1: 100, 2: 1, 3: 39}  # Of examples; segment 3 lies across two chunks.
    packed = np.concatenate([tokens[0, :length] for length in lengths.values()])[None]
    segments = np.concatenate([np.full(length, i) for i, length in lengths.items()])[None]
    positions = np.concatenate([np.arange(length) for length in lengths.values()])[None]
    got = hidden_states(tiny, packed, segments, positions)
    for segment, length in lengths.items():
        np.testing.assert_allclose(got[segments == segment], alone[0, :length], atol=1e-5)


@pytest.mark.parametrize("remat", REMAT)
def test_remat_changes_nothing(remat, tiny, prompt):
    tokens, expected = prompt
    positions = np.broadcast_to(np.arange(140), (2, 140))
    got = hidden_states(tiny, tokens, np.ones_like(tokens), positions, remat=remat)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("chunk", [131, 50])
def test_extend_is_hidden_for_prompts_of_unequal_length(chunk, tiny, prompt):
    config = tiny.config
    tokens, expected = prompt
    lengths, steps = np.array([131, 4]), 6
    prompts = np.where(np.arange(131) < lengths[:, None], tokens[:, :131], 0)
    order = np.array([2, 0])  # The rows of the cache, of which there are three.
    shape = (3, config.num_kv_heads, 140, config.head_dim)

    @jax.jit
    def run(model):
        # Full of what former sequences left, never to be read.
        cache = tuple((jnp.full(shape, 1e3),) * 2 for _ in range(config.num_layers))
        for start in range(0, 131, chunk):
            part = jnp.asarray(prompts[:, start : start + chunk])
            positions = jnp.broadcast_to(start + jnp.arange(part.shape[1]), part.shape)
            _, cache = model.extend(part, positions, cache, jnp.asarray(order))

        def one(cache, positions):
            token = jnp.asarray(tokens)[np.arange(2), positions][:, None]
            # A row past the end is no one's.
            rows = jnp.append(order, 3)
            token, positions = (jnp.append(x, x[:1], axis=0) for x in (token, positions[:, None]))
            hidden, cache = model.extend(token, positions, cache, rows)
            return cache, hidden[:2, 0]

        cache, some = jax.lax.scan(one, cache, lengths - 1 + np.arange(steps)[:, None])
        who = np.array([1, 1, 0])  # All rows, the one in the middle being no one's.
        positions = jnp.asarray(lengths[who] + steps - 1)
        token = jnp.asarray(tokens)[who, positions]
        return some, model.extend(token[:, None], positions[:, None], cache)[0][order, 0]

    some, last = run(tiny.unstacked())
    for step, got in enumerate([*some, last]):
        np.testing.assert_allclose(got, expected[[0, 1], lengths - 1 + step], atol=1e-5)


@pytest.mark.parametrize(
    ("chunk", "tied"), [(1, False), (5, False), (5, True), (7, False), (14, False), (1024, False)]
)
def test_summed_loss_is_plain_cross_entropy(chunk, tied):
    config = ModelConfig(
        vocab_size=11,
        dim=4,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=4,
        mlp_dim=4,
        max_positions=8,
        tie_embeddings=tied,
    )
    rng = np.random.default_rng(0)
    hidden = 3 * rng.standard_normal((2, 7, 4), np.float32)
    targets = jnp.asarray(rng.integers(0, 11, (2, 7)))
    weights = jnp.asarray(rng.standard_normal((2, 7), np.float32))
    model = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), abstract(config))

    def chunked(model, hidden):
        return model.summed_loss(hidden, targets, weights, chunk)

    def plain(model, hidden):
        logits = model.logits(hidden)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return jnp.sum(losses * weights)

    got, got_gradient = value_and_gradient(chunked)(model, hidden)
    expected, gradient = value_and_gradient(plain)(model, hidden)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got_gradient, gradient
    )


def value_and_gradient(function):
    return jax.jit(jax.value_and_grad(function, argnums=(0, 1)))


def test_a_wrong_shape_or_dtype_is_caught_in_tests(tiny):
    """The import hook in tests/conftest.py checks the annotations of models, training, rollout."""
    tokens = jnp.ones((2, 8), int)
    with pytest.raises(TypeCheckError, match="positions"):
        jax.eval_shape(hidden_states, tiny, tokens, tokens, tokens[:, :-1])
    with pytest.raises(TypeCheckError, match="segments"):
        jax.eval_shape(hidden_states, tiny, tokens, tokens.astype(float), tokens)


def test_initialize_draws_every_parameter_and_each_layer_anew(tiny):
    model = initialize(tiny.config, seed=0)
    first, second = model.layers.q
    assert not np.array_equal(first, second)
    assert sum(x.size for x in jax.tree.leaves(model)) == tiny.config.num_parameters
