"""Many pictures into one folder: in order, several at a time, filtered; a stop or a broken picture costs nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from perfect_chain import PerfectChain, draw

from edgekd.errors import InputError
from edgekd.runtime.given import GivenBoxes
from edgekd.runtime.large import LargeOptions
from edgekd.runtime.results.writer import ResultOptions
from edgekd.runtime.run import RunOptions, detect_options, run_pictures
from edgekd.runtime.sources import read_picture
from edgekd.types import ChainResult, Detections, Masks

PLAIN = ResultOptions(overlays=False, masks=False)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for folder, names in (("a", ("x", "y", "z")), ("b", ("x",))):
        (tmp_path / folder).mkdir()
        for index, name in enumerate(names):
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), draw((120, 128), 3 + index)[0])
    return tmp_path


def pictures_of(folder: Path) -> list[dict[str, object]]:
    content = json.loads((folder / "results.json").read_text())
    return [{key: entry[key] for key in ("name", "objects")} for entry in content["pictures"]]


def test_several_jobs_give_what_one_gives(pictures: Path) -> None:
    sources = [pictures / "a", pictures / "b"]
    one = list(run_pictures(PerfectChain(), sources, pictures / "one", results=PLAIN))
    two = list(run_pictures(PerfectChain(), sources, pictures / "two", RunOptions(jobs=3), PLAIN))
    assert [report.name for report in one] == [report.name for report in two] == ["a_x_png", "y", "z", "b_x_png"]
    assert pictures_of(pictures / "one") == pictures_of(pictures / "two")


def test_a_stopped_run_goes_on(pictures: Path) -> None:
    reports = run_pictures(PerfectChain(), [pictures / "a"], pictures / "out", results=PLAIN)
    next(reports)
    reports.close()
    assert len(pictures_of(pictures / "out")) == 1
    states = [
        report.state for report in run_pictures(PerfectChain(), [pictures / "a"], pictures / "out", results=PLAIN)
    ]
    assert states == ["kept", "run", "run"]
    assert [entry["name"] for entry in pictures_of(pictures / "out")] == ["x", "y", "z"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_broken_picture_is_reported_and_the_others_are_kept(pictures: Path, jobs: int) -> None:
    (pictures / "a/y.png").write_bytes(b"broken")
    reports = list(run_pictures(PerfectChain(), [pictures / "a"], pictures / "out", RunOptions(jobs=jobs), PLAIN))
    assert [report.state for report in reports] == ["run", "failed", "run"]
    assert "y.png is not a picture" in reports[1].reason
    with pytest.raises(InputError, match="y.png is not a picture"):
        list(run_pictures(PerfectChain(), [pictures / "a/y.png"], pictures / "alone", results=PLAIN))


def test_small_objects_are_left_out(pictures: Path) -> None:
    list(run_pictures(PerfectChain(), [pictures / "a/z.png"], pictures / "all", results=PLAIN))
    (entry,) = pictures_of(pictures / "all")
    areas = sorted(found["area_px"] for found in entry["objects"])  # type: ignore[attr-defined]
    limit = areas[len(areas) // 2]
    list(run_pictures(PerfectChain(), [pictures / "a/z.png"], pictures / "some", RunOptions(min_area_px=limit), PLAIN))
    (entry,) = pictures_of(pictures / "some")
    kept = [found["area_px"] for found in entry["objects"]]  # type: ignore[attr-defined]
    assert sorted(kept) == [area for area in areas if area >= limit]


def test_small_objects_on_a_map_are_left_out(pictures: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    pixels = read_picture(pictures / "a/z.png")[:, :, ::-1].transpose(2, 0, 1)

    def raster(name: str, crs: str, pixel: float) -> Path:
        place = rasterio.Affine(pixel, 0, 300_000 if pixel == 2 else 10, 0, -pixel, 3_500_000 if pixel == 2 else 50)
        size = {"width": pixels.shape[2], "height": pixels.shape[1]}
        with rasterio.open(pictures / name, "w", count=3, dtype="uint8", crs=crs, transform=place, **size) as file:
            file.write(pixels)
        return pictures / name

    def areas(path: Path, folder: str, **options: float) -> list[float]:
        list(run_pictures(PerfectChain(), [path], pictures / folder, RunOptions(**options), PLAIN))  # type: ignore[arg-type]
        (entry,) = pictures_of(pictures / folder)
        return sorted(found["area_px"] for found in entry["objects"])  # type: ignore[attr-defined]

    metres = raster("metres.tif", "EPSG:32650", 2.0)
    every = areas(metres, "every")
    limit = every[len(every) // 2]
    kept = [area for area in every if area >= limit]
    assert 0 < len(kept) < len(every)
    assert areas(metres, "in m2", min_area=4 * limit) == areas(metres, "in px", min_area_px=limit) == kept
    assert areas(metres, "tiled", min_area=4 * limit, large=LargeOptions(tile=4000)) == kept
    for path, words in ((raster("degrees.tif", "EPSG:4326", 1e-5), "degrees"), (pictures / "a/z.png", "georeference")):
        with pytest.raises(InputError, match=f"min_area .* {words}"):
            areas(path, words, min_area=1)


def test_wishes_per_class_become_limits() -> None:
    options = RunOptions(classes=("ship", "tank"), class_confidence={"ship": 0.5})
    assert detect_options(options, ("tank", "plane", "ship")).class_confidence == (0.25, 1.0, 0.5)
    with pytest.raises(InputError, match="no class 'boat', it knows tank"):
        detect_options(RunOptions(classes=("boat",)), ("tank",))


@pytest.mark.parametrize(
    "values", [{"min_area_px": -1}, {"min_area": float("inf")}, {"jobs": 0}, {"class_confidence": {"ship": 1.5}}]
)
def test_options_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values))}.* is "):
        RunOptions(**values)  # type: ignore[arg-type]


def test_classes_are_left_out_by_the_detector(shipped_bundle: Path, scene: np.ndarray) -> None:
    from edgekd.runtime.chain import Chain, ChainOptions

    with Chain.open(shipped_bundle) as chain:
        names = chain.manifest.pipeline.class_names
        wanted = detect_options(RunOptions(classes=("airplane",)), names)
        result = chain(scene, ChainOptions(wanted, masks=False))
        assert {names[class_id] for class_id in result.detections.class_id} == {"airplane"}
        assert not result.masks.areas_px().any()
        given = chain(scene, boxes=result.detections.xyxy[:1], class_id=np.array([3]))
        assert given.detections.class_id.tolist() == [3]
        with pytest.raises(InputError, match="class_id has shape"):
            chain(scene, boxes=result.detections.xyxy[:1], class_id=np.array([len(names)]))
        assert chain.warm_up((320, 480)) > 0


class _BoxFiller(PerfectChain):
    """Fills the boxes that are given, as a chain masks them."""

    def __call__(self, picture: np.ndarray, options: Any = None, boxes: np.ndarray | None = None) -> ChainResult:
        rows = np.zeros((0, 4), np.float32) if boxes is None else boxes
        windows = rows.astype(np.int32)
        crops = [np.ones((bottom - top, right - left), np.bool_) for left, top, right, bottom in windows]
        masks = Masks(picture.shape[:2], windows, crops, np.ones(len(rows), np.float32))
        return ChainResult(Detections.from_boxes(rows), masks, ("thing", "other"), {"total": 1.0})


def test_given_boxes_keep_their_classes(pictures: Path) -> None:
    paths = sorted((pictures / "a").iterdir())
    rows = np.array([[5, 6, 40, 50], [60, 10, 90, 70]], np.float32)
    boxes = Detections(rows, np.ones(2, np.float32), np.array([1, 0], np.int32))
    none = Detections.from_boxes(np.zeros((0, 4), np.float32))
    by_picture = {path.resolve(): none if path.stem == "y" else boxes for path in paths}
    given = GivenBoxes(("ship", "tank"), by_picture)
    options = RunOptions(given=given, large=LargeOptions(tile="off"))
    reports = list(run_pictures(_BoxFiller(), [pictures / "a"], pictures / "out", options, PLAIN))
    assert [report.counts for report in reports] == [{"ship": 1, "tank": 1}, {}, {"ship": 1, "tank": 1}]
    (first, *_) = pictures_of(pictures / "out")
    objects = first["objects"]
    assert isinstance(objects, list) and [entry["class_name"] for entry in objects] == ["tank", "ship"]
    np.testing.assert_allclose([entry["xyxy"] for entry in objects], rows)
    with pytest.raises(InputError, match="is not among the 3 pictures with boxes"):
        list(run_pictures(_BoxFiller(), [pictures / "b"], pictures / "no", options, PLAIN))
    with pytest.raises(InputError, match="boxes were given with classes"):
        RunOptions(given=given)
    same = GivenBoxes(("ship", "tank"), dict(reversed(by_picture.items())))
    assert repr(same) == repr(given) != repr(GivenBoxes(("ship", "tanks"), by_picture))
