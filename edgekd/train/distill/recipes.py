"""Recipes: every number of a distillation run in one checked, readable object; a name or a JSON file goes in.

The lambdas are relative to each other as long as `target_share` holds their sum to a share of the gradient (see
`edgekd.train.distill.balance`); with `target_share` 0 they are the plain factors of the equation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekd.errors import InputError
from edgekd.losses.ds2d2 import Reading
from edgekd.model_set import brief

LevelName = Literal["C2", "C3", "C4", "C5", "P3", "P4", "P5"]


class Schedule(BaseModel):
    """How long and how fast the student learns; names as in Ultralytics."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=100, ge=1, description="passes over the training pictures")
    imgsz: int = Field(default=640, ge=32, multiple_of=32, description="side of the pictures, pixels")
    batch: int = Field(default=16, ge=1, description="pictures per step")
    accumulate: int = Field(default=1, ge=1, description="steps whose gradients are summed before an update")
    optimizer: Literal["SGD", "AdamW"] = Field(default="AdamW", description="who updates the weights")
    lr0: float = Field(default=1e-3, gt=0, description="learning rate at the start, after the warm-up")
    lrf: float = Field(default=0.02, gt=0, description="last learning rate as a share of lr0")
    weight_decay: float = Field(default=5e-4, ge=0, description="pull of the weights towards zero")
    warmup_epochs: float = Field(default=2.0, ge=0, description="epochs in which the learning rate rises")
    close_mosaic: int = Field(default=10, ge=0, description="last epochs without mosaics")
    flipud: float = Field(
        default=0.5, ge=0, le=1, description="share of pictures turned upside down; 0 for photographs"
    )
    mosaic: float = Field(default=1.0, ge=0, le=1, description="share of pictures made of four")


