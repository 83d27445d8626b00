"""DOTA in, submission out, on a synthetic set: tiles with labels, a run over tiles, one box per object afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("ultralytics")
pytest.importorskip("shapely")


from edgekd.cli.main import app  # noqa: E402
from edgekd.data.dota import DOTA_CLASSES, read_dota  # noqa: E402
from edgekd.runtime.chain import Chain  # noqa: E402
from edgekd.runtime.oriented import corners_of, enclosing, turned_ious  # noqa: E402
from edgekd.runtime.results.record import entries_of  # noqa: E402
from edgekd.runtime.segment import empty_masks  # noqa: E402
from edgekd.types import ChainResult, Detections, UInt8Array  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE_PX, TILE_PX, OVERLAP_PX = (420, 560), 256, 64
RED, OTHER = DOTA_CLASSES.index("ship"), DOTA_CLASSES.index("plane")


@pytest.fixture(scope="module")
def dota(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures that are larger than a tile, one per split, with bars at any angle, also over the seams of tiles."""
    folder, generator = tmp_path_factory.mktemp("dota") / "DOTA", np.random.default_rng(3)
    for number, split in enumerate(("train", "val")):
        (folder / split / "images").mkdir(parents=True)
        (folder / split / "labelTxt").mkdir()
        picture = generator.integers(0, 40, (*SIZE_PX, 3), dtype=np.uint8)
        lines = ["imagesource:synthetic", "gsd:1.0"]
        for row in range(5):
            for column in range(7):
                centre = np.array([40 + 80 * column, 42 + 84 * row]) + generator.uniform(-12, 12, 2)
                box = np.array([*centre, 36, 14, generator.uniform(-1.5, 1.5)])
                class_id = RED if (row + column) % 2 else OTHER
                picture[inside(box)] = (0, 255, 255) if class_id == RED else (0, 255, 0)
                quad = " ".join(f"{value:.1f}" for value in corners_of(box[None]).ravel())
                lines.append(f"{quad} {DOTA_CLASSES[class_id]} 0")
        cv2.imwrite(str(folder / split / "images" / f"P000{number}.png"), picture)
        (folder / split / "labelTxt" / f"P000{number}.txt").write_text("\n".join(lines))
    call("data", "dota", folder, "-o", folder.parent / "tiles", "--tile-px", TILE_PX, "--overlap-px", OVERLAP_PX)
    return folder


def inside(box: np.ndarray) -> np.ndarray:
    """The pixels whose centres lie in a turned box; OpenCV's polygons would take those along the edge as well."""
    y, x = np.mgrid[: SIZE_PX[0], : SIZE_PX[1]] + 0.5
    cosine, sine = np.cos(box[4]), np.sin(box[4])
    along, across = (x - box[0]) * cosine + (y - box[1]) * sine, (y - box[1]) * cosine - (x - box[0]) * sine
    return np.asarray((abs(along) <= box[2] / 2) & (abs(across) <= box[3] / 2))


def box_of(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The turned box with the centre and the second moments of these pixels, whose own extent is 1 / 12 px^2."""
    points = np.stack([x, y]) + 0.5
    variances, axes = np.linalg.eigh(np.cov(points, bias=True) + np.eye(2) / 12)
    short, long = np.sqrt(12 * variances)
    return np.array([*points.mean(1), long, short, np.arctan2(axes[1, 1], axes[0, 1])])


def call(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def submission(folder: Path) -> dict[str, list[list[str]]]:
    """The lines of every class's file."""
    return {name: [line.split() for line in (folder / f"Task1_{name}.txt").read_text().splitlines()]
            for name in DOTA_CLASSES}  # fmt: skip


class Seer:
    """An oriented chain without networks: the bars of a tile exactly; those at its edge with less confidence."""

    head = SimpleNamespace(is_oriented=True)
    pipeline = SimpleNamespace(
        class_names=DOTA_CLASSES, head=head, detector_input=SimpleNamespace(height_px=TILE_PX, width_px=TILE_PX),
        trained_scale=None,
    )  # fmt: skip
    manifest: Any = SimpleNamespace(pipeline=pipeline, model_dump_json=lambda: "{}", max_boxes=300)
    segmenter: Any = SimpleNamespace(takes_boxes=True)

    def __enter__(self) -> Seer:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def __call__(self, picture: UInt8Array, options: Any = None, **_: Any) -> ChainResult:
        bright = (picture[:, :, 1] > 200).astype(np.uint8)
        quads, classes, confidence = [], [], []
        n_parts, parts = cv2.connectedComponents(bright)
        for number in range(1, n_parts):
            y, x = np.nonzero(parts == number)
            quads.append(corners_of(box_of(y, x)[None])[0])
            classes.append(RED if picture[y[0], x[0], 2] > 200 else OTHER)
            at_edge = min(y.min(), x.min()) == 0 or y.max() + 1 == picture.shape[0] or x.max() + 1 == picture.shape[1]
            confidence.append(0.4 if at_edge else 0.9)
        corners = np.array(quads, np.float32).reshape(-1, 4, 2)
        found = Detections(
            enclosing(corners) if quads else np.zeros((0, 4), np.float32), np.array(confidence, np.float32),
            np.array(classes, np.int32), corners,
        )  # fmt: skip
        order = np.argsort(-found.confidence, kind="stable")
        found = replace(found[order], xyxy=found.xyxy[order].clip(0, TILE_PX))
        return ChainResult(found, empty_masks(picture.shape[:2], len(found)), DOTA_CLASSES, {"total": 1.0})


def test_the_merged_submission_holds_every_object_once(
    dota: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Chain, "open", lambda *arguments, **options: Seer())
    val = dota.parent / "tiles/images/val"
    assert len(list(val.iterdir())) >= 6
    shape = ("--boxes-only", "--no-overlays", "--tile", "off", "--formats", "dota")
    call("run", tmp_path, val, *shape, "-o", tmp_path / "found")
    call("data", "merge", tmp_path / "found", "-o", tmp_path / "submission")
    labels = read_dota(dota / "val").pictures[0]
    truth = np.array([labels.turned_corners(index) for index in range(len(labels))])
    rows = submission(tmp_path / "submission")
    n_whole = 0
    for class_id in (RED, OTHER):
        lines = [line for line in rows[DOTA_CLASSES[class_id]] if float(line[1]) > 0.5]
        assert {line[0] for line in lines} == {"P0001"}
        found = np.array([line[2:] for line in lines], float).reshape(-1, 4, 2)
        ious = turned_ious(found, truth[labels.class_id == class_id])
        assert ious.shape[0] == ious.shape[1] and (ious.max(0) > 0.9).all() and (ious.max(1) > 0.9).all()
        n_whole += len(lines)
    assert n_whole == 35 and not any(rows[name] for name in set(DOTA_CLASSES) - {"ship", "plane"})
    doubled = sum(len(entry["objects"]) for entry in entries_of(tmp_path / "found"))
    assert doubled > n_whole  # tiles saw objects more than once
