"""A question whose answer is known: a small picture in a bundle, and what its engines said of it when they were built.

An open chain goes in; nothing comes out, or the sentence that its answer is another one: damaged weights, a processor
that computes otherwise, changed preprocessing or thresholds. It says that the bundle is as it was built, not that it is
good: that is the gate's to say.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgekd.bundle import EngineFile, KnownAnswer, KnownObject, read_file
from edgekd.errors import BundleError
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.types import BoolArray, ChainResult, UInt8Array

SIZE_PX = (320, 480)
"""(height, width) of the picture."""
GIVEN_BOXES = ((40, 40, 200, 160), (200, 100, 330, 230), (300, 180, 460, 300))
"""Boxes whose masks are asked for where the segmenter takes boxes: the detector may find nothing in the picture."""
MOST_FOUND = 8
_CELL_PX = 4  # of the grid that masks are kept on

# What another processor of the same family may change by rounding in bf16 or INT8, and damage exceeds.
MIN_BOX_IOU, MIN_MASK_IOU, MAX_SCORE_CHANGE = 0.8, 0.85, 0.1
_SURE = 0.35  # an object of lower confidence may fall under the threshold by rounding
_FEW_CELLS = 16  # masks of fewer cells are not compared


def ask(chain: Chain, picture: EngineFile, pixels: UInt8Array) -> KnownAnswer:
    """Return what an open chain says of a picture of `SIZE_PX`.

    Raises:
        BundleError: an output is not finite.
    """
    found = chain(pixels, ChainOptions(detect=DetectOptions(max_boxes=MOST_FOUND)))
    given: tuple[KnownObject, ...] = ()
    if chain.segmenter.takes_boxes:
        given = _objects(chain(pixels, boxes=np.array(GIVEN_BOXES, np.float32)))
    return KnownAnswer(picture=picture, found=_objects(found), given=given)


def check_known_answer(folder: Path, chain: Chain) -> bool:
    """Compare the answer of an open chain with the one in its manifest; False when the bundle has none.

    Raises:
        BundleError: the answer is another one, or the picture was changed.
    """
    known = chain.manifest.known_answer
    if known is None:
        return False
    pixels = cv2.imdecode(np.frombuffer(read_file(folder, known.picture), np.uint8), cv2.IMREAD_COLOR)
    if pixels is None or pixels.shape[:2] != SIZE_PX:
        raise BundleError(f"{folder / known.picture.name} is not the picture of a known answer; build the bundle again")
    fault = difference(known, ask(chain, known.picture, np.asarray(pixels, np.uint8)))
    if fault:
        raise BundleError(f"{folder} does not answer as it did when it was built: {fault}; build the bundle again")
    return True


def verify_chain(folder: str | Path, chain: Chain) -> None:
    """Check the known answer; the chain is closed when it does not hold.

    Raises:
        BundleError: as for `check_known_answer`, or the bundle has none.
    """
    try:
        if not check_known_answer(Path(folder), chain):
            raise BundleError(f"{folder} has no known answer to verify; build the bundle again, or open without verify")
    except BaseException:
        chain.close()
        raise


def difference(known: KnownAnswer, answer: KnownAnswer) -> str:
    """Say how an answer differs from the known one; empty when it does not."""
    if len(known.given) != len(answer.given):
        return f"{len(answer.given)} masks of given boxes instead of {len(known.given)}"
    for index, (expected, got) in enumerate(zip(known.given, answer.given, strict=True)):
        fault = _mask_fault(expected, got)
        if fault:
            return f"the mask of given box {index + 1} has {fault}"
    return _missing(known.found, answer.found, "is gone") or _missing(answer.found, known.found, "is new")


def _missing(expected: tuple[KnownObject, ...], got: tuple[KnownObject, ...], what: str) -> str:
    """Say which sure object of one answer has no partner in the other."""
    for one in expected:
        if one.confidence < _SURE:
            continue
        partners = [other for other in got if other.class_id == one.class_id and _box_iou(one, other) >= MIN_BOX_IOU]
        if not partners:
            return f"an object of class {one.class_id} and confidence {one.confidence:.2f} {what}"
        best = max(partners, key=lambda other: _box_iou(one, other))
        if abs(best.confidence - one.confidence) > MAX_SCORE_CHANGE:
            return f"the confidence of an object went from {one.confidence:.2f} to {best.confidence:.2f}"
        fault = _mask_fault(one, best)
        if fault:
            return f"the mask of an object has {fault}"
    return ""


def _mask_fault(one: KnownObject, other: KnownObject) -> str:
    if abs(one.predicted_iou - other.predicted_iou) > MAX_SCORE_CHANGE:
        return f"a predicted IoU of {other.predicted_iou:.2f} instead of {one.predicted_iou:.2f}"
    a, b = _cells(one), _cells(other)
    union = int((a | b).sum())
    if union < _FEW_CELLS:
        return ""
    iou = int((a & b).sum()) / union
    return f"an IoU of {iou:.2f} with the known one" if iou < MIN_MASK_IOU else ""


def _objects(result: ChainResult) -> tuple[KnownObject, ...]:
    found, masks = result.detections, result.masks
    return tuple(
        KnownObject(
            xyxy=tuple(round(float(value), 2) for value in found.xyxy[index]),  # type: ignore[arg-type]
            class_id=int(found.class_id[index]),
            confidence=round(float(found.confidence[index]), 4),
            predicted_iou=round(float(masks.predicted_iou[index]), 4),
            mask=_packed(masks.full(index)),
        )
        for index in range(len(found))
    )


def _packed(mask: BoolArray) -> str:
    rows, columns = SIZE_PX[0] // _CELL_PX, SIZE_PX[1] // _CELL_PX
    cells = mask.reshape(rows, _CELL_PX, columns, _CELL_PX).mean((1, 3)) >= 0.5
    return np.packbits(cells).tobytes().hex()


def _cells(one: KnownObject) -> BoolArray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(one.mask), np.uint8)).astype(np.bool_)


def _box_iou(one: KnownObject, other: KnownObject) -> float:
    a, b = one.xyxy, other.xyxy
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0.0) * max(height, 0.0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return overlap / max(areas - overlap, 1e-9)
