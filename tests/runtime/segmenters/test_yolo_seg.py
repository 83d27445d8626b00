"""A segment network without a segmenter: the boxes and masks of Ultralytics, from a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ultralytics = pytest.importorskip("ultralytics")

from kind_models import write_segment_checkpoint  # noqa: E402
from ultralytics.utils import ops  # noqa: E402

import edgekd  # noqa: E402
from edgekd.deploy.build import BuildOptions, build_bundle  # noqa: E402
from edgekd.deploy.export import ExportOptions, export_networks  # noqa: E402
from edgekd.errors import BundleError, InputError, ModelError  # noqa: E402
from edgekd.graphs import MASK_COEFFICIENTS, MASK_PROTOTYPES  # noqa: E402
from edgekd.model_set import ImageInput, Source  # noqa: E402
from edgekd.models.yolo11n import load_detector  # noqa: E402
from edgekd.runtime.chain import ChainOptions  # noqa: E402
from edgekd.runtime.detect import Found  # noqa: E402
from edgekd.runtime.preprocess import place  # noqa: E402
from edgekd.runtime.segment import MaskOptions  # noqa: E402
from edgekd.runtime.segmenters.yolo_seg import YoloSegSegmenter  # noqa: E402
from edgekd.runtime.stopwatch import Stopwatch  # noqa: E402
from edgekd.types import Detections  # noqa: E402

pytestmark = pytest.mark.assets

CONFIDENCE = 0.05
N_PICTURES = 10
SOURCE = {"detector": Source(name="random", sha256="0", licence="none", trained=False)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, assets: Path) -> Path:
    coco = assets / "assets" / "yolo11n_coco.pt"
    return write_segment_checkpoint(tmp_path_factory.mktemp("seg") / "yolo11n-seg.pt", coco)


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    models, folder = checkpoint.parent / "models", checkpoint.parent / "bundle"
    network, options = load_detector(checkpoint, with_masks=True), ExportOptions(detector_px=(320, 320))
    export_networks(network, None, SOURCE, models, options)
    build_bundle(models, folder, BuildOptions(precision="fp32"))
    return folder


def pictures(assets: Path) -> list[np.ndarray]:
    files = sorted((assets / "data" / "coco128" / "images").rglob("*.jpg"))[:N_PICTURES]
    return [edgekd.read_picture(file) for file in files]


def test_boxes_and_masks_are_those_of_ultralytics(checkpoint: Path, bundle: Path, assets: Path) -> None:
    """Ultralytics drops boxes whose mask is empty; here they stay, with an empty mask."""
    reference = ultralytics.YOLO(str(checkpoint), task="segment")
    ious = []
    with edgekd.load(str(bundle), n_threads=1) as chain:
        for picture in pictures(assets):
            found = chain(picture)
            expected = reference.predict(picture, imgsz=320, retina_masks=True, verbose=False, device="cpu")[0]
            rows = np.flatnonzero(found.masks.areas_px())
            assert len(rows) == len(expected.boxes)
            if not len(rows):
                continue
            np.testing.assert_allclose(found.detections.xyxy[rows], expected.boxes.xyxy.numpy(), atol=0.5)
            np.testing.assert_allclose(found.masks.predicted_iou[rows], expected.boxes.conf.numpy(), atol=1e-3)
            for row, mask in zip(rows, expected.masks.data.numpy().astype(bool), strict=True):
                mine = found.masks.full(int(row))
                ious.append((mine & mask).sum() / (mine | mask).sum())
    assert len(ious) > 10
    assert np.min(ious) >= 0.99


def found_in(size: tuple[int, int], network: tuple[int, int], rng: np.random.Generator) -> Found:
    """Smooth random prototypes, random coefficients and boxes of a letterboxed picture."""
    spec = ImageInput(
        height_px=network[0], width_px=network[1], place="centre", interpolation="linear", mean=(0, 0, 0),
        std=(255, 255, 255), pad=(114, 114, 114),
    )  # fmt: skip
    placement = place(size, spec)
    coarse = torch.from_numpy(rng.normal(size=(1, 32, network[0] // 16, network[1] // 16)))
    cells = (network[0] // 4, network[1] // 4)
    prototypes = torch.nn.functional.interpolate(coarse, cells, mode="bicubic").numpy().astype(np.float32)
    centres, sides = rng.uniform(0, 1, (12, 2)) * size[::-1], rng.uniform(8, 200, (12, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], 1)
    boxes = np.clip(boxes, 0, [*size[::-1], *size[::-1]]).astype(np.float32)
    outputs = {MASK_PROTOTYPES: prototypes, MASK_COEFFICIENTS: rng.normal(size=(1, 32, 12)).astype(np.float32)}
    return Found(Detections.from_boxes(boxes), np.arange(12), outputs, placement)


@pytest.mark.parametrize(
    ("size", "network"),
    [((640, 960), (224, 320)), ((480, 640), (256, 320)), ((640, 427), (320, 224)), ((500, 375), (320, 256))],
)
def test_every_mask_is_that_of_ultralytics(size: tuple[int, int], network: tuple[int, int]) -> None:
    found = found_in(size, network, np.random.default_rng(0))
    masks = YoloSegSegmenter()(np.zeros((*size, 3), np.uint8), found, MaskOptions(), Stopwatch())
    parts = found.outputs[MASK_PROTOTYPES][0], found.outputs[MASK_COEFFICIENTS][0].T, found.detections.xyxy
    expected = ops.process_mask_native(*(torch.from_numpy(part.copy()) for part in parts), size) > 0
    for row, mask in enumerate(expected.numpy()):
        mine = masks.full(row)
        assert (mine & mask).sum() >= 0.99 * (mine | mask).sum()


def test_broken_coefficients_are_one_sentence() -> None:
    found = found_in((64, 64), (64, 64), np.random.default_rng(0))
    found.outputs[MASK_COEFFICIENTS][0, 3, 5] = np.nan
    with pytest.raises(BundleError, match="is not finite"):
        YoloSegSegmenter()(np.zeros((64, 64, 3), np.uint8), found, MaskOptions(), Stopwatch())


def test_a_segment_bundle_takes_no_boxes_and_no_embedding(bundle: Path, scene: np.ndarray) -> None:
    with edgekd.load(str(bundle)) as chain:
        with pytest.raises(InputError, match="kind yolo-seg, which masks only its own detector's"):
            chain(scene, boxes=np.array([[0, 0, 9, 9]], np.float32))
        with pytest.raises(InputError, match="no image embeddings"):
            chain.embed(scene)
        cleaned = chain(scene, ChainOptions(mask=MaskOptions(min_region_px=30)))
    assert len(cleaned.masks) == len(cleaned)


def test_networks_that_do_not_go_together(checkpoint: Path, tmp_path: Path) -> None:
    from edgekd.models.tinysam import TinySam

    with pytest.raises(ModelError, match="a segment network alone"):
        export_networks(load_detector(checkpoint, with_masks=True), TinySam(), SOURCE, tmp_path / "m", ExportOptions())
    with pytest.raises(ModelError, match="SegmentationModel"):
        load_detector(checkpoint)
