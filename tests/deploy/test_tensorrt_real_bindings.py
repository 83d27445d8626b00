"""The real Python bindings of TensorRT, a libnvinfer compiled from the real headers, and bundles: as on a device.

What computes is ONNX Runtime, and the GPU is host_cudart.c; no TensorRT ran any of it.
"""

from __future__ import annotations

import numpy as np
import pytest
import stand_in
import tiny_kinds
from small_models import write_small_models


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_kinds.write_tiny_models(folder / kind, kind) for kind in tiny_kinds.KINDS}


@pytest.fixture(scope="module")
def references(models, tmp_path_factory):
    """What ONNX Runtime says of every scene, by kind."""
    folder, settings = tmp_path_factory.mktemp("reference"), (stand_in.CONFIDENCE, stand_in.MAX_BOXES)
    return {
        kind: stand_in.answers_of_onnx_runtime(path, folder / kind, tiny_kinds.scenes(), *settings)
        for kind, path in models.items()
    }


@pytest.mark.tensorrt
@pytest.mark.parametrize("headers", stand_in.BINDINGS)
def test_bundles_of_every_kind_answer_as_onnx_runtime_bit_for_bit(headers, models, references, stub_folder, tmp_path):
    job = stand_in.python_job(headers, stub_folder, tmp_path)
    bundles = {kind: stand_in.built(path, tmp_path / kind, headers) for kind, path in models.items()}
    settings = {"confidence": stand_in.CONFIDENCE, "max_boxes": stand_in.MAX_BOXES}
    counted, found = stand_in.run(job, bundles, tiny_kinds.scenes(), tmp_path, n_calls=200, **settings)
    for kind, answers in references.items():
        assert counted[kind]["calls"] == 200 and counted[kind]["left"] == [0, 0]
        assert counted[kind]["graph_launches"] >= 195
        for index, answer in enumerate(answers):
            assert len(answer) == stand_in.MAX_BOXES[index]
            masks = np.stack([answer.masks.full(row) for row in range(len(answer))])
            np.testing.assert_array_equal(found[f"{kind} {index} boxes"], answer.detections.xyxy)
            np.testing.assert_array_equal(found[f"{kind} {index} masks"], masks)
    per_call = [stand_in.bytes_per_call(n_boxes) for n_boxes in stand_in.MAX_BOXES]
    assert counted["sam"]["copied_per_call"] == per_call, "embeddings stay on the device"


@pytest.mark.tensorrt
def test_the_shipped_networks_run_through_the_real_bindings(scene, stub_folder, tmp_path):
    models = write_small_models(tmp_path / "models")
    job = stand_in.python_job("10.3.0", stub_folder, tmp_path)
    bundle = stand_in.built(models, tmp_path / "bundle", "10.3.0")
    (answer,) = stand_in.answers_of_onnx_runtime(models, tmp_path / "reference", scene[None], 0.05, [7])
    counted, found = stand_in.run(job, {"sam": bundle}, scene[None], tmp_path)
    assert counted["sam"]["left"] == [0, 0]
    np.testing.assert_allclose(found["sam 0 boxes"], answer.detections.xyxy, atol=1e-3)
    expected = np.stack([answer.masks.full(index) for index in range(len(answer))])
    assert (found["sam 0 masks"] != expected).mean() < 1e-5
