"""What ships inside the package: the default models and the demonstration picture."""

from __future__ import annotations

from pathlib import Path

from edgekd.errors import ModelError
from edgekd.model_set import FILE_NAME

_PACKAGE = Path(__file__).parent
DEFAULT_MODELS = _PACKAGE / "default_models"
CROP_MODELS = _PACKAGE / "default_models_crop"
"""The shipped crop segmenter, which goes with the detector of the default models."""

DEMO_PICTURE = _PACKAGE / "demo.jpg"


def default_models() -> Path:
    """Return the folder of the shipped model set.

    Raises:
        ModelError: this installation was made without it.
    """
    if not (DEFAULT_MODELS / FILE_NAME).is_file():
        raise ModelError(f"{DEFAULT_MODELS} holds no models; install edgekd again, or export your own: edgekd export")
    return DEFAULT_MODELS
