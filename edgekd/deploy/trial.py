"""Graphs are tried before they are kept: a model set with some graphs replaced becomes a temporary bundle and chain.

Trials run on a CPU: OpenVINO for graphs that it will run in the end, ONNX Runtime for those made for TensorRT, where it
computes the same Q/DQ arithmetic in floats.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx

from edgekd.bundle import BackendName
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.deploy.onnx_edit import shapes_of_values
from edgekd.deploy.qdq import calibration_facts, keep_quantized, quantized_layers
from edgekd.files import scratch_folder, sha256_of
from edgekd.graphs import StageName
from edgekd.model_set import ModelSet, write_model_set
from edgekd.runtime.chain import Chain


def trial_backend(backend: BackendName) -> BackendName:
    """Return the backend that stands in for `backend` on a machine without a GPU."""
    return "onnxruntime" if backend.startswith("tensorrt") else backend


def write_variant(
    models: Path, model_set: ModelSet, graphs: Mapping[StageName, onnx.ModelProto], folder: Path
) -> ModelSet:
    """Write a model set into an empty folder with some graphs replaced; quantized or not is read off them."""
    stages = dict(model_set.stages)
    for name, stage in model_set.stages.items():
        path = folder / stage.file
        if name not in graphs:
            shutil.copyfile(models / stage.file, path)
            continue
        onnx.save(graphs[name], path)
        int8 = bool(quantized_layers(graphs[name]))
        facts = calibration_facts(graphs[name]) if int8 else None
        update = {"sha256": sha256_of(path), "quantized": int8, "calibration": facts}
        stages[name] = stage.with_shapes(shapes_of_values(graphs[name])).model_copy(update=update)
    variant = model_set.model_copy(update={"stages": stages})
    write_model_set(folder, variant)
    return variant


def float_graphs(models: Path, model_set: ModelSet) -> dict[StageName, onnx.ModelProto]:
    """Return the float graphs that the quantized stages of a set were made from."""
    quantized = {name: stage for name, stage in model_set.stages.items() if stage.quantized}
    return {name: keep_quantized(onnx.load(models / stage.file), []) for name, stage in quantized.items()}


@contextmanager
def trial_chain(
    models: Path, model_set: ModelSet, graphs: Mapping[StageName, onnx.ModelProto], options: BuildOptions
) -> Iterator[Chain]:
    """Build a temporary bundle and open it.

    Args:
        models: the folder of the set.
        model_set: its description.
        graphs: stages to replace.
        options: as for the bundle itself; the backend is replaced by `trial_backend`.
    """
    backend = trial_backend(options.backend)
    with scratch_folder("trial") as room:
        variant, bundle = room / "models", room / "bundle"
        variant.mkdir()
        write_variant(models, model_set, graphs, variant)
        build_bundle(variant, bundle, replace(options, backend=backend, box_buckets=(), compute_capability=None))
        with Chain.open(bundle) as chain:
            yield chain
