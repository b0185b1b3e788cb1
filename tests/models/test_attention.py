"""Fast attention is the reference, or says that it cannot be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcritique.models import attention
from jaxcritique.models.attention import (
    check_attention,
    default_implementation,
    packed_attention,
)


def qkv(b: int, s: int, n: int, k: int, h: int) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (b, s, n, h), (b, s, k, h), (b, s, k, h)
    return tuple(jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("packed", [True, False])
def test_splash_is_the_reference_in_value_and_gradient(packed):
    inputs = qkv(2, 256, 4, 2, 128)
    lengths = [100, 1, 120, 35] if packed else [256]
    segments = jnp.asarray(np.repeat(np.arange(len(lengths)) + 1, lengths)[None].repeat(2, 0))

    def loss(attend, *inputs):
        out = attend(*inputs)
        return jnp.sum(jnp.sin(out)), out

    kernel = functools.partial(attention._splash, segments=segments, interpret=True)
    reference = packed_attention("reference", segments)
    got, expected = (
        jax.value_and_grad(functools.partial(loss, attend), argnums=(0, 1, 2), has_aux=True)(
            *inputs
        )
        for attend in (kernel, reference)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, expected)


@pytest.mark.parametrize(
    ("implementation", "shape", "dtype", "message"),
    [
        ("splash", (1, 100, 2, 2, 128), "float32", "multiple of 128 tokens, not 100"),
        ("cudnn", (1, 128, 2, 2, 64), "float32", "bfloat16 or float16, not float32"),
        ("cudnn", (1, 127, 2, 2, 64), "bfloat16", "even `sequence`"),
        ("cudnn", (1, 128, 2, 2, 256), "bfloat16", "heads of 8 to 128"),
    ],
)
def test_what_a_kernel_cannot_honour_is_refused(implementation, shape, dtype, message):
    inputs = [x.astype(dtype) for x in qkv(*shape)]
    attend = packed_attention(implementation, jnp.ones(shape[:2], jnp.int32))
    with pytest.raises(ValueError, match=message):
        attend(*inputs)
    platform = {"splash": "tpu", "cudnn": "gpu"}[implementation]
    with pytest.raises(ValueError, match=message):
        check_attention(implementation, platform, shape[1], shape[-1], dtype)


@pytest.mark.parametrize(("implementation", "platform"), [("splash", "gpu"), ("cudnn", "cpu")])
def test_kernel_of_other_hardware_is_refused(implementation, platform):
    with pytest.raises(ValueError, match=f"={implementation}` does not run on {platform}"):
        check_attention(implementation, platform, 128, 128, "bfloat16")
    check_attention("reference", platform, 100, 80, "float32")


def test_unknown_implementation():
    with pytest.raises(ValueError, match="'flash' is not one of"):
        packed_attention("flash", jnp.ones((1, 4), jnp.int32))


def test_each_platform_has_its_own():
    assert [default_implementation(p) for p in ("cpu", "gpu", "cuda", "tpu")] == [
        "reference",
        "cudnn",
        "cudnn",
        "splash",
    ]
