"""Meshes, and how every array is sharded over them; `weights` has the specs of the weights.

The mesh has three axes. `data` holds copies of the model, `fsdp` shards parameters and optimizer
and gathers a layer's weights when it needs them, `tensor` splits heads, the MLP and the vocabulary.
A batch's rows are divided over `data` and `fsdp`.
"""

# JAX's and its libraries' types are unknown in part.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from jaxcritique.models.weights import Weight, map_weights

T = TypeVar("T")
AXES = ("data", "fsdp", "tensor")
ROWS = P(("data", "fsdp"))  # Of a batch, and of everything computed from its rows.
CACHE = P(("data", "fsdp"), "tensor")  # Of keys and values: [rows, heads, positions, h].


def parse_mesh(text: str, devices: int) -> dict[str, int]:
    """Reads a mesh such as `data=2,fsdp=4`; axes not named have size 1.

    An empty text means fsdp over all devices.

    Raises:
      ValueError: an axis is unknown, or the sizes do not multiply to the number of devices.
    """
    sizes: dict[str, int] = dict.fromkeys(AXES, 1)
    if not text:
        return {**sizes, "fsdp": devices}
    for part in text.split(","):
        name, _, size = part.strip().partition("=")
        if name not in AXES or not size.isdecimal() or int(size) < 1:
            raise ValueError(
                f"`mesh={text}`: {part.strip()!r} is not AXIS=SIZE with AXIS one of "
                f"{', '.join(AXES)} and SIZE at least 1."
            )
        sizes[name] = int(size)
    if (product := math.prod(sizes.values())) != devices:
        raise ValueError(f"`mesh={text}` asks for {product} devices; there are {devices}.")
    return sizes


def make_mesh(text: str = "", devices: Sequence[Any] | None = None) -> Mesh:
    """Lays the devices (by default all of this run) out as a mesh; see `parse_mesh`."""
    devices = jax.devices() if devices is None else devices
    sizes = parse_mesh(text, len(devices))
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(AXES),
        devices=devices,
    )


def shardings(mesh: Mesh | AbstractMesh, tree: T) -> T:
    """Returns the sharding of every leaf of a model, or of a state that holds models.

    Raises:
      ValueError: an axis of the mesh does not divide the dimension it shards; both are named.
    """
    return map_weights(lambda row, leaf: sharding_of(mesh, row, leaf.shape), tree)


def sharding_of(
    mesh: Mesh | AbstractMesh, row: Weight | None, shape: tuple[int, ...]
) -> NamedSharding:
    """Returns the sharding of a weight, of one layer or stacked; see `shardings`."""
    spec = _spec(row, shape)
    for size, axis in zip(shape, spec, strict=True):
        if row is not None and axis is not None and size % mesh.shape[axis]:
            raise ValueError(
                f"`mesh`: {axis}={mesh.shape[axis]} does not divide the {size} of "
                f"{row.path} {tuple(shape)}; choose a divisor of {size}."
            )
    return NamedSharding(mesh, spec)


def _spec(row: Weight | None, shape: tuple[int, ...]) -> P:
    """The mesh axes of a weight; a stack's first axis, over which a scan goes, is not sharded."""
    spec: tuple[Any, ...] = () if row is None else tuple(row.spec)
    return P(*[None] * (len(shape) - len(spec)), *spec)


def abstract_arrays(mesh: Mesh, tree: T) -> T:
    """Returns shapes with their shardings, for restoring and compiling; see `shardings`."""
    return map_weights(
        lambda row, leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding_of(mesh, row, leaf.shape)
        ),
        tree,
    )


def constrain(x: Array, spec: P) -> Array:
    """Tells the compiler how `x` is sharded; without a mesh it does nothing."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec)


def constrain_tree(tree: T) -> T:
    """`constrain` for a whole model, or a state that holds models."""
    return map_weights(lambda row, x: constrain(x, _spec(row, x.shape)), tree)


def gather(x: Array, spec: P) -> Array:
    """All-gathers a weight's `fsdp` shards for use; its gradient is scattered to the shards.

    Args:
      x: the weight, of one layer.
      spec: the mesh axes over which it is sharded.
    """
    whole = P(*(None if axis == "fsdp" else axis for axis in spec))
    return x if spec == whole else _move(x, spec, whole)


def _move(x: Array, shards: P, whole: P) -> Array:
    """Constrains x to `whole` and its gradient to `shards`, where it can be scattered at once."""

    @jax.custom_vjp
    def move(x: Array) -> Array:
        return constrain(x, whole)

    move.defvjp(lambda x: (constrain(x, whole), None), lambda _, g: (constrain(g, shards),))
    return move(x)
