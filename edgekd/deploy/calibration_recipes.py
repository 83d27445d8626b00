"""Calibration recipes: readable JSON files that say what becomes INT8, what stays float, and how ranges are found.

One file a network and target lies in `calibration/recipes/`; a user's own file has the same form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgekd.backends import CalibrationTarget
from edgekd.choices import RangeMethod, WeightBits
from edgekd.errors import InputError
from edgekd.files import read_json
from edgekd.graphs import StageName
from edgekd.model_set import brief

MAX_BYTES = 1 << 20


class FloatRule(BaseModel):
    """Layers that stay float: a regular expression found in the layer's name, and the reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str
    why: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression ({error})") from error
        return pattern


class CalibrationRecipe(BaseModel):
    """The content of a recipe file.

    Attributes:
        name: how reports call it.
        stage: the network that it is for.
        target: which engine library reads the result.
        why: what its choices rest on, in words.
        weighted_ops: operators that compute in INT8; those without weights (attention products) never do.
        depthwise: whether convolutions with one filter per channel do as well.
        tied_ops: operators that pass INT8 through; all their inputs and outputs share one scale.
        activations: `signed` is symmetric S8, what TensorRT reads; `unsigned` is U8 with a zero-point.
        float_layers: what stays float beside that.
        methods: how ranges may be found; the first is used when nothing can be measured.
        weight_bits: of INT8 weights. With 7 no sum of two products leaves 16 bits (x86 without VNNI saturates there).
        percentile: of the values that the range of method `percentile` covers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    stage: StageName
    target: CalibrationTarget
    why: str
    weighted_ops: tuple[Literal["Conv", "MatMul", "Gemm"], ...]
    depthwise: bool
    tied_ops: tuple[Literal["Concat", "MaxPool", "Resize", "Split"], ...] = ()
    activations: Literal["signed", "unsigned"]
    float_layers: tuple[FloatRule, ...] = ()
    methods: tuple[RangeMethod, ...] = Field(min_length=1)
    weight_bits: WeightBits = 8
    percentile: float = Field(default=99.99, gt=50, le=100)

    def keeps_float(self, layer: str) -> bool:
        """Say whether a rule keeps this layer float."""
        return any(re.search(rule.pattern, layer) for rule in self.float_layers)


def calibration_folder() -> Path:
    """Return the folder of recipes and calibration sets: beside the package in a checkout, inside it when installed.

    Raises:
        InputError: it is in neither place.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_calibration", package.parent / "calibration"):
        if (folder / "recipes").is_dir():
            return folder
    raise InputError(
        f"the calibration recipes are missing from {package}; install edgekd again, or give your own as `recipe`"
    )


def read_recipe(path: Path) -> CalibrationRecipe:
    """Read one recipe.

    Raises:
        InputError: the file is missing, or no recipe.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected a calibration recipe (.json)")
    try:
        return CalibrationRecipe.model_validate(read_json(path, MAX_BYTES))
    except (ValidationError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a calibration recipe ({brief(error)}); see calibration/README.md") from error


def recipes_for(target: CalibrationTarget, own: Sequence[Path] = ()) -> dict[StageName, CalibrationRecipe]:
    """Return the recipe of every stage that is calibrated for a target.

    Args:
        target: which engine library reads the result.
        own: the user's recipes; each replaces the shipped one of its stage.

    Raises:
        InputError: a file is not a recipe, is for another target, or two are for one stage.
    """
    shipped = sorted((calibration_folder() / "recipes").glob("*.json"))
    recipes = {recipe.stage: recipe for recipe in map(read_recipe, shipped) if recipe.target == target}
    replaced: set[str] = set()
    for path in own:
        recipe = read_recipe(path)
        if recipe.target != target or recipe.stage in replaced:
            reason = "a second recipe for" if recipe.stage in replaced else f"for {recipe.target}, not {target}, and"
            raise InputError(
                f"{path} is {reason} the {recipe.stage}; give one recipe per stage for the target {target}"
            )
        recipes[recipe.stage] = recipe
        replaced.add(recipe.stage)
    return recipes
