"""The results of many pictures in one folder, written as they come: a stop loses nothing, nothing is overwritten.

A frame and its `ChainResult` go in; files come out. `results.jsonl` grows by one line per picture and lists every file
of the run. The tables (JSON, CSV, COCO) are made from it at the end, however the run ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2

from edgekd.errors import InputError
from edgekd.files import write_bytes, write_text
from edgekd.runtime.mosaic_files import PREVIEW_PX, preview, shrink, write_label_raster
from edgekd.runtime.results import maps, tables
from edgekd.runtime.results.dota import yolo_obb_lines
from edgekd.runtime.results.draw import mask_preview, overlay
from edgekd.runtime.results.formats import CocoIds, label_map, objects_json, yolo_lines
from edgekd.runtime.results.record import RunRecord
from edgekd.runtime.sources import Frame
from edgekd.runtime.windows import RasterWindows, Windows
from edgekd.types import ChainResult, UInt8Array

Format = Literal["coco", "csv", "yolo", "yolo-obb", "dota", "geojson", "gpkg"]
FORMATS: tuple[Format, ...] = ("coco", "csv", "yolo", "yolo-obb", "dota", "geojson", "gpkg")
OF_TURNED_BOXES = ("yolo-obb", "dota")
RECORD_NAME = "results.jsonl"
TABLE_NAME = "results.json"


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """Which files are written beside `results.jsonl` and `results.json`.

    Attributes:
        overlays: NAME_overlay.jpg, boxes and masks over the picture.
        masks: NAME_masks.png, 16 bits: pixel value 1 + index of the object.
        preview: NAME_preview.png, every mask in a colour.
        boxes_only: the results have no masks, and say nothing of any; YOLO labels are boxes then.
        oriented: the boxes are turned, and every object has corners.
        formats: `coco`: coco.json (a data set) and coco_results.json; `csv`: results.csv; `yolo`: labels/NAME.txt;
            `yolo-obb`: the same of turned boxes; `dota`: Task1_CLASS.txt, DOTA's submission of turned boxes;
            `geojson`, `gpkg`: NAME.geojson and NAME.gpkg in map coordinates, for pictures that have them.
        coco_ids: the numbers of a COCO file that the results belong to.
        json_file: where the final JSON goes; None is results.json in the folder.
    """

    overlays: bool = True
    masks: bool = True
    preview: bool = False
    boxes_only: bool = False
    oriented: bool = False
    formats: tuple[Format, ...] = ()
    coco_ids: CocoIds = field(default_factory=CocoIds)
    json_file: Path | None = None

    def check(self) -> None:
        """Check that the formats go with the boxes and with each other.

        Raises:
            InputError: turned boxes are asked for and the boxes are upright, or two formats share their files.
        """
        asked = [name for name in self.formats if name in OF_TURNED_BOXES]
        if asked and not self.oriented:
            raise InputError(
                f"the format is {asked[0]} and the detector gives upright boxes; leave it out of formats, or give a "
                "bundle of an oriented detector"
            )
        if {"yolo", "yolo-obb"} <= set(self.formats):
            raise InputError("formats has yolo and yolo-obb, which write the same files; give one of them")


class ResultWriter:
    """A folder of results; use it as a context manager.

    The folder of a run that was interrupted goes on where it stopped when `key` is the same; the files of a finished
    or another run are removed first, so that results never mix. Files that no run has written are never touched.

    Attributes:
        folder: where it writes.
        n_kept: pictures of an interrupted run that are finished and need not run again.
        n_replaced: files of an earlier run that were removed.
    """

    def __init__(
        self,
        folder: str | Path,
        class_names: tuple[str, ...],
        options: ResultOptions | None = None,
        sources: Iterable[Path] = (),
        key: str = "",
    ) -> None:
        """Open a folder for results.

        Args:
            folder: made when it is not there.
            class_names: of the bundle.
            options: what to write; the defaults when None.
            sources: the pictures to come; their folders are refused as output, and their names kept apart.
            key: names the bundle and the options, see `edgekd.runtime.run.run_key`.

        Raises:
            InputError: the folder holds a source or foreign files in the way, is in use by another run, or cannot be
                written.
        """
        self.folder, self._class_names, self._options = Path(folder), class_names, options or ResultOptions()
        self._options.check()
        paths = list(sources)
        _check_apart(self.folder, paths)
        self._record = RunRecord(self.folder / RECORD_NAME, key)
        self.n_kept, self.n_replaced = len(self._record.kept), self._record.n_removed
        self._names = unique_names(paths)
        self._taken = {str(entry["name"]).casefold() for entry in self._record.entries()}

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(InputError) if error else contextlib.nullcontext():
            self.finish(complete=error is None)

    def is_kept(self, path: Path, index: int | None = None) -> bool:
        """Return whether an interrupted run has finished this picture, or frame of a video, as it is now."""
        return self._record.is_kept(path, index)

    def name_of(self, frame: Frame) -> str:
        """Return the name of the frame's files: its own, or a longer one where two sources share it."""
        name = self._names.get(frame.path, frame.path.stem)
        name = name + frame.name.removeprefix(frame.path.stem) if frame.index is not None else name
        unique, number = name, 1
        while unique.casefold() in self._taken:
            number += 1
            unique = f"{name}-{number}"
        return unique

    def add(self, frame: Frame, result: ChainResult) -> str:
        """Write the files of one picture and its line; return the name that they bear.

        Raises:
            InputError: a file cannot be written, is in the way, or a map was asked for and the picture has no place.
        """
        wanted, name = set(self._options.formats), self.name_of(frame)
        place = maps.georeference_of(frame.path) if wanted & {"geojson", "gpkg"} else None
        image_id = tables.image_id_of(frame.path.name, self._options.coco_ids) if "coco" in wanted else None
        files = self._files(name)
        self._record.announce(files)
        if self._options.overlays:
            self._picture(f"{name}_overlay.jpg", overlay(frame.picture, result))
        if self._options.masks:
            self._picture(f"{name}_masks.png", label_map(result))
        if self._options.preview:
            self._picture(f"{name}_preview.png", mask_preview(result))
        self._write_labels(name, result)
        if place is not None:
            maps.write_maps(self.folder / name, result, place, wanted)
        self.add_entry(frame, name, result, files, image_id)
        return name

    def add_large(self, frame: Frame, windows: Windows, result: ChainResult) -> str:
        """Write the files of a large picture, which is never in memory as a whole; errors as for `add`.

        The overlay is shrunk, and the label map of a raster is a GeoTIFF.
        """
        wanted, name, is_raster = set(self._options.formats), self.name_of(frame), isinstance(windows, RasterWindows)
        image_id = tables.image_id_of(frame.path.name, self._options.coco_ids) if "coco" in wanted else None
        place = windows.georeference
        if place is None and wanted & {"geojson", "gpkg"}:
            raise maps.no_place(frame.path)
        files = self._files(name)
        if is_raster:
            files = tuple(file.replace("_masks.png", "_masks.tif") for file in files)
        self._record.announce(files)
        if self._options.overlays:
            self._picture(f"{name}_overlay.jpg", preview(windows, result))
        if self._options.masks and is_raster:
            write_label_raster(self.folder / f"{name}_masks.tif", result, place)
        elif self._options.masks:
            self._picture(f"{name}_masks.png", label_map(result))
        if self._options.preview:
            self._picture(f"{name}_preview.png", mask_preview(shrink(result, windows.preview(PREVIEW_PX).shape[:2])))
        self._write_labels(name, result)
        if place is not None:
            maps.write_maps(self.folder / name, result, place, wanted)
        self.add_entry(frame, name, result, files, image_id)
        return name

    def add_entry(
        self, frame: Frame, name: str, result: ChainResult, files: tuple[str, ...] = (), image_id: int | None = None
    ) -> None:
        """Write the line of a picture whose files the caller has written, and announced with `announce`."""
        height, width = result.masks.size_px
        entry: dict[str, Any] = {
            "name": name,
            "source": str(frame.path),
            "frame": frame.index,
            "width_px": width,
            "height_px": height,
            "objects": objects_json(result, masks=not self._options.boxes_only),
            "times_ms": {stage: round(value, 3) for stage, value in result.times_ms.items()},
            "files": list(files),
        }
        if image_id is not None:
            entry["image_id"] = image_id
        self._taken.add(name.casefold())
        self._record.add(frame.path, frame.index, entry)

    def _write_labels(self, name: str, result: ChainResult) -> None:
        path, formats = self.folder / f"labels/{name}.txt", self._options.formats
        if "yolo" in formats:
            write_text(path, yolo_lines(result, not self._options.boxes_only))
        elif "yolo-obb" in formats:
            write_text(path, yolo_obb_lines(result))

    def announce(self, files: tuple[str, ...]) -> None:
        """Say which files come next, so that a stop in the middle leaves none that nobody knows.

        Raises:
            InputError: one is there that no run has written.
        """
        self._record.announce(files)

    def finish(self, complete: bool = True) -> None:
        """Write the tables of all lines and close; a second call does nothing.

        Raises:
            InputError: the disk is full.
        """
        if self._record.is_closed:
            return
        names = [TABLE_NAME] if self._options.json_file is None else []
        names += tables.names_of(self._options.formats, self._class_names)
        self._record.announce(tuple(names))
        self._record.end(complete)
        entries, options = self._record.entries, self._options
        tables.write_json(options.json_file or self.folder / TABLE_NAME, entries, complete)
        tables.write_tables(
            self.folder, entries, self._class_names, options.formats, options.coco_ids, options.oriented
        )

    def _files(self, name: str) -> tuple[str, ...]:
        options = self._options
        suffixes: Mapping[str, bool] = {
            "_overlay.jpg": options.overlays,
            "_masks.png": options.masks,
            "_preview.png": options.preview,
            ".geojson": "geojson" in options.formats,
            ".gpkg": "gpkg" in options.formats,
        }
        labels = (f"labels/{name}.txt",) if {"yolo", "yolo-obb"} & set(options.formats) else ()
        return (*(name + suffix for suffix, wanted in suffixes.items() if wanted), *labels)

    def _picture(self, name: str, pixels: UInt8Array | Any) -> None:
        done, data = cv2.imencode(Path(name).suffix, pixels)
        if not done:
            raise InputError(f"{name} cannot be encoded at {pixels.shape}; give smaller pictures")
        write_bytes(self.folder / name, data.tobytes())


def unique_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a name of its own for each path: the stem, with suffix or folders where others share it.

    Two names that differ in case alone count as the same, as some file systems take them.
    """
    names = {path: path.stem for path in paths}
    for longer in (_with_suffix, _with_folder, _with_all_folders):
        counts: dict[str, int] = {}
        for name in names.values():
            counts[name.casefold()] = counts.get(name.casefold(), 0) + 1
        names = {path: longer(path) if counts[name.casefold()] > 1 else name for path, name in names.items()}
    return names


def _with_suffix(path: Path) -> str:
    return path.name.replace(".", "_")


def _with_folder(path: Path) -> str:
    return f"{path.absolute().parent.name}_{_with_suffix(path)}"


def _with_all_folders(path: Path) -> str:
    return "_".join((*path.absolute().parent.parts[1:], _with_suffix(path)))[-200:]


def _check_apart(folder: Path, sources: Iterable[Path]) -> None:
    for path in sources:
        if path.resolve().parent == folder.resolve():
            raise InputError(
                f"the output {folder} is the folder of {path.name}, expected another one, so that results do not "
                "become sources; give another output folder"
            )
