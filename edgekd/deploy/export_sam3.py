"""The vision path of a fine-tuned SAM3 as ONNX: a model goes in, a graph and its description come out.

The path is what a device could run of SAM3: pixels to the three pyramid levels that its heads read. The adapters are
folded into ordinary convolutions, and the graph is compared with PyTorch before it is kept. No chain of edgekd runs it:
it is for those who build their own heads on a device, or compute teacher features there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekd.deploy.export import MAX_ABS_DIFFERENCE
from edgekd.errors import BackendUnavailable, ModelError
from edgekd.files import atomic_folder, sha256_of
from edgekd.models.sam3 import N_LEVELS, Sam3VisionPath
from edgekd.models.spectral_adapter import fold_adapters

GRAPH, DESCRIPTION = "vision.onnx", "vision.json"
LEVELS = tuple(f"level_{index}" for index in range(N_LEVELS))
MEAN = STD = 127.5
"""Pixels 0..255 reach SAM3 as (pixel - MEAN) / STD."""


def export_vision_path(model: nn.Module, output: Path, sources: dict[str, Path]) -> dict[str, Any]:
    """Write `vision.onnx`, its weights beside it, and `vision.json` into a new folder, atomically.

    Args:
        model: from `edgekd.models.sam3.load_tuned_sam3`; its adapters are folded in place.
        output: the folder to make or replace.
        sources: files that the weights come from; their sha256 is recorded.

    Returns:
        The content of `vision.json`: side in pixels, names, shapes, normalisation, largest difference from PyTorch.

    Raises:
        BackendUnavailable: onnx or onnxruntime is not installed.
        ModelError: the graph differs from PyTorch by more than 1e-4 of the largest value of a level.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailable(f"onnxruntime is missing ({error}); pip install 'edgekd[build]'") from error
    config: Any = model.config
    side_px = int(config.vision_config.backbone_config.image_size)
    pixels = torch.randn(1, 3, side_px, side_px, generator=torch.Generator().manual_seed(0))
    path = Sam3VisionPath(model.eval())
    with torch.no_grad():
        expected = [level.numpy() for level in path(pixels)]
        fold_adapters(model)
        with atomic_folder(output, listed_vision_files) as folder:
            torch.onnx.export(
                Sam3VisionPath(model).eval(),
                (pixels,),
                folder / GRAPH,
                input_names=["pixel_values"],
                output_names=list(LEVELS),
                dynamo=True,
                external_data=True,
                verbose=False,
            )
            session = onnxruntime.InferenceSession(folder / GRAPH, providers=["CPUExecutionProvider"])
            found = session.run(None, {"pixel_values": pixels.numpy()})
            description = {
                "graph": GRAPH,
                "pixel_values": {"shape": [1, 3, side_px, side_px], "channels": "RGB", "mean": MEAN, "std": STD},
                "levels": {name: list(level.shape) for name, level in zip(LEVELS, expected, strict=True)},
                "largest_relative_difference_from_pytorch": _check(found, expected),
                "sources_sha256": {name: sha256_of(file) for name, file in sources.items()},
            }
            (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
    return description


def listed_vision_files(folder: Path) -> set[str] | None:
    """The files of an earlier export in a folder; None where it holds none."""
    return {GRAPH, f"{GRAPH}.data", DESCRIPTION} if (folder / DESCRIPTION).is_file() else None


def _check(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    differences = [
        float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-12))
        for ours, theirs in zip(found, expected, strict=True)
    ]
    if max(differences) > MAX_ABS_DIFFERENCE:
        raise ModelError(
            f"the exported graph is {max(differences):.1e} away from PyTorch, expected at most {MAX_ABS_DIFFERENCE:g}; "
            "export with the versions of torch and onnx that setup.py names"
        )
    return max(differences)
