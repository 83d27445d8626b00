"""`edgekd run`: pictures, folders and videos through a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.errors import BackendUnavailable, InputError

if TYPE_CHECKING:
    from edgekd.cli.mosaic import TileChoice
    from edgekd.runtime.chain import Chain, ChainOptions
    from edgekd.runtime.sources import Frame
    from edgekd.runtime.windows import Windows
    from edgekd.types import ChainResult


def run(
    bundle: Annotated[Path, typer.Argument(help="bundle written by build-engine")],
    sources: Annotated[list[Path], typer.Argument(help="pictures, folders of pictures, videos")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for overlays, masks and JSON")] = Path("out"),
    json_file: Annotated[Path | None, typer.Option("--json", help="one JSON for all pictures")] = None,
    confidence: Annotated[float, typer.Option(help="lowest class probability")] = 0.25,
    iou: Annotated[float, typer.Option(help="overlap above which two boxes are one object")] = 0.7,
    max_boxes: Annotated[int, typer.Option(help="most boxes a picture")] = 300,
    min_region_px: Annotated[int, typer.Option(help="remove islands and holes below this area")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: the backend's choice", min=1)] = None,
    overlays: Annotated[bool, typer.Option(help="write NAME_overlay.jpg")] = True,
    masks: Annotated[bool, typer.Option(help="write NAME_masks.png: pixel value 1 + index of the object")] = True,
    geojson: Annotated[bool, typer.Option(help="write NAME.geojson; needs GeoTIFF sources and rasterio")] = False,
    tile: Annotated[str, typer.Option(help="large pictures in tiles: auto, off, or a side in px")] = "auto",
    object_px: Annotated[int | None, typer.Option(help="side of the largest object; default: a quarter tile")] = None,
    bands: Annotated[str, typer.Option(help="red, green and blue band of a raster, such as 4,3,2")] = "",
    stretch: Annotated[str, typer.Option(help="values of a raster that become 0 and 255: LOW,HIGH")] = "",
) -> None:
    """Find objects and their masks; one line a picture on stdout, files in the output folder.

    A picture that cannot be read is reported and skipped; the exit code is then 1, and all other results are kept.
    A picture much larger than the detector's input is run in tiles; interrupted, the same command goes on where it
    stopped.
    """
    from rich.progress import track

    from edgekd.cli.console import log, out
    from edgekd.cli.mosaic import TileChoice, open_if_tiled
    from edgekd.runtime.chain import Chain, ChainOptions
    from edgekd.runtime.detect import DetectOptions
    from edgekd.runtime.segment import MaskOptions
    from edgekd.runtime.sources import expand, frames

    options = ChainOptions(DetectOptions(confidence, iou, max_boxes), MaskOptions(min_region_px=min_region_px))
    choice = TileChoice(tile, object_px, bands, stretch)
    paths = expand(sources)
    written = _Writer(output, overlays, masks, geojson)
    failures: list[str] = []
    with Chain.open(bundle, threads) as chain:
        for path in track(paths, "running", console=log, disable=len(paths) == 1):
            try:
                if (windows := open_if_tiled(path, chain, choice)) is not None:
                    failures += written.add_tiled(chain, path, windows, options, choice)
                    continue
                for frame in frames(path):
                    result = chain(frame.picture, options)
                    written.add(frame, result)
                    out.print(f"{frame.name}: {_summary(result)}, {result.times_ms['total']:.0f} ms")
            except InputError as error:
                if len(paths) == 1:
                    raise
                failures.append(str(error))
                log.print(f"skipped: {error}")
    written.finish(json_file)
    if failures:
        raise InputError(f"{len(failures)} of {len(paths)} sources could not be read as a whole (first: {failures[0]})")


class _Writer:
    """Writes the files of every picture and collects the JSON."""

    def __init__(self, folder: Path, overlays: bool, masks: bool, geojson: bool) -> None:
        self.folder, self.overlays, self.masks, self.geojson = folder, overlays, masks, geojson
        self.pictures: list[dict[str, Any]] = []

    def add(self, frame: Frame, result: ChainResult) -> None:
        from edgekd.runtime import output

        if self.overlays:
            self._write_picture(f"{frame.name}_overlay.jpg", output.overlay(frame.picture, result))
        if self.masks:
            self._write_picture(f"{frame.name}_masks.png", output.label_map(result))
        if self.geojson:
            self._write_geojson(frame, result)
        height, width = frame.picture.shape[:2]
        self.pictures.append(
            {
                "name": frame.name,
                "source": str(frame.path),
                "frame": frame.index,
                "width_px": width,
                "height_px": height,
                "objects": output.objects_json(result),
                "times_ms": {name: round(value, 3) for name, value in result.times_ms.items()},
            }
        )

    def add_tiled(
        self, chain: Chain, path: Path, windows: Windows, options: ChainOptions, choice: TileChoice
    ) -> list[str]:
        """Run and write a large picture; return a sentence when parts of it could not be read."""
        from edgekd.cli.console import out
        from edgekd.cli.mosaic import journal_path, run_tiled, write_mosaic

        try:
            result, broken = run_tiled(chain, path, windows, options, choice, self.folder)
            kinds = (self.overlays, self.masks, self.geojson)
            self.pictures.append(write_mosaic(path, windows, result, self.folder, kinds))
        finally:
            windows.close()
        out.print(f"{path.stem}: {_summary(result)}")
        if broken:
            return [broken]
        journal_path(self.folder, path).unlink()
        return []

    def finish(self, json_file: Path | None) -> None:
        import json

        from edgekd.cli.console import write_text

        write_text(json_file or self.folder / "results.json", json.dumps({"pictures": self.pictures}, indent=1) + "\n")

    def _write_picture(self, name: str, picture: Any) -> None:
        import cv2

        from edgekd.cli.console import write_file

        done, data = cv2.imencode(Path(name).suffix, picture)
        if not done:
            raise InputError(f"{name} cannot be encoded at {picture.shape}; give smaller pictures")
        write_file(self.folder / name, data.tobytes())

    def _write_geojson(self, frame: Frame, result: ChainResult) -> None:
        import json

        from edgekd.cli.console import write_text
        from edgekd.runtime.output import geojson

        transform, crs = _georeference(frame.path)
        write_text(self.folder / f"{frame.name}.geojson", json.dumps(geojson(result, transform, crs)) + "\n")


def _georeference(path: Path) -> tuple[tuple[float, ...], str | None]:
    try:
        import rasterio
    except ImportError as error:
        raise BackendUnavailable(f"GeoJSON needs rasterio ({error}); install it: pip install 'edgekd[geo]'") from error
    try:
        with rasterio.open(path) as file:
            transform, crs = file.transform, file.crs
    except rasterio.errors.RasterioError as error:
        raise InputError(f"{path} has no georeference ({error}); leave --geojson out") from error
    if transform.is_identity:
        raise InputError(f"{path} has no georeference; leave --geojson out or give a GeoTIFF")
    return tuple(transform)[:6], crs.to_string() if crs else None


def _summary(result: ChainResult) -> str:
    if not len(result):
        return "no objects"
    counts: dict[str, int] = {}
    for class_id in result.detections.class_id:
        name = result.class_names[int(class_id)]
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
