"""`edgekd run` on large pictures: says that it tiles, writes map files, resumes, and keeps what it has."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
from perfect_chain import PerfectChain, draw
from typer.testing import CliRunner, Result

from edgekd.cli.main import app
from edgekd.cli.values import parse_large
from edgekd.errors import InputError
from edgekd.runtime.chain import Chain

rasterio = pytest.importorskip("rasterio")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["run", *map(str, arguments)])


@pytest.fixture(autouse=True)
def perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bundle opens as the chain without networks, whose input has 128 px."""
    monkeypatch.setattr(Chain, "open", lambda folder, n_threads, public_key: nullcontext(PerfectChain()))


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mosaic") / "town.tif"
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)
    with rasterio.open(
        path, "w", driver="GTiff", width=700, height=500, count=3, dtype="uint8", crs="EPSG:32633",
        transform=transform, tiled=True, blockxsize=64, blockysize=64, photometric="rgb", compress="deflate",
    ) as file:  # fmt: skip
        file.write(draw((500, 700), 80)[0].transpose(2, 0, 1))
    return path


def test_a_large_picture_is_tiled_and_everything_is_written(tmp_path: Path, mosaic: Path) -> None:
    out = tmp_path / "out"
    done = run("b", mosaic, "-o", out, "--geojson")
    assert done.exit_code == 0, done.output
    words = "town.tif is 700x500 px, 5.5 times the detector's input of 128x128: run as 35 tiles of 128 px"
    assert words in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "results.json", "results.jsonl", "town.geojson", "town_masks.tif", "town_overlay.jpg",
    ]  # fmt: skip
    [entry] = json.loads((out / "results.json").read_text())["pictures"]
    off = run("b", mosaic, "-o", tmp_path / "off", "--tile", "off")
    assert off.exit_code == 0 and "tiles" not in off.stderr
    [whole] = json.loads((tmp_path / "off" / "results.json").read_text())["pictures"]
    assert (entry["width_px"], entry["height_px"]) == (700, 500) == (whole["width_px"], whole["height_px"])
    assert sorted(o["mask"]["counts"] for o in entry["objects"]) == sorted(
        o["mask"]["counts"] for o in whole["objects"]
    )
    with rasterio.open(out / "town_masks.tif") as file:
        assert file.crs.to_string() == "EPSG:32633" and file.read(1).max() == len(entry["objects"])
    easting = json.loads((out / "town.geojson").read_text())["features"][0]["geometry"]["coordinates"][0][0][0][0]
    assert 500_000 <= easting <= 500_350


def test_a_broken_window_costs_its_tiles_only(tmp_path: Path, mosaic: Path) -> None:
    with rasterio.open(mosaic) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_4_4", "TIFF", bidx=1))
        size = int(file.get_tag_item("BLOCK_SIZE_4_4", "TIFF", bidx=1))
    data = bytearray(mosaic.read_bytes())
    data[offset : offset + size] = b"\xff" * size
    path = tmp_path / "hurt.tif"
    path.write_bytes(data)
    done = run("b", path, "-o", tmp_path / "out")
    assert done.exit_code == 1 and isinstance(done.exception, InputError)
    assert "tiles of" in str(done.exception) and "cannot be read" in str(done.exception)
    [entry] = json.loads((tmp_path / "out" / "results.json").read_text())["pictures"]
    assert len(entry["objects"]) > 4


def test_an_interrupted_mosaic_goes_on(tmp_path: Path, mosaic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.cli.console import TileBar

    first = run("b", mosaic, "-o", tmp_path / "whole")
    show = TileBar.show

    def interrupted(self: object, tile: object) -> None:
        show(self, tile)  # type: ignore[arg-type]
        if tile.index == 7:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TileBar, "show", interrupted)
        run("b", mosaic, "-o", tmp_path / "out")
    assert (tmp_path / "out" / "town.tiles.jsonl").is_file()
    done = run("b", mosaic, "-o", tmp_path / "out")
    assert done.exit_code == 0 and "holds 8 finished tiles; the run goes on" in done.stderr
    assert first.stdout == done.stdout
    assert (tmp_path / "out/results.json").read_bytes() == (tmp_path / "whole/results.json").read_bytes()


