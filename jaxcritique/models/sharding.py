"""Where every array lives: one table from a parameter's path to the mesh's axes.

The mesh has three axes. `data` holds copies of the model, `fsdp` shards parameters and optimizer
and gathers a layer's weights when it needs them, `tensor` splits heads, the MLP and the vocabulary.
A batch's rows are divided over `data` and `fsdp`. The table serves initialisation, loading,
restoring and the training step, so that they cannot disagree.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

T = TypeVar("T")
AXES = ("data", "fsdp", "tensor")
ROWS = P(("data", "fsdp"))  # Of a batch, and of everything computed from its rows.
CACHE = P(("data", "fsdp"), "tensor")  # Of keys and values: [rows, heads, positions, h].

# Layers are stacked along axis 0, which is never sharded: the scan works on one at a time.
_RULES = {
    "embedding": P("tensor", "fsdp"),
    "head": P("tensor", "fsdp"),
    "norm.scale": P(None),
    "layers.attention_norm.scale": P(None, None),
    "layers.mlp_norm.scale": P(None, None),
    "layers.q": P(None, "fsdp", "tensor", None),
    "layers.k": P(None, "fsdp", "tensor", None),
    "layers.v": P(None, "fsdp", "tensor", None),
    "layers.out": P(None, "tensor", None, "fsdp"),
    "layers.q_bias": P(None, "tensor", None),
    "layers.k_bias": P(None, "tensor", None),
    "layers.v_bias": P(None, "tensor", None),
    "layers.q_norm.scale": P(None, None),
    "layers.k_norm.scale": P(None, None),
    "layers.gate": P(None, "fsdp", "tensor"),
    "layers.up": P(None, "fsdp", "tensor"),
    "layers.down": P(None, "tensor", "fsdp"),
}


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
                f"--mesh={text}: {part.strip()!r} is not AXIS=SIZE with AXIS one of "
                f"{', '.join(AXES)} and SIZE at least 1."
            )
        sizes[name] = int(size)
    if (product := math.prod(sizes.values())) != devices:
        raise ValueError(f"--mesh={text} asks for {product} devices; there are {devices}.")
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


def spec_of(keys: Sequence[Any], leaf: Any) -> P:
    """Returns a leaf's axes from its path in the parameters or in a state that mirrors them.

    Raises:
      KeyError: it is not in the table, and no scalar: a copy of it would lie on every device.
    """
    return _RULES[path_of(keys)] if leaf.shape else P()


def path_of(keys: Sequence[Any]) -> str:
    """Names a leaf as the table does, whatever tuple or dataclass the parameters stand in.

    A layer taken from the stack is named as the stack is.
    """
    names = (key.key for key in keys if isinstance(key, jax.tree_util.DictKey))
    return ".".join(name for name in names if isinstance(name, str))


def shardings(mesh: Mesh, tree: Any) -> Any:
    """Returns the sharding of every leaf of a parameter tree or of a state that mirrors one.

    Raises:
      ValueError: an axis of the mesh does not divide the dimension it shards; both are named.
    """

    def sharding(keys: Sequence[Any], leaf: Any) -> NamedSharding:
        spec = spec_of(keys, leaf)
        spec = P(*spec[max(len(spec) - len(leaf.shape), 0) :])  # One layer lacks the stack's axis.
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise ValueError(
                    f"--mesh: {axis}={mesh.shape[axis]} does not divide the {size} of "
                    f"{path_of(keys)} {tuple(leaf.shape)}; choose a divisor of {size}."
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, tree)


def abstract_arrays(mesh: Mesh, tree: Any) -> Any:
    """Returns shapes that say where each array is to live, for restoring and compiling."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings(mesh, tree),
    )


def constrain(x: jax.Array, spec: P) -> jax.Array:
    """Tells the compiler where `x` lives; without a mesh it stays as it is."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec)


def constrain_tree(tree: T) -> T:
    """`constrain` for a whole parameter tree or a state that mirrors one."""
    return jax.tree_util.tree_map_with_path(lambda keys, x: constrain(x, spec_of(keys, x)), tree)


def gather(x: jax.Array, path: str, stacked: bool = False) -> jax.Array:
    """Brings a weight's `fsdp` shards together for use; its gradient goes back to the shards.

    Args:
      x: the weight; one layer's where `stacked`.
      path: its name in the table.
      stacked: whether the table's spec has the layers' axis, which `x` has not.
    """
    spec = P(*_RULES[path][1:]) if stacked else _RULES[path]
    whole = P(*(None if axis == "fsdp" else axis for axis in spec))
    return x if spec == whole else _move(x, spec, whole)


def _move(x: jax.Array, shards: P, whole: P) -> jax.Array:
    """Constrains x to `whole` and its gradient to `shards`, where it can be scattered at once."""

    @jax.custom_vjp
    def move(x: jax.Array) -> jax.Array:
        return constrain(x, whole)

    move.defvjp(lambda x: (constrain(x, whole), None), lambda _, g: (constrain(g, shards),))
    return move(x)
