"""`edgekd run`: pictures, folders and videos through a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    bundle: Annotated[Path, typer.Argument(help="bundle written by build-engine")],
    sources: Annotated[list[str], typer.Argument(help="pictures, folders, videos; a camera's number; an address")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for overlays, masks and JSON")] = Path("out"),
    json_file: Annotated[Path | None, typer.Option("--json", help="one JSON for all pictures")] = None,
    confidence: Annotated[float, typer.Option(help="lowest class probability")] = 0.25,
    class_confidence: Annotated[str | None, typer.Option(help="such as ship=0.5,bridge=0.1, for these alone")] = None,
    classes: Annotated[str | None, typer.Option(help="keep these classes only, such as ship,bridge")] = None,
    iou: Annotated[float, typer.Option(help="overlap above which two boxes are one object")] = 0.7,
    max_boxes: Annotated[int, typer.Option(help="most boxes per picture")] = 300,
    min_region_px: Annotated[int, typer.Option(help="remove islands and holes below this area")] = 0,
    min_area_px: Annotated[int, typer.Option(help="leave out objects below this area", min=0)] = 0,
    min_area: Annotated[float, typer.Option(help="the same in square units of the map", min=0)] = 0,
    boxes_only: Annotated[bool, typer.Option("--boxes-only", help="no masks")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: the backend's choice", min=1)] = None,
    jobs: Annotated[int, typer.Option(help="pictures run at the same time", min=1)] = 1,
    boxes: Annotated[Path | None, typer.Option(help="labels whose boxes are masked, instead of the detector's")] = None,
    formats: Annotated[str | None, typer.Option(help="also coco,csv,yolo,yolo-obb,dota,geojson,gpkg")] = None,
    coco_ids: Annotated[Path | None, typer.Option(help="COCO labels whose picture and class numbers to use")] = None,
    overlays: Annotated[bool, typer.Option(help="write NAME_overlay.jpg")] = True,
    masks: Annotated[bool, typer.Option(help="write NAME_masks.png: pixel value 1 + index of the object")] = True,
    preview: Annotated[bool, typer.Option("--preview", help="write NAME_preview.png: masks in colour")] = False,
    geojson: Annotated[bool, typer.Option("--geojson", help="the same as --formats geojson")] = False,
    tile: Annotated[str, typer.Option(help="large pictures in tiles: auto, off, or a side in px")] = "auto",
    object_px: Annotated[int | None, typer.Option(help="side of the largest object; default: a quarter tile")] = None,
    bands: Annotated[str, typer.Option(help="red, green and blue band of a raster, such as 4,3,2")] = "",
    stretch: Annotated[str, typer.Option(help="values of a raster that become 0 and 255: LOW,HIGH")] = "",
    track: Annotated[bool, typer.Option("--track", help="number the objects of a camera or video")] = False,
    reuse_masks: Annotated[float | None, typer.Option(help="of a stream: keep masks of boxes with this IoU")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="wait for new pictures in the folder")] = False,
    public_key: Annotated[str | None, typer.Option("--require-signature", help="public key of who signed it")] = None,
) -> None:
    """Find objects and their masks; one line per picture on stdout, files in the output folder.

    Results are written as they come; the same command goes on with an interrupted run and replaces a finished one. What
    is much larger than the detector's input is run in tiles. What cannot be read is reported, and the exit code is 1.

    A camera, an address (RTSP, HTTP), a GStreamer pipeline, a tracked video or a watched folder writes NAME.jsonl and
    one overlay video until it ends or Ctrl-C; a live source drops the frames that come too fast.
    """
    from edgekd.cli.console import TileBar, log, out, picture_line, print_stream
    from edgekd.cli.values import parse_formats, parse_large, parse_names, parse_shares
    from edgekd.data.given_boxes import boxes_for
    from edgekd.runtime.chain import Chain
    from edgekd.runtime.detect import DetectOptions
    from edgekd.runtime.large import Watch
    from edgekd.runtime.results.tables import read_coco_ids
    from edgekd.runtime.results.writer import ResultOptions
    from edgekd.runtime.run import RunOptions, check_whole, run_pictures
    from edgekd.runtime.run_stream import StreamWatch, StreamWish, run_stream
    from edgekd.runtime.segment import MaskOptions
    from edgekd.runtime.streams import is_live

    options = RunOptions(
        detect=DetectOptions(confidence=confidence, iou=iou, max_boxes=max_boxes),
        mask=MaskOptions(min_region_px=min_region_px),
        boxes_only=boxes_only,
        classes=parse_names(classes),
        class_confidence=parse_shares(class_confidence),
        min_area_px=min_area_px,
        min_area=min_area,
        jobs=jobs,
        large=parse_large("off" if boxes and tile == "auto" else tile, object_px, bands, stretch),
        given=boxes_for(sources, boxes, log.print),
    )
    kinds, ids = parse_formats(formats, also_geojson=geojson), read_coco_ids(coco_ids)
    files = ResultOptions(
        overlays=overlays, masks=masks, preview=preview, formats=kinds, coco_ids=ids, json_file=json_file
    )
    if track or watch or reuse_masks is not None or any(is_live(source) for source in sources):
        wish = StreamWish(
            files=files, track=track, watch=watch, reuse_masks=reuse_masks, n_threads=threads, public_key=public_key
        )
        return run_stream(bundle, sources, output, options, wish, StreamWatch(note=log.print, finished=print_stream))
    reports = []
    with Chain.open(bundle, threads, public_key) as chain, TileBar() as bar:
        for report in run_pictures(chain, sources, output, options, files, Watch(note=log.print, tile=bar.show)):
            (out if report.state == "run" else log).print(picture_line(report))
            reports.append(report)
    return check_whole(reports)
