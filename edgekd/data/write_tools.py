"""A `LabelledSet` for other tools: LabelMe's JSON, Label Studio's tasks, and a table. Texts come out, pictures stay.

LabelMe and Label Studio know polygons and boxes; run lengths become outlines, without their holes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.data.write_coco import Scores

Json = dict[str, Any]
LABELME_VERSION = "5.5.0"


def labelme_content(picture: LabelledPicture) -> Json:
    """Return one picture as LabelMe's JSON, which lies beside the picture as `NAME.json`.

    An outline is a polygon per ring, the rings of one object with one `group_id`; a box is a rectangle.
    """
    shapes: list[Json] = []
    for index in range(len(picture)):
        is_box = picture.segmentations[index] is None
        rings = picture.outlines(index)
        for ring in rings:
            points = ring[[0, 2]] if is_box else ring
            shapes.append(
                {
                    "label": picture.name_of(index),
                    "points": np.round(points.astype(np.float64), 3).tolist(),
                    "group_id": index if len(rings) > 1 else None,
                    "description": "",
                    "shape_type": "rectangle" if is_box else "polygon",
                    "flags": {},
                    "mask": None,
                }
            )
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": picture.path.name,
        "imageData": None,
        "imageHeight": picture.size_px[0],
        "imageWidth": picture.size_px[1],
    }


def label_studio_tasks(
    labels: LabelledSet, address_of: Callable[[LabelledPicture], str], scores: Scores | None = None
) -> list[Json]:
    """Return Label Studio's import file: one task per picture.

    Args:
        labels: the set.
        address_of: where Label Studio finds a picture, such as `/data/local-files/?d=images/a.jpg`.
        scores: makes the objects predictions with scores, which a person accepts or mends, instead of annotations.

    The project's labelling interface must be that of `label_studio_interface`.
    """
    tasks: list[Json] = []
    for picture in labels.pictures:
        results = [entry for index in range(len(picture)) for entry in _studio_results(picture, index)]
        task: Json = {"data": {"image": address_of(picture)}}
        if scores is None:
            task["annotations"] = [{"result": results}]
        else:
            found = scores[picture.path]
            for entry in results:
                entry["score"] = round(float(found[int(entry["id"].split("-")[0])]), 4)
            mean = float(found.mean()) if len(found) else 0.0
            task["predictions"] = [{"model_version": "edgekd", "score": round(mean, 4), "result": results}]
        tasks.append(task)
    return tasks


def label_studio_interface(class_names: Sequence[str]) -> str:
    """Return the labelling interface of a Label Studio project for `label_studio_tasks`: polygons and boxes, XML."""
    classes = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in class_names)
    parts = [
        f'  <{tag} name="{name}" toName="image">\n{classes}  </{tag}>\n'
        for tag, name in (("PolygonLabels", "label"), ("RectangleLabels", "box"))
    ]
    return f'<View>\n  <Image name="image" value="$image"/>\n{"".join(parts)}</View>\n'


def _studio_results(picture: LabelledPicture, index: int) -> list[Json]:
    percent = 100 / np.array(picture.size_px[::-1], np.float64)
    common: Json = {
        "to_name": "image",
        "original_width": picture.size_px[1],
        "original_height": picture.size_px[0],
        "image_rotation": 0,
    }
    name = picture.name_of(index)
    if picture.segmentations[index] is None:
        (left, top), (right, bottom) = picture.xyxy[index].reshape(2, 2) * percent
        value: Json = {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}
        value = {key: round(float(number), 4) for key, number in value.items()} | {"rectanglelabels": [name]}
        return [{"id": f"{index}-0", "type": "rectanglelabels", "from_name": "box", **common, "value": value}]
    return [
        {
            "id": f"{index}-{part}",
            "type": "polygonlabels",
            "from_name": "label",
            **common,
            "value": {"points": np.round(ring * percent, 4).tolist(), "closed": True, "polygonlabels": [name]},
        }
        for part, ring in enumerate(picture.outlines(index))
    ]


COLUMNS = ("picture", "width_px", "height_px", "class", "left", "top", "right", "bottom", "area_px", "crowd", "score")


def csv_text(labels: LabelledSet, scores: Scores | None = None) -> str:
    """Return one row per object, with a head; lengths are px, `score` is empty without scores."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for picture in labels.pictures:
        height, width = picture.size_px
        for index in range(len(picture)):
            edges = (round(float(value), 2) for value in picture.xyxy[index])
            score = "" if scores is None else round(float(scores[picture.path][index]), 4)
            area, crowd = round(float(picture.area_px[index]), 2), int(picture.crowd[index])
            table.writerow([picture.path.name, width, height, picture.name_of(index), *edges, area, crowd, score])
    return text.getvalue()
