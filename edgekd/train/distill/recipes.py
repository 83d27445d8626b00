"""Recipes: every number of a distillation run in one checked, readable object; a name or a JSON file goes in.

The lambdas are relative to each other as long as `target_share` holds their sum to a share of the gradient (see
`edgekd.train.distill.balance`); with `target_share` 0 they are the plain factors of the equation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekd.errors import InputError
from edgekd.losses.ds2d2 import Reading

Method = Literal["none", "feature", "ds2d2"]
LevelName = Literal["C2", "C3", "C4", "C5", "P3", "P4", "P5"]


class Schedule(BaseModel):
    """How long and how fast the student learns; names as in Ultralytics."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=100, ge=1)
    imgsz: int = Field(default=640, ge=32, multiple_of=32)
    batch: int = Field(default=16, ge=1)
    accumulate: int = Field(default=1, ge=1)
    optimizer: Literal["SGD", "AdamW"] = "AdamW"
    lr0: float = Field(default=1e-3, gt=0)
    lrf: float = Field(default=0.02, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    warmup_epochs: float = Field(default=2.0, ge=0)
    close_mosaic: int = Field(default=10, ge=0)
    flipud: float = Field(default=0.5, ge=0, le=1)
    mosaic: float = Field(default=1.0, ge=0, le=1)


class Recipe(BaseModel):
    """One distillation run.

    `lambda_feature`, `lambda_attention` and `lambda_logits` belong to the method `feature`; `lambda_explicit`,
    `lambda_full` and `lambda_high` to `ds2d2`. A lambda of 0 leaves its term out; a term that the teacher cannot have
    (no detection head, no amplifier) is an error where the recipe names its lambda, and said in the log otherwise.

    `target_share` is the teacher's part of the gradient, split among the terms in proportion to their lambdas (so the
    lambda of a single term changes nothing); with `final_share` it moves there in equal steps until the last epoch.
    With `target_share` 0 the lambdas are plain factors.

    `distance`: `mse` divides by the channels too, `squared_norm` does not. `attention`: `squared` is ||A_S - A_T||^2 on
    the projected student, `total_variation` half the L1 distance. `logits`: `binary` for independent classes, `softmax`
    for exclusive ones. `n_views`: after so many epochs the augmentation repeats, so that a cached teacher costs nothing
    from then on. `grid`: whose cells the maps are compared on; the other side is resampled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schedule: Schedule = Schedule()
    levels: tuple[LevelName, ...] = ("P3", "P4", "P5")
    level_weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    projector: Literal["conv", "mlp"] = "conv"
    target_share: float = Field(default=0.1, ge=0, lt=1)
    final_share: float | None = Field(default=None, ge=0, lt=1)

    distance: Literal["cosine", "mse", "squared_norm"] = "cosine"
    attention: Literal["squared", "total_variation"] = "squared"
    logits: Literal["binary", "softmax"] = "binary"
    grid: Literal["student", "teacher"] = "student"
    lambda_feature: float = Field(default=1.0, ge=0)
    lambda_attention: float = Field(default=0.2, ge=0)
    lambda_logits: float = Field(default=0.5, ge=0)
    temperature: float = Field(default=2.0, gt=0)

    lambda_explicit: float = Field(default=1.0, ge=0)
    weight_low: float = Field(default=1.0, ge=0)
    weight_high: float = Field(default=1.0, ge=0)
    spectrum: Literal["haar", "fourier"] = "haar"
    is_cell_weighted: bool = True
    lambda_full: float = Field(default=1.0, ge=0)
    lambda_high: float = Field(default=1.0, ge=0)
    reading: Reading = "fixed"

    n_views: int | None = Field(default=None, ge=1)

    vit_block: int | None = Field(default=None, ge=1)
    vit_side_px: int | None = Field(default=None, ge=28)

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
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path} is not a recipe: {where}: {first['msg']}; see edgekd distill --help") from error
