"""The shipped crop segmenter: it joins the shipped detector, its files are checked, its masks fit the demo picture."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import edgekd
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.errors import ModelError
from edgekd.model_set import read_model_set
from edgekd.models.crop_set import copy_shipped_crop, read_crop_part
from edgekd.package_files import CROP_MODELS, default_models


def test_the_shipped_segmenter_is_small_and_described() -> None:
    part = read_crop_part()
    assert (CROP_MODELS / part.stage.file).stat().st_size < 5e6
    assert part.stage.source.trained and part.stage.source.licence == "Apache-2.0"
    assert part.crop.side_px == part.stage.inputs[0].shape[1] == 96


def test_it_draws_masks_on_the_demo_picture(tmp_path: Path, scene: np.ndarray) -> None:
    copy_shipped_crop(tmp_path / "models", default_models(), (320, 480))
    assert read_model_set(tmp_path / "models").kind == "crop"
    build_bundle(tmp_path / "models", tmp_path / "bundle", BuildOptions(precision="fp32"))
    with edgekd.load(str(tmp_path / "bundle"), n_threads=1) as chain:
        result = chain(scene)
        again = chain(scene, boxes=result.detections.xyxy[:1])
    assert len(result) > 5 and float(np.median(result.masks.predicted_iou)) > 0.8
    filled = result.masks.areas_px() / np.prod(result.detections.xyxy[:, 2:] - result.detections.xyxy[:, :2], axis=1)
    assert 0.3 < float(np.median(filled)) < 1.0
    np.testing.assert_array_equal(again.masks.full(0), result.masks.full(0))


def test_changed_files_are_refused(tmp_path: Path) -> None:
    shutil.copytree(CROP_MODELS, tmp_path / "crop")
    (tmp_path / "crop" / "segmenter.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match="was changed"):
        read_crop_part(tmp_path / "crop")
    (tmp_path / "crop" / "segmenter.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be used"):
        read_crop_part(tmp_path / "crop")
