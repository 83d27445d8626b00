"""A run of the crop segmenter as a user orders it: a `FinetuneJob` and pictures in, a `CropTask` out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekd.data.labels import LabelledPicture
from edgekd.errors import InputError
from edgekd.models.crop_segmenter import SIZES, STRIDE_PX, CropSegmenter, CropSize, load_crop_segmenter
from edgekd.train.finetune.crop import CropData, CropTask
from edgekd.train.finetune.crop_data import Augmentation, PictureStore, crop_objects
from edgekd.train.finetune.crop_teacher import open_teacher, teach

if TYPE_CHECKING:
    from edgekd.train.finetune.job import FinetuneJob

TEACHERS_TRUTH = "box, masks of the teacher"


def crop_task(job: FinetuneJob, train: Sequence[LabelledPicture], validation: Sequence[LabelledPicture]) -> CropTask:
    """The network and its data.

    Without a teacher every object has a mask. With one it draws the masks that are missing, and validation takes the
    labelled masks, or the teacher's where nothing is labelled.

    Raises:
        InputError: an option that this network does not know, a size that does not exist, a teacher of another kind.
        ModelError: the checkpoint to start from holds another network.
        DataError: nothing is left to learn from.
    """
    _refuse_unused(job)
    torch.manual_seed(job.config.seed)
    model = CropSegmenter(_size(job)) if job.weights is None else load_crop_segmenter(job.weights)
    weights, truth = None, "box"
    if job.teacher is not None:
        labelled = [p for p in (_labelled(sample) for sample in validation) if len(p)]
        with open_teacher(job.teacher) as teacher:
            taught = teach(train, teacher)
            if not labelled:
                labelled, truth = list(teach(validation, teacher).pictures), TEACHERS_TRUTH
        train, weights, validation = taught.pictures, taught.weights, labelled
    objects = crop_objects(train, PictureStore(), weights)
    data = CropData(
        objects,
        validation,
        job.crops_per_step,
        Augmentation(turned=job.oriented),
        job.detail_weight,
        truth,
        job.oriented,
    )
    return CropTask(model, data)


def _labelled(sample: LabelledPicture) -> LabelledPicture:
    return sample.take(np.array([mask is not None for mask in sample.segmentations], np.bool_))


def _size(job: FinetuneJob) -> CropSize:
    if job.size not in SIZES:
        raise InputError(f"size is {job.size!r}, expected {', '.join(SIZES)}")
    known = SIZES[job.size]
    side = known.side_px if job.imgsz is None else job.imgsz
    if side % STRIDE_PX or side < 2 * STRIDE_PX:
        raise InputError(
            f"imgsz is {side}, which does not fit the crop segmenter, expected a multiple of {STRIDE_PX} from "
            f"{2 * STRIDE_PX}"
        )
    return CropSize(known.name, side, known.channels)


def _refuse_unused(job: FinetuneJob) -> None:
    given = {"validation_px": job.validation_px, "adapter_rank": job.adapter_rank or None, "keep_data": job.keep_data}
    unused = [name for name, value in given.items() if value is not None]
    if unused:
        raise InputError(f"{' and '.join(unused)} cannot be chosen for the crop segmenter; leave it out")
