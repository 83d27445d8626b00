"""Labelled pictures as Ultralytics trains on them: a `LabelledSet` in, its data set class out, its files left alone.

Ultralytics' own way from a data YAML to pixels runs what the YAML says under `download`, unpickles `labels.cache`,
takes `x.npy` beside `x.jpg` for the picture and decodes files otherwise than the runtime does. None of this is used
here: labels come from the readers of `edgekd.data`, pixels from `edgekd.read_picture`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from ultralytics.data.dataset import YOLODataset

from edgekd.data.check import read_dataset
from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.data.read import read_pixels
from edgekd.types import UInt8Array

Sizes = tuple[int, int]


class LabelledDataset(YOLODataset):  # type: ignore[misc]
    """Ultralytics' data set over a `LabelledSet`; augmentation and batches are those of the base class.

    Args:
        labels: the pictures; crowds are left out.
        settings: Ultralytics' settings of the run (`imgsz`, `single_cls`, augmentation, ...).
        data: what the base class expects of a data YAML: `names`, `nc`, `channels`.
        train: augment and shuffle, else rectangular batches for validation.
        batch: pictures per batch.
        stride: of the network, px.
    """

    def __init__(
        self, labels: LabelledSet, settings: Any, data: dict[str, Any], train: bool, batch: int, stride: int
    ) -> None:
        self._pictures = {str(picture.path): picture for picture in labels.without_crowds().pictures}
        super().__init__(
            img_path=str(labels.source),
            imgsz=settings.imgsz,
            batch_size=batch,
            augment=train,
            hyp=settings,
            rect=settings.rect or not train,
            cache=False,
            single_cls=settings.single_cls or False,
            stride=stride,
            pad=0.0 if train else 0.5,
            prefix="train: " if train else "val: ",
            task=settings.task,
            classes=settings.classes,
            data=data,
            fraction=settings.fraction if train else 1.0,
        )

    def get_img_files(self, img_path: str | list[str]) -> list[str]:
        """The picture files, sorted, as the base class sorts them; `fraction` takes the first ones."""
        files = sorted(self._pictures)
        share = self.fraction  # a count, or a share of all
        return files[: share if isinstance(share, int) else max(1, round(len(files) * share))]

    def get_labels(self) -> list[dict[str, Any]]:
        """One dictionary a picture, in the form that the base class reads from text files."""
        shown = [self._pictures[file] for file in self.im_files]
        outlined = all(None not in picture.segmentations for picture in shown)  # mixed sets train on boxes alone
        labels = [_label_of(file, picture) for file, picture in zip(self.im_files, shown, strict=True)]
        outline = _turned if self.use_obb else _outline
        for label, picture in zip(labels, shown, strict=True):
            label["segments"] = [outline(picture, i) for i in range(len(picture))] if outlined else []
        return labels

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> tuple[UInt8Array, Sizes, Sizes]:
        """Picture `i`, its longer side scaled to `imgsz`, with its original and its new (height, width).

        Raises:
            DataError: the file cannot be read, or is not the picture that was labelled.
        """
        if self.ims[i] is not None:
            return self.ims[i], self.im_hw0[i], self.im_hw[i]
        pixels = read_pixels(self._pictures[self.im_files[i]])
        height, width = pixels.shape[:2]
        scale = self.imgsz / max(height, width)
        if scale != 1:
            size = (min(math.ceil(width * scale), self.imgsz), min(math.ceil(height * scale), self.imgsz))
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        if self.augment:
            self._remember(i, pixels, (height, width))
        return pixels, (height, width), (pixels.shape[0], pixels.shape[1])

    def _remember(self, i: int, pixels: UInt8Array, original_px: Sizes) -> None:
        """Keep the last pictures at hand: mosaics draw their other three from `buffer`."""
        self.ims[i], self.im_hw0[i], self.im_hw[i] = pixels, original_px, pixels.shape[:2]
        self.buffer.append(i)
        if 1 < len(self.buffer) >= self.max_buffer_length:
            oldest = self.buffer.pop(0)
            self.ims[oldest] = self.im_hw0[oldest] = self.im_hw[oldest] = None


def trained_scale(labels: LabelledSet, imgsz: int) -> float:
    """Return the pixels of the input per pixel of a picture, for the median longer side of the pictures.

    A bundle carries it on, so that large pictures are cut into tiles of the scale that the detector knows.
    """
    return float(imgsz / np.median([max(picture.size_px) for picture in labels.pictures]))


def _label_of(file: str, picture: LabelledPicture) -> dict[str, Any]:
    size = np.array(picture.size_px[::-1], np.float64)
    corners = picture.xyxy.astype(np.float64).reshape(-1, 2, 2) / size
    boxes = np.concatenate([corners.mean(1), corners[:, 1] - corners[:, 0]], 1)
    return {
        "im_file": file,
        "shape": picture.size_px,
        "cls": picture.class_id[:, None].astype(np.float32),
        "bboxes": boxes.astype(np.float32),
        "segments": [],
        "keypoints": None,
        "normalized": True,
        "bbox_format": "xywh",
    }


def _outline(picture: LabelledPicture, index: int) -> np.ndarray:
    """The outline of an object as fractions, (k, 2) float32."""
    return np.asarray(picture.one_outline(index) / np.array(picture.size_px[::-1], np.float32), np.float32)


def _turned(picture: LabelledPicture, index: int) -> np.ndarray:
    """The corners of an object's turned box as fractions, (4, 2) float32."""
    return np.asarray(picture.turned_corners(index) / np.array(picture.size_px[::-1], np.float32), np.float32)


def describe_dataset(path: Path, run: Path, oriented: bool = False) -> tuple[dict[str, LabelledSet], dict[str, Any]]:
    """Read a data YAML for a run, and write what Ultralytics may see of it.

    Args:
        path: the user's data YAML.
        run: folder of the run; gets `pictures.yaml` with class names, and lists of absolute paths; no more.
        oriented: the student learns turned boxes.

    Returns:
        The splits `train` and `val`, and the dictionary that Ultralytics' trainer keeps as `data`.

    Raises:
        DataError: see `read_dataset`; or boxes are upright and the student is oriented.
    """
    splits = read_dataset(path)
    if oriented:
        splits = {split: labels.without_crowds().as_oriented() for split, labels in splits.items()}
    names = dict(enumerate(splits["train"].class_names))
    run.mkdir(parents=True, exist_ok=True)
    for split, labels in splits.items():
        files = "".join(f"{picture.path.absolute()}\n" for picture in labels.pictures)
        (run / f"pictures_{split}.txt").write_text(files, encoding="utf-8")
    description = {split: f"pictures_{split}.txt" for split in splits} | {"names": names}
    safe = run / "pictures.yaml"
    safe.write_text(yaml.safe_dump({"path": str(run.resolve())} | description, allow_unicode=True, sort_keys=False))
    lists = {split: str((run / f"pictures_{split}.txt").resolve()) for split in splits}
    content = {"path": run.resolve(), "names": names, "nc": len(names), "channels": 3, "yaml_file": str(safe)} | lists
    return splits, content
