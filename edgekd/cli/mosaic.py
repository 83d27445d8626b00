"""Large pictures of `edgekd run`: decides whether a picture is tiled, says so, shows progress, writes its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.errors import InputError

if TYPE_CHECKING:
    from edgekd.runtime.chain import Chain, ChainOptions
    from edgekd.runtime.mosaic import TileReport
    from edgekd.runtime.tiles import TileOptions
    from edgekd.runtime.windows import BandOptions, Windows
    from edgekd.types import ChainResult


@dataclass(frozen=True)
class TileChoice:
    """What the user says of large pictures.

    Attributes:
        tile: `auto`, `off`, or the side of a tile in pixels.
        object_px: longer side of the largest usual object; None for a quarter of the tile.
        bands, stretch: numbers with commas between them; empty for the file's own.
    """

    tile: str = "auto"
    object_px: int | None = None
    bands: str = ""
    stretch: str = ""

    def __post_init__(self) -> None:
        """Check the words.

        Raises:
            InputError: `tile` is neither a word nor a number.
        """
        if self.tile not in ("auto", "off") and not self.tile.isdecimal():
            raise InputError(f"--tile is {self.tile}, expected off, auto or the side of a tile in pixels, such as 640")

    def tile_options(self) -> TileOptions:
        """Return the grid's options."""
        from edgekd.runtime.tiles import TileOptions

        return TileOptions(int(self.tile) if self.tile.isdecimal() else None, self.object_px)

    def band_options(self) -> BandOptions:
        """Return the reader's options.

        Raises:
            InputError: a band is not a whole number, or a stretch is not a pair of numbers.
        """
        from edgekd.runtime.windows import BandOptions

        try:
            bands = tuple(int(text) for text in self.bands.split(",")) if self.bands else None
        except ValueError as error:
            raise InputError(f"--bands is {self.bands}, expected numbers with commas, such as 4,3,2") from error
        try:
            stretch = tuple(float(text) for text in self.stretch.split(",")) if self.stretch else None
        except ValueError as error:
            raise InputError(f"--stretch is {self.stretch}, expected two numbers, such as 0,3000") from error
        if stretch is not None and len(stretch) != 2:
            raise InputError(f"--stretch is {self.stretch}, expected two numbers, such as 0,3000")
        return BandOptions(bands, (stretch[0], stretch[1]) if stretch else None)


def open_if_tiled(path: Path, chain: Chain, choice: TileChoice) -> Windows | None:
    """Open a picture that is to be tiled; None for one that fits, for a video, and with `--tile off`.

    A picture of chosen bands is opened in any case; it then is one tile.
    """
    from edgekd.runtime.sources import VIDEO_SUFFIXES
    from edgekd.runtime.tiles import calls_for_tiles
    from edgekd.runtime.windows import BandOptions, open_windows

    bands = choice.band_options()
    if path.suffix.lower() in VIDEO_SUFFIXES or (choice.tile == "off" and bands == BandOptions()):
        return None
    windows = open_windows(path, bands)
    large = calls_for_tiles(windows.size_px, chain.manifest.pipeline.detector_input) is not None
    if choice.tile != "auto" or large or bands != BandOptions():
        return windows
    windows.close()
    return None


def run_tiled(
    chain: Chain, path: Path, windows: Windows, chain_options: ChainOptions, choice: TileChoice, folder: Path
) -> tuple[ChainResult, str]:
    """Run a large picture; finished tiles are kept in `folder` until `write_mosaic`.

    Returns:
        The objects of the whole picture, and a sentence about tiles that could not be read, or "".
    """
    from edgekd.cli.console import log
    from edgekd.runtime.journal import Journal
    from edgekd.runtime.mosaic import MosaicOptions, collect, journal_key, run_mosaic
    from edgekd.runtime.tiles import TileOptions

    height, width = windows.size_px
    whole = TileOptions(max(64, height, width), 0)
    options = MosaicOptions(chain_options, whole if choice.tile == "off" else choice.tile_options())
    _say_tiles(path, chain, windows, options.tiles)
    with Journal(journal_path(folder, path), journal_key(chain, path, options)) as journal:
        if journal.n_kept:
            log.print(f"{journal.path} holds {journal.n_kept} finished tiles; the run goes on from there")
        if journal.started_over:
            log.print(f"{journal.path} was of another picture, bundle or options; the run starts over")
        with _Progress() as progress:
            result = collect(run_mosaic(chain, windows, options, journal, progress.show), windows.size_px)
    return result, progress.broken(path)


