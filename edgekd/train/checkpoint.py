"""What training leaves on disk: plain Ultralytics checkpoints and a resume file, each written in one step.

`last.pt` and `best.pt` hold a bare `DetectionModel`, at any moment and without a trace of the teacher, so an
interrupted run can be opened anywhere. `resume.pt` holds the whole state of the run as tensors and plain values (read
back with `weights_only=True`), so that a run cut in two equals one run bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.errors import InputError, ModelError, TrainingError, first_line, is_out_of_memory
from edgekd.files import bytes_of, write_bytes

STATE_FORMAT = 1
_STUDENT = "student_model."
_DETECTOR_PARTS = ("model", "ema", "student_yaml", "class_names", "train_args", "results_csv", "optimizer", "epoch")


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """`torch.save` to a temporary file beside `path`, flushed, then renamed over it.

    Raises:
        TrainingError: the disk is full, the folder is not writable or memory ran out; what was at `path` is untouched.
    """
    try:
        write_bytes(path, bytes_of(lambda buffer: torch.save(content, buffer)))
    except InputError as error:
        raise TrainingError(f"{error}; {_what_is_left(path)}") from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"memory ran out while {path} was written ({first_line(error)}); close other programs or give a smaller "
            f"batch; {_what_is_left(path)}"
        ) from error


def _what_is_left(path: Path) -> str:
    """The last words of an error: how the run goes on."""
    if (path.parent / "resume.pt").is_file():
        return "the last good checkpoint is kept: continue with `resume`"
    return "there is no earlier checkpoint: start the run again"


def plain_checkpoint(student: nn.Module, train_args: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    """An Ultralytics checkpoint of a bare detector, fp16, with nothing that only training needs.

    Args:
        student: a `DetectionModel`; it is copied, not changed.
        train_args: Ultralytics' settings of the run.
        metrics: of the validation that goes with these weights.
    """
    from ultralytics import __version__ as ultralytics_version

    model: Any = copy.deepcopy(student).to(memory_format=torch.contiguous_format)
    model.criterion = None
    model.args = _plain_values(train_args)
    for module in model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return {
        "epoch": -1,
        "model": model.half().eval().requires_grad_(False),
        "ema": None,
        "optimizer": None,
        "train_args": _plain_values(train_args),
        "train_metrics": {name: float(value) for name, value in metrics.items()},
        "date": datetime.now().astimezone().isoformat(),
        "version": ultralytics_version,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
    }


def _plain_values(args: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without machine paths and objects, readable with `weights_only=True`."""
    kept = {name: value for name, value in args.items() if name not in ("save_dir", "project", "resume")}
    names_only = {name: Path(str(kept[name])).name for name in ("model", "data") if kept.get(name) is not None}
    return {
        name: v for name, v in (kept | names_only).items() if isinstance(v, (str, int, float, bool, list, type(None)))
    }


def read_state(path: Path) -> dict[str, Any]:
    """Read a resume file without running code from it.

    Raises:
        TrainingError: the file is missing, damaged, of another format or no resume file.
    """
    if not path.is_file():
        raise TrainingError(
            f"{path} does not exist; give the resume.pt of an interrupted run, or start without `resume`"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle and torch raise a dozen types; all mean an unreadable file
        raise TrainingError(f"{path} cannot be read as a resume file: {first_line(error)}") from error
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise TrainingError(
            f"{path} is of format {found}, expected {STATE_FORMAT}; give the resume.pt of a run of this version"
        )
    return state


def read_detector_state(path: Path) -> dict[str, Any]:
    """The resume file of a detector's run.

    Raises:
        TrainingError: see `read_state`; or it is of another kind of run, or lacks a part.
    """
    state = read_state(path)
    if "policy" in state:
        raise TrainingError(f"{path} belongs to a run of edgekd finetune; give the resume.pt of edgekd distill")
    missing = [part for part in _DETECTOR_PARTS if part not in state]
    if missing:
        raise TrainingError(f"{path} lacks {', '.join(missing)}; give the resume.pt of a run of this version")
    return state


def student_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    """The bare student's tensors of a wrapped (or bare) detector's state dict."""
    wrapped = {key.removeprefix(_STUDENT): value for key, value in state.items() if key.startswith(_STUDENT)}
    return wrapped or dict(state)


def strip(path: Path, output: Path) -> None:
    """Turn `resume.pt`, `last.pt` or an Ultralytics checkpoint into a plain `best.pt`-like file.

    Raises:
        ModelError: the file is neither.
        TrainingError: a resume file that cannot be read, or the output cannot be written.
    """
    from ultralytics.nn.tasks import DetectionModel

    from edgekd.models.architecture import rebuild_detector
    from edgekd.models.yolo11n import load_detector

    if path.name.startswith("resume"):
        state = read_detector_state(path)
        weights = student_weights(state["ema"])
        model = rebuild_detector(state["student_yaml"], state["class_names"], weights, str(path))
        arguments = state["train_args"]
    else:
        model = load_detector(path, oriented=True)
        arguments = model.args if isinstance(model.args, dict) else vars(model.args)
    if not isinstance(model, DetectionModel):
        raise ModelError(f"{path} holds no detector; give the resume.pt or last.pt of a run")
    write_atomically(output, plain_checkpoint(model, arguments, {}))
