"""Every error a user can cause, one class per kind; the command line turns them into one sentence and an exit code.

    EdgekdError                 exit 1
    |- InputError               a picture, video, folder, number or option that cannot be used
    |- DataError                a data set, annotation file or calibration set that cannot be used
    |- ModelError               a checkpoint or an ONNX graph of another kind than asked for
    |- BackendUnavailable       a library, device or compiler that is not on this machine
    |- BuildError               an engine that the backend refused to build
    |- BundleError              a bundle that is missing, damaged or of a newer format
    |  `- BundleMismatch        a whole bundle, built for another machine
    |- TrainingError            a training run that cannot start, go on or resume
    |- Interrupted              exit 130: a training run was told to stop, and has saved its state
    `- GateFailed               exit 3: built, measured, and not accurate enough

The message is one sentence: what came, what was expected, the command that cures it.
"""

import re


class EdgekdError(Exception):
    """Base of every error that the user can cure; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(EdgekdError):
    """A picture, video, folder, number or option cannot be used."""


class DataError(EdgekdError):
    """A data set, annotation file or calibration set cannot be used."""


class ModelError(EdgekdError):
    """A checkpoint or an ONNX graph is of another kind than asked for."""


class BackendUnavailable(EdgekdError):
    """A library, device or compiler is not on this machine."""


class BuildError(EdgekdError):
    """The backend refused to build an engine."""


class BundleError(EdgekdError):
    """A bundle is missing, damaged or of a newer format."""


class BundleMismatch(BundleError):
    """A whole bundle was built for another machine."""


class TrainingError(EdgekdError):
    """A training run cannot start, go on or resume."""


class Interrupted(EdgekdError):
    """A training run was told to stop (Ctrl-C, SIGTERM) and has saved its state."""

    exit_code = 130


class GateFailed(EdgekdError):
    """A bundle was built and measured, and is not accurate enough."""

    exit_code = 3


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, at most 160 characters, without escapes and control characters."""
    lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(error)).splitlines() or [""]
    shown = "".join(letter for letter in lines[0] if letter.isprintable()).strip()
    return (shown or type(error).__name__)[:160].rstrip(".")


# From the fifth on: what the system says of a mapping that found no room, of a library, a file, a process or a graph.
_WORDS_OF_NO_MEMORY = (
    "can't start new thread", "insufficient memory", "can't allocate memory", "bad_alloc", "cannot allocate memory",
    "failed to map segment", "cannot map zero-fill pages", "failed to allocate memory",
    "failed to serialize proto",
)  # fmt: skip
_NO_ROOM_FOR_CODE = "could not create a primitive"
"""All that oneDNN says where the machine code of a convolution finds no room."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory was missing: Python has a class for that, and the libraries below have words."""
    text = str(error).lower()
    found = any(words in text for words in _WORDS_OF_NO_MEMORY) or text.strip() == _NO_ROOM_FOR_CODE
    return isinstance(error, MemoryError) or found