class Recipe(BaseModel):
    """One distillation run; every field says what it does in its description.

    `target_share` is the teacher's part of the gradient, split among the terms in proportion to their lambdas (so the
    lambda of a single term changes nothing). With `target_share` 0 the lambdas are plain factors. A term that the
    teacher cannot have (no detection head, no amplifier) is an error where the recipe names its lambda, and said in the
    log otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schedule: Schedule = Field(default=Schedule(), description="how long and how fast the student learns")
    levels: tuple[LevelName, ...] = Field(default=("P3", "P4", "P5"), description="feature maps that are compared")
    level_weights: tuple[float, ...] = Field(default=(1.0, 1.0, 1.0), description="weight of each level")
    projector: Literal["conv", "mlp"] = Field(default="conv", description="what makes the student's maps as wide")
    target_share: float = Field(
        default=0.1, ge=0, lt=1, description="the teacher's part of the gradient; 0: none is held"
    )
    final_share: float | None = Field(
        default=None, ge=0, lt=1, description="part in the last epoch, reached in equal steps; null: it stays"
    )
    n_views: int | None = Field(
        default=None,
        ge=1,
        description="epochs after which the augmentation repeats, so that a cached teacher costs nothing from then on",
    )
    start: Literal["own", "teacher"] = Field(
        default="own", description="a student's first weights: its own, or evenly spaced channels of the teacher's"
    )
    teacher_epochs: int | None = Field(
        default=None, ge=1, description="epochs with a teacher; from then on a step costs what labels cost; null: all"
    )
    grid: Literal["student", "teacher"] = Field(
        default="student", description="whose cells the maps are compared on; the other side is resampled"
    )

    distance: Literal["cosine", "mse", "squared_norm"] = Field(
        default="cosine", description="feature: of two maps; mse divides by the channels too, squared_norm does not"
    )
    lambda_feature: float = Field(
        default=1.0, ge=0, description="feature: weight of the maps' distance; 0 leaves it out"
    )
    attention: Literal["squared", "total_variation"] = Field(
        default="squared", description="feature: ||A_S - A_T||^2 on the projected student, or half the L1 distance"
    )
    lambda_attention: float = Field(default=0.2, ge=0, description="feature: weight of the attention; 0 leaves it out")
    logits: Literal["binary", "softmax"] = Field(
        default="binary", description="feature: binary for independent classes, softmax for exclusive ones"
    )
    lambda_logits: float = Field(default=0.5, ge=0, description="feature: weight of the logits; 0 leaves them out")
    temperature: float = Field(default=2.0, gt=0, description="feature: softens the logits")
    vit_block: int | None = Field(
        default=None, ge=1, description="feature: block of a ViT that is read; null: the last"
    )
    vit_side_px: int | None = Field(
        default=None, ge=28, description="feature: side at which a ViT sees the picture; null: the student's"
    )

    lambda_explicit: float = Field(
        default=1.0, ge=0, description="ds2d2: weight of the explicit stream; 0 leaves it out"
    )
    weight_low: float = Field(default=1.0, ge=0, description="ds2d2: weight of the band cA in the explicit stream")
    weight_high: float = Field(default=1.0, ge=0, description="ds2d2: weight of the bands cH, cV, cD")
    spectrum: Literal["haar", "fourier"] = Field(default="haar", description="ds2d2: how frequencies are told apart")
    is_cell_weighted: bool = Field(default=True, description="ds2d2: weigh cells by the boxes over them (DISW)")
    lambda_full: float = Field(default=1.0, ge=0, description="ds2d2: weight of the implicit stream, all frequencies")
    lambda_high: float = Field(
        default=1.0, ge=0, description="ds2d2: weight of the implicit stream, high frequencies; needs an amplifier"
    )
    reading: Reading = Field(default="fixed", description="ds2d2: DISW as meant (fixed) or as published (faithful)")

    def with_schedule(self, **changes: int | None) -> Recipe:
        """This recipe with other numbers in its schedule; None leaves a number as it is.

        Raises:
            InputError: a number that no schedule allows.
        """
        wanted = {name: value for name, value in changes.items() if value is not None}
        try:
            schedule = Schedule.model_validate(self.schedule.model_dump() | wanted)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"{first['loc'][0]} is {first['input']}: {first['msg']}; give another number") from error
        return self.model_copy(update={"schedule": schedule})

    def model_post_init(self, _context: object) -> None:
        """Check what no single field can."""
        if len(self.level_weights) != len(self.levels):
            raise ValueError(f"{len(self.levels)} levels need as many level_weights, not {len(self.level_weights)}")


def explain_fields(model: type[BaseModel] = Recipe) -> list[tuple[str, str, str]]:
    """Return (field, default as JSON, what it does) of a recipe, those of its schedule as `schedule.epochs`."""
    rows = []
    for name, field in model.model_fields.items():
        if isinstance(field.default, Schedule):
            rows += [(f"{name}.{inner}", default, what) for inner, default, what in explain_fields(Schedule)]
        else:
            rows.append((name, json.dumps(field.default), field.description or ""))
    return rows


# Name -> when to take it.
PURPOSES = {
    "default": "weights that were trained on other pictures, thousands of pictures of your own",
    "small-set": "the same with some hundred pictures of your own",
    "random-weights": "a student that starts from random weights (.yaml)",
}
RECIPES = {
    "default": Recipe(),
    "small-set": Recipe(schedule=Schedule(epochs=50, imgsz=512, close_mosaic=12)),
    "random-weights": Recipe(schedule=Schedule(epochs=300, warmup_epochs=3.0), target_share=0.2),
}


def load_recipe(name: str) -> Recipe:
    """A recipe by name or from a JSON file.

    Raises:
        InputError: the name is unknown, or the file is missing or holds values that a recipe does not allow.
    """
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{name} is neither a recipe ({', '.join(RECIPES)}) nor a JSON file; give one of these")
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path} is not a recipe ({brief(error)}); see edgekd distill --help") from error