def write_mosaic(
    path: Path, windows: Windows, result: ChainResult, folder: Path, kinds: tuple[bool, bool, bool]
) -> dict[str, Any]:
    """Write the files of a large picture, drop its journal, and return its entry of the JSON.

    Args:
        path: the picture.
        windows: the open picture.
        result: its objects.
        folder: where the files go.
        kinds: overlay, masks, GeoJSON.
    """
    import json

    import cv2

    from edgekd.cli.console import write_file, write_text
    from edgekd.runtime import output
    from edgekd.runtime.mosaic_files import preview, write_label_raster
    from edgekd.runtime.windows import RasterWindows

    overlays, masks, geojson = kinds
    if overlays:
        write_file(folder / f"{path.stem}_overlay.jpg", cv2.imencode(".jpg", preview(windows, result))[1].tobytes())
    if masks and isinstance(windows, RasterWindows):
        write_label_raster(folder / f"{path.stem}_masks.tif", result, windows.georeference)
    elif masks:
        write_file(folder / f"{path.stem}_masks.png", cv2.imencode(".png", output.label_map(result))[1].tobytes())
    if geojson:
        place = windows.georeference
        if place is None:
            raise InputError(f"{path} has no georeference; leave --geojson out or give a GeoTIFF")
        content = output.geojson(result, place.transform, place.crs)
        write_text(folder / f"{path.stem}.geojson", json.dumps(content) + "\n")
    return {
        "name": path.stem,
        "source": str(path),
        "frame": None,
        "width_px": windows.size_px[1],
        "height_px": windows.size_px[0],
        "objects": output.objects_json(result),
        "times_ms": {},
    }


def journal_path(folder: Path, picture: Path) -> Path:
    """Return where the finished tiles of a picture are kept while it runs."""
    return folder / f"{picture.stem}.tiles.jsonl"


def _say_tiles(path: Path, chain: Chain, windows: Windows, options: TileOptions) -> None:
    from edgekd.cli.console import log
    from edgekd.runtime.tiles import calls_for_tiles, choose_grid

    spec = chain.manifest.pipeline.detector_input
    grid = choose_grid(windows.size_px, spec, options)
    if len(grid) == 1:
        return
    shrink = calls_for_tiles(windows.size_px, spec)
    larger = f", {shrink:.1f} times the detector's input of {spec.width_px}x{spec.height_px}" if shrink else ""
    log.print(
        f"{path} is {windows.size_px[1]}x{windows.size_px[0]} px{larger}: run as {len(grid)} tiles of "
        f"{grid.tile_px} px that overlap by at least {grid.overlap_px} px (--tile off shrinks it instead)"
    )


class _Progress:
    """A bar of tiles on stderr, and what became of those that could not be read."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from edgekd.cli.console import log

        columns = (TextColumn("tiles"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=log)
        self._task = self._bar.add_task("tiles", total=None)
        self._broken: list[str] = []
        self._n_tiles = 0

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, tile: TileReport) -> None:
        self._n_tiles = tile.n_tiles
        if tile.state == "broken":
            self._broken.append(tile.reason)
        self._bar.update(self._task, total=tile.n_tiles, completed=tile.index + 1)

    def broken(self, path: Path) -> str:
        if not self._broken:
            return ""
        return f"{len(self._broken)} of {self._n_tiles} tiles of {path} could not be read (first: {self._broken[0]})"
