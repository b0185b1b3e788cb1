"""Golden files: what lives where, for each preset. A change in them is a decision."""

import dataclasses
import json
import pathlib

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from jaxcritique.models.presets import PRESETS
from jaxcritique.models.sharding import AXES, parse_mesh, shardings
from jaxcritique.models.transformer import abstract
from jaxcritique.models.weights import path_of

GOLDEN = pathlib.Path(__file__).parent / "golden_shardings"


def described(preset: str) -> dict[str, dict]:
    tensor = 3 if preset == "smollm2-135m" else 2  # It has 3 key/value heads.
    mesh = AbstractMesh((2, 8, tensor), AXES, axis_types=(AxisType.Auto,) * 3)
    shapes = abstract(PRESETS[preset])
    where = dict(jax.tree_util.tree_leaves_with_path(shardings(mesh, shapes)))
    return {
        path_of(keys): {
            "shape": list(leaf.shape),
            "axes": list(where[keys].spec),
            "shard": list(where[keys].shard_shape(leaf.shape)),
        }
        for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_shardings_are_the_golden_ones(preset):
    """To accept a change: run this file as a program and read the diff."""
    assert described(preset) == json.loads((GOLDEN / f"{preset}.json").read_text())


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("smollm2-135m", 134_515_008),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-3b", 3_085_938_688),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen2.5-14b", 14_770_033_664),
        ("llama3-8b", 8_030_261_248),
        ("llama3-70b", 70_553_706_496),
    ],
)
def test_presets_have_the_published_number_of_parameters(preset, parameters):
    assert PRESETS[preset].num_parameters == parameters


def test_axis_that_does_not_divide_is_named():
    mesh = AbstractMesh((1, 1, 2), AXES, axis_types=(AxisType.Auto,) * 3)
    with pytest.raises(ValueError, match=r"tensor=2 does not divide the 3 of layers\.k"):
        shardings(mesh, abstract(PRESETS["smollm2-135m"]))


def test_array_that_is_not_in_the_table_is_not_copied_to_every_device():
    mesh = AbstractMesh((1, 2, 1), AXES, axis_types=(AxisType.Auto,) * 3)
    tree = {"layers": {"sinks": jax.ShapeDtypeStruct((2, 8), "float32")}}
    with pytest.raises(KeyError, match=r"layers\.sinks"):
        shardings(mesh, tree)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_every_parameter_of_every_family_is_in_the_table(family):
    config = dataclasses.replace(
        PRESETS["llama3-8b"], family=family, qkv_bias=family == "qwen2", qk_norm=family == "qwen3"
    )
    mesh = AbstractMesh((2, 8, 2), AXES, axis_types=(AxisType.Auto,) * 3)
    shapes = abstract(config)
    whole = jax.tree.map(lambda leaf, at: at.is_fully_replicated, shapes, shardings(mesh, shapes))
    leaves = jax.tree_util.tree_leaves_with_path(whole)
    assert {path_of(keys).rpartition(".")[2] for keys, copied in leaves if copied} == {"scale"}


def test_mesh_by_default_is_fsdp_over_all():
    assert parse_mesh("", 4) == {"data": 1, "fsdp": 4, "tensor": 1}
    assert parse_mesh("tensor=2,data=2", 4) == {"data": 2, "fsdp": 1, "tensor": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fsdp=3", "asks for 3 devices; there are 4"),
        ("model=4", "'model=4' is not AXIS=SIZE"),
        ("fsdp", "'fsdp' is not AXIS=SIZE"),
        ("fsdp=0", "'fsdp=0' is not AXIS=SIZE"),
    ],
)
def test_bad_mesh_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_mesh(text, 4)


if __name__ == "__main__":
    for preset in PRESETS:
        lines = (
            f"{json.dumps(path)}: {json.dumps(leaf)}" for path, leaf in described(preset).items()
        )
        (GOLDEN / f"{preset}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
