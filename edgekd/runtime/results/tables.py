"""Tables over all pictures of a run, made from its record line by line: JSON, CSV, COCO.

Memory holds one picture, however many there are. Each file appears in one step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from edgekd.errors import InputError
from edgekd.files import atomic_file, write_text
from edgekd.runtime.results.dota import submission_names, write_submission
from edgekd.runtime.results.formats import CocoIds, coco_annotation, coco_image, coco_objects, csv_text
from edgekd.runtime.results.regions import Json

Entries = Callable[[], Iterator[Json]]
"""Gives the picture entries anew at every call."""
FILES_OF = {
    "coco": ("coco.json", "coco_results.json"),
    "csv": ("results.csv",),
    "yolo": ("classes.txt",),
    "yolo-obb": ("classes.txt",),
}


def names_of(formats: Iterable[str], class_names: Sequence[str]) -> list[str]:
    """Return the names of the files that `write_tables` writes."""
    names = [name for format_name in formats for name in FILES_OF.get(format_name, ())]
    return names + (submission_names(class_names) if "dota" in formats else [])


def write_json(path: Path, entries: Entries, complete: bool) -> None:
    """Write `{"complete": ..., "pictures": [...]}`."""
    lines = (json.dumps(entry) for entry in entries())
    _write(path, (f'{{"complete": {json.dumps(complete)}, "pictures": [\n', *_joined(lines), "]}\n"))


def write_tables(
    folder: Path, entries: Entries, class_names: Sequence[str], formats: Sequence[str], ids: CocoIds, oriented: bool
) -> None:
    """Write the tables among `formats`; with `oriented` every object has corners."""
    if "csv" in formats:
        rows = (csv_text([entry], header=False, oriented=oriented) for entry in entries())
        _write(folder / "results.csv", (csv_text([], oriented=oriented), *rows))
    if "dota" in formats:
        write_submission(folder, entries(), class_names)
    if "yolo" in formats or "yolo-obb" in formats:
        write_text(folder / "classes.txt", "".join(f"{name}\n" for name in class_names))
    if "coco" in formats:
        _write_coco(folder, entries, class_names, ids)


def read_coco_ids(path: Path | None) -> CocoIds:
    """Take the numbers of pictures and categories from a COCO file, so that results can be scored against it.

    Without a file both are numbered as `CocoIds` says.

    Raises:
        InputError: the file cannot be read or is not a COCO file.
    """
    if path is None:
        return CocoIds()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = {Path(str(image["file_name"])).name: int(image["id"]) for image in content["images"]}
        categories = {str(category["name"]): int(category["id"]) for category in content["categories"]}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a COCO file (.json)") from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} is not a COCO file with images and categories; give another one") from error
    return CocoIds(images, categories)


def image_id_of(file_name: str, ids: CocoIds) -> int | None:
    """Return the number of a picture in the COCO file; None when no COCO file was given.

    Raises:
        InputError: the COCO file does not list the picture.
    """
    if ids.images and file_name not in ids.images:
        raise InputError(f"{file_name} is not among the pictures of the COCO file; give the one that lists it")
    return ids.images.get(file_name)


def _write_coco(folder: Path, entries: Entries, class_names: Sequence[str], ids: CocoIds) -> None:
    def numbered() -> Iterator[tuple[Json, int]]:
        for index, entry in enumerate(entries(), 1):
            yield entry, entry.get("image_id", index)

    def results() -> Iterator[Json]:
        for entry, image_id in numbered():
            yield from coco_objects(entry, image_id, ids)

    images = (json.dumps(coco_image(entry, _file_name(entry), image_id)) for entry, image_id in numbered())
    annotations = (json.dumps(coco_annotation(result, index)) for index, result in enumerate(results(), 1))
    categories = [{"id": ids.categories.get(name, index + 1), "name": name} for index, name in enumerate(class_names)]
    parts = ('{"images": [\n', *_joined(images), '],\n"annotations": [\n', *_joined(annotations), "],\n")
    _write(folder / "coco.json", (*parts, f'"categories": {json.dumps(categories)}}}\n'))
    _write(folder / "coco_results.json", ("[\n", *_joined(json.dumps(result) for result in results()), "]\n"))


def _file_name(entry: Json) -> str:
    return Path(entry["source"]).name if entry["frame"] is None else str(entry["name"])


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Put commas between lines."""
    before = ""
    for line in lines:
        yield before + line
        before = ",\n"
    if before:
        yield "\n"


def _write(path: Path, parts: Iterable[str]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(parts)
