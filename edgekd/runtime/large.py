"""Large pictures of a run: is a picture to be cut into tiles, how, and what came of it.

An open picture goes in; the objects of the whole picture come out, with a sentence about parts that could not be read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from edgekd.model_set import ImageInput, Pipeline
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.journal import Journal
from edgekd.runtime.mosaic import MosaicOptions, TileReport, collect, journal_key, run_mosaic
from edgekd.runtime.sources import Frame, read_picture
from edgekd.runtime.tiles import TileOptions, calls_for_tiles, choose_grid
from edgekd.runtime.windows import RASTER_SUFFIXES, ArrayWindows, BandOptions, Windows, has_rasterio, open_windows
from edgekd.types import ChainResult


@dataclass(frozen=True, kw_only=True)
class LargeOptions:
    """What happens to large pictures.

    Attributes:
        tile: `auto` cuts a picture that is much larger than the detector's input; `off` shrinks it; a number is the
            side of a tile in pixels, for every picture.
        object_px: longer side of the largest usual object; None is a quarter of the tile.
        bands: which bands of a raster are read, and how their values become 8 bits.
    """

    tile: Literal["auto", "off"] | int = "auto"
    object_px: int | None = None
    bands: BandOptions = field(default_factory=BandOptions)


@dataclass(frozen=True)
class Watch:
    """Who is told of a run as it goes: `note` of lines for the log, `tile` of every tile of a large picture."""

    note: Callable[[str], None] = lambda line: None
    tile: Callable[[TileReport], None] = lambda tile: None


@dataclass(frozen=True)
class Large:
    """A large picture, open; close its windows after use."""

    path: Path
    windows: Windows


def open_source(path: Path, spec: ImageInput, options: LargeOptions) -> Frame | Large:
    """Read a picture, or open it when it is to be run in tiles.

    A raster of chosen bands is opened in any case; it then is one tile.

    Raises:
        InputError: the picture cannot be read, or has no such bands.
        BackendUnavailable: bands are chosen and rasterio is not installed.
    """
    chosen = options.bands != BandOptions()
    windows: Windows
    if chosen or (options.tile != "off" and path.suffix.lower() in RASTER_SUFFIXES and has_rasterio()):
        windows = open_windows(path, options.bands)
        if chosen or _is_tiled(windows, spec, options):
            return Large(path, windows)
        windows.close()
    frame = Frame(path.stem, path, read_picture(path))
    windows = ArrayWindows(frame.picture)
    return Large(path, windows) if options.tile != "off" and _is_tiled(windows, spec, options) else frame


def run_large(
    chain: Chain, large: Large, wanted: tuple[ChainOptions, LargeOptions], journal_file: Path, watch: Watch
) -> tuple[ChainResult, str]:
    """Run a large picture; finished tiles are kept in `journal_file`, which the caller removes.

    Returns:
        The objects of the whole picture, and a sentence about tiles that could not be read, or "".
    """
    chain_options, options = wanted
    size_px = large.windows.size_px
    tiles = TileOptions(None if isinstance(options.tile, str) else options.tile, options.object_px)
    if options.tile == "off":
        tiles = TileOptions(max(64, *size_px), 0)
    mosaic = MosaicOptions(chain=replace(chain_options, masks=True), tiles=tiles, masks=chain_options.masks)
    line = describe_tiles(large, chain.manifest.pipeline, tiles)
    if line:
        watch.note(line)
    broken = []

    def report(tile: TileReport) -> None:
        if tile.state == "broken":
            broken.append(tile)
        watch.tile(tile)

    with Journal(journal_file, journal_key(chain, large.path, mosaic)) as journal:
        if journal.n_kept:
            watch.note(f"{journal.path} holds {journal.n_kept} finished tiles; the run goes on from there")
        if journal.started_over:
            watch.note(f"{journal.path} was of another picture, bundle or options; the run starts over")
        result = collect(run_mosaic(chain, large.windows, mosaic, journal, report), size_px)
    if not broken:
        return result, ""
    first = broken[0]
    return result, f"{len(broken)} of {first.n_tiles} tiles of {large.path} could not be read (first: {first.reason})"


def describe_tiles(large: Large, pipeline: Pipeline, tiles: TileOptions) -> str:
    """Say into which tiles a picture is cut, and why of that side; "" when it is one."""
    height, width = large.windows.size_px
    grid, spec = choose_grid((height, width), pipeline, tiles), pipeline.detector_input
    if len(grid) == 1:
        return ""
    shrink = calls_for_tiles((height, width), spec)
    larger = f", {shrink:.1f} times the detector's input of {spec.width_px}x{spec.height_px}" if shrink else ""
    return (
        f"{large.path} is {width}x{height} px{larger}: run as {len(grid)} tiles of {grid.tile_px} px that "
        f"overlap by at least {grid.overlap_px} px{_why(pipeline, tiles)} (with tile off it is shrunk instead)"
    )


def _why(pipeline: Pipeline, tiles: TileOptions) -> str:
    """Say where the side of a tile comes from, unless a person chose it."""
    if tiles.tile_px is not None:
        return ""
    if pipeline.trained_scale is None:
        return "; the scale of the detector's training is not recorded, so its input is the tile: compare other sides"
    return f"; the detector was trained on pictures shrunk to {pipeline.trained_scale:.2f} of their size"


def _is_tiled(windows: Windows, spec: ImageInput, options: LargeOptions) -> bool:
    return options.tile != "auto" or calls_for_tiles(windows.size_px, spec) is not None