def test_pictures_without_a_place_and_chosen_bands(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "flat.png"), draw((300, 400))[0])
    done = run("b", tmp_path / "flat.png", "-o", tmp_path / "out", "--tile", 200)
    assert done.exit_code == 0 and (tmp_path / "out/flat_masks.png").is_file()
    refused = run("b", tmp_path / "flat.png", "-o", tmp_path / "out", "--geojson")
    assert refused.exit_code == 1 and "has no georeference" in str(refused.exception)
    refused = run("b", tmp_path / "flat.png", "-o", tmp_path / "bands", "--bands", "4,3,2")
    assert refused.exit_code == 1 and "is not a raster with bands" in str(refused.exception)


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
def test_one_row_and_one_column_with_a_place(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = np.full((3, *size), 20, np.uint8)
    picture[:, :, 1500:1600] = picture[:, 1500:1600] = 255
    place = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)
    with rasterio.open(
        tmp_path / "thin.tif", "w", driver="GTiff", width=size[1], height=size[0], count=3, dtype="uint8",
        crs="EPSG:32633", transform=place, photometric="rgb",
    ) as file:  # fmt: skip
        file.write(picture)
    done = run("b", tmp_path / "thin.tif", "-o", tmp_path / "out", "--geojson")
    assert done.exit_code == 0, done.output
    [entry] = json.loads((tmp_path / "out/results.json").read_text())["pictures"]
    [found] = entry["objects"]
    assert max(found["mask"]["size"]) == 3000 and found["xyxy"][2:] in ([1600, 1], [1, 1600])
    with rasterio.open(tmp_path / "out/thin_masks.tif") as file:
        assert file.read(1).sum() == 100


def test_a_hundred_megapixels_of_which_little_is_not_empty(tmp_path: Path) -> None:
    path, side_px = tmp_path / "country.tif", 10_000
    place = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)
    with rasterio.open(
        path, "w", driver="GTiff", width=side_px, height=side_px, count=3, dtype="uint8", crs="EPSG:32633",
        transform=place, tiled=True, blockxsize=512, blockysize=512, photometric="rgb", compress="deflate",
        sparse_ok=True,
    ) as file:  # fmt: skip
        for corner in (0, 5_000, side_px - 300):
            file.write(draw((300, 300), 9, corner)[0].transpose(2, 0, 1), window=((corner, corner + 300),) * 2)
    done = run("b", path, "-o", tmp_path / "out", "--tile", 2000, "--object-px", 100, "--no-overlays", "--no-masks",
               "--geojson")  # fmt: skip
    assert done.exit_code == 0, done.output
    [entry] = json.loads((tmp_path / "out/results.json").read_text())["pictures"]
    assert (entry["width_px"], entry["height_px"]) == (side_px, side_px)
    places = [found["xyxy"][0] for found in entry["objects"]]
    assert {min((0, 5_000, 9_700), key=lambda corner: abs(place - corner - 150)) for place in places} == {
        0,
        5_000,
        9_700,
    }
    assert all(any(corner <= place <= corner + 300 for corner in (0, 5_000, 9_700)) for place in places)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"tile": "big"}, "tile is big, expected off, auto or the side"),
        ({"bands": "r,g,b"}, "bands is r,g,b, expected numbers"),
        ({"stretch": "1,2,3"}, "stretch is 1,2,3, expected two numbers"),
        ({"stretch": "low,high"}, "stretch is low,high, expected two"),
    ],
)
def test_wrong_words_are_one_sentence(choice: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_large(**{"tile": "auto", "object_px": None, "bands": "", "stretch": ""} | choice)  # type: ignore[arg-type]
