"""Label rasters are read back by rasterio as the label map, in the same place; previews are small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from perfect_chain import PerfectChain, draw

from edgekd.errors import InputError
from edgekd.runtime import mosaic_files
from edgekd.runtime.mosaic_files import label_strips, preview, shrink, write_label_raster
from edgekd.runtime.results.formats import label_map
from edgekd.runtime.windows import ArrayWindows, Georeference
from edgekd.types import ChainResult

PLACE = Georeference((0.5, 0.0, 500_000.0, 0.0, -0.5, 5_400_000.0), "EPSG:32633")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return draw((700, 1100), 60)[0]


@pytest.fixture(scope="module")
def result(picture: np.ndarray) -> ChainResult:
    return PerfectChain()(picture)


@pytest.mark.parametrize("rows", [1, 100, 512, 5000])
def test_strips_are_the_label_map(result: ChainResult, rows: int) -> None:
    strips = list(label_strips(result, rows))
    assert [top for top, _ in strips] == list(range(0, 700, rows))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in strips]), label_map(result))


@pytest.mark.parametrize("place", [PLACE, None])
def test_rasterio_reads_the_labels_where_they_are(
    tmp_path: Path, result: ChainResult, place: Georeference | None
) -> None:
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "new" / "a_masks.tif"
    write_label_raster(path, result, place)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning) if place is None else rasterio.Env():
        file = rasterio.open(path)
    np.testing.assert_array_equal(file.read(1), label_map(result))
    assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and file.overviews(1)
    if place:
        assert file.crs.to_string() == place.crs and tuple(file.transform)[:6] == place.transform
    file.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["a_masks.tif"]


def test_a_raster_that_cannot_be_written_is_one_sentence(tmp_path: Path, result: ChainResult) -> None:
    pytest.importorskip("rasterio")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written \(.*\); give another folder"):
        write_label_raster(tmp_path / "file" / "a.tif", result, None)


def test_previews_are_small_and_show_every_object(picture: np.ndarray, result: ChainResult) -> None:
    assert preview(ArrayWindows(picture), result, 110).shape == (70, 110, 3)
    small = shrink(result, (70, 110))
    assert all(crop.any() for crop in small.masks.crops)
    np.testing.assert_allclose(small.detections.xyxy, result.detections.xyxy / 10, rtol=1e-6)
    assert mosaic_files.shrink(result, (700, 1100)).masks.areas_px().tolist() == result.masks.areas_px().tolist()
