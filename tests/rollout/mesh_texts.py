"""Writes what the engine says on meshes to a file: a program, since devices are simulated."""

import dataclasses
import json
import pathlib
import sys

from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.rollout import decoding
from jaxcritique.rollout.engines import load_jax
from jaxcritique.rollout.jax_engine import JaxConfig
from jaxcritique.rollout.sampler import Request
from jaxcritique.tasks.word_problems import generate


def requests() -> list[Request]:
    """More samples than slots, greedy and not, of prompts that begin alike and end apart."""
    return [
        Request(
            COMPACT.to_solve(problem),
            n=1 + i % 3,
            max_tokens=(6, 20, 33)[i % 3],
            temperature=(0.0, 1.0)[i % 2],
            seed=i,
            top_k=(0, 5)[i % 2],
        )
        for i, problem in enumerate(generate("train", 12, 0, (1, 1, 0, 0, 0)))
    ]


def written(model: ModelFolder, mesh: str) -> dict:
    """The texts by request and sample, and the shapes of what one device holds."""
    sampler = load_jax(model, JaxConfig(slots=6, mesh=mesh))
    caches = []
    decode = decoding.decode_block

    def noted(wanted, model, slots, cache):
        caches.append(cache[0][1])
        return decode(wanted, model, slots, cache)

    decoding.decode_block = noted
    done = list(sampler.generate(requests(), lambda *_: None))
    decoding.decode_block = decode
    gate = sampler._model.layers[0].gate[...]
    return {
        "texts": sorted([dataclasses.astuple(c)[:3] for c in done]),
        "gate": gate.sharding.shard_shape(gate.shape),
        "caches": sorted({(c.shape, c.sharding.shard_shape(c.shape)) for c in caches}),
    }


if __name__ == "__main__":
    output, folder, *meshes = sys.argv[1:]
    model = ModelFolder.of(folder)
    pathlib.Path(output).write_text(json.dumps({mesh: written(model, mesh) for mesh in meshes}))
