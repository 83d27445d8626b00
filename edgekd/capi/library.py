"""The header edgekd.h in ctypes, and a chain that runs through the C library with the types of the Python one.

A bundle and a built library go in; `CChain` gives the same `ChainResult` as `edgekd.Chain`. The tests compare the two,
and a Python program can use it to run what its C firmware will run.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgekd.errors import BackendUnavailable, BundleError, BundleMismatch, InputError
from edgekd.runtime.chain import ChainOptions
from edgekd.types import BoolArray, ChainResult, Detections, Float32Array, Masks, UInt8Array

ABI_VERSION = 1
FORMAT_BGR = 2

_ERRORS: dict[int, type[Exception]] = {
    1: InputError,
    2: InputError,
    3: BundleError,
    4: BundleMismatch,
    5: BackendUnavailable,
    7: MemoryError,
}


class Image(ctypes.Structure):
    """`edgekd_image`: a view of pixels."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("width_px", ctypes.c_uint32),
        ("height_px", ctypes.c_uint32),
        ("stride_bytes", ctypes.c_size_t),
        ("format", ctypes.c_int32),
    )


class OpenOptions(ctypes.Structure):
    """`edgekd_open_options`."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("n_threads", ctypes.c_uint32),
        ("backend_path", ctypes.c_char_p),
        ("public_key", ctypes.c_char_p),
    )


class RunOptions(ctypes.Structure):
    """`edgekd_run_options`."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("confidence", ctypes.c_float),
        ("iou", ctypes.c_float),
        ("max_boxes", ctypes.c_uint32),
        ("multi_label", ctypes.c_uint32),
        ("mask_threshold", ctypes.c_float),
        ("min_region_px", ctypes.c_uint32),
        ("boxes_only", ctypes.c_uint32),
        ("boxes_xyxy", ctypes.c_void_p),
        ("n_boxes", ctypes.c_size_t),
    )


class Object(ctypes.Structure):
    """`edgekd_object`."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("left_px", "top_px", "right_px", "bottom_px")),
        ("confidence", ctypes.c_float),
        ("predicted_iou", ctypes.c_float),
        ("class_id", ctypes.c_int32),
        *((name, ctypes.c_int32) for name in ("window_left", "window_top", "window_right", "window_bottom")),
    )


class Times(ctypes.Structure):
    """`edgekd_times`."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        *(
            (f"{stage}_ms", ctypes.c_float)
            for stage in (
                "total",
                "detector_preprocess",
                "detector",
                "detector_postprocess",
                "encoder_preprocess",
                "encoder",
                "decoder",
                "mask_postprocess",
                "segmenter_preprocess",
                "segmenter",
            )
        ),
    )


_HANDLE, _SIZE, _TEXT, _STATUS = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int32
_OBJECT_DTYPE = np.dtype([(field[0], field[1]) for field in Object._fields_])
SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "edgekd_abi_version": (ctypes.c_uint32, ()),
    "edgekd_version": (_TEXT, ()),
    "edgekd_status_name": (_TEXT, (_STATUS,)),
    "edgekd_last_error": (_TEXT, ()),
    "edgekd_open_options_init": (_STATUS, (ctypes.c_void_p, _SIZE)),
    "edgekd_run_options_init": (_STATUS, (ctypes.c_void_p, _SIZE)),
    "edgekd_chain_open": (_STATUS, (_TEXT, ctypes.c_void_p, ctypes.POINTER(_HANDLE))),
    "edgekd_chain_clone": (_STATUS, (_HANDLE, ctypes.POINTER(_HANDLE))),
    "edgekd_chain_close": (None, (_HANDLE,)),
    "edgekd_chain_class_count": (_SIZE, (_HANDLE,)),
    "edgekd_chain_class_name": (_TEXT, (_HANDLE, ctypes.c_int32)),
    "edgekd_chain_run": (_STATUS, (_HANDLE, ctypes.c_void_p, ctypes.c_void_p)),
    "edgekd_chain_get_objects": (_STATUS, (_HANDLE, ctypes.c_void_p, _SIZE, ctypes.POINTER(_SIZE))),
    "edgekd_chain_is_oriented": (ctypes.c_uint32, (_HANDLE,)),
    "edgekd_chain_get_corners": (_STATUS, (_HANDLE, ctypes.c_void_p, _SIZE, ctypes.POINTER(_SIZE))),
    "edgekd_mask_bytes": (_SIZE, (ctypes.c_void_p,)),
    "edgekd_chain_get_mask": (_STATUS, (_HANDLE, _SIZE, ctypes.c_void_p, _SIZE, ctypes.POINTER(_SIZE))),
    "edgekd_chain_get_full_mask": (
        _STATUS,
        (_HANDLE, _SIZE, ctypes.c_void_p, _SIZE, _SIZE, ctypes.POINTER(_SIZE)),
    ),
    "edgekd_chain_get_times": (_STATUS, (_HANDLE, ctypes.c_void_p)),
}


class LibraryError(RuntimeError):
    """The library failed for a reason that is not the user's: a backend that fell over, or a bug."""


class Library:
    """A loaded libedgekd; `calls` are its functions with their signatures declared."""

    def __init__(self, path: Path) -> None:
        """Load the library.

        Raises:
            BackendUnavailable: the file is missing, is not a library, or has another ABI.
        """
        cure = "build it with: edgekd capi build"
        try:
            self.calls = ctypes.CDLL(str(path))
        except OSError as error:
            raise BackendUnavailable(f"libedgekd cannot be loaded ({error}); {cure}") from error
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(self.calls, name, None)
            if function is None:
                raise BackendUnavailable(f"{path} has no function {name}; {cure}")
            function.restype, function.argtypes = result, arguments
        found = self.calls.edgekd_abi_version()
        if found != ABI_VERSION:
            raise BackendUnavailable(f"{path} has ABI {found}, expected {ABI_VERSION}; {cure}")

    def check(self, status: int) -> None:
        """Raise the error that a status stands for.

        Raises:
            EdgekdError: the user can cure it.
            MemoryError, LibraryError: everything else.
        """
        if status:
            sentence = self.calls.edgekd_last_error().decode(errors="replace")
            raise _ERRORS.get(status, LibraryError)(sentence)


class CChain:
    """An open bundle in the C library; a context manager like `edgekd.Chain`, for one thread at a time."""

    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle

    @classmethod
    def open(
        cls,
        library: Library,
        folder: str | Path,
        n_threads: int | None = None,
        backend_path: Path | None = None,
        public_key: str | Path | None = None,
    ) -> CChain:
        """Open a bundle.

        Args:
            library: the loaded library.
            folder: what `edgekd build-engine` wrote.
            n_threads: CPU threads a network may use; None leaves the choice to the backend.
            backend_path: folder of the backend modules; None for the library's own.
            public_key: whose signature the bundle must carry, as for `edgekd.read_manifest`; None asks for none.

        Raises:
            EdgekdError: as `edgekd.Chain.open`.
        """
        options, handle = OpenOptions(), ctypes.c_void_p()
        library.check(library.calls.edgekd_open_options_init(ctypes.byref(options), ctypes.sizeof(options)))
        options.n_threads = n_threads or 0
        options.backend_path = str(backend_path).encode() if backend_path else None
        options.public_key = str(public_key).encode() if public_key else None
        library.check(
            library.calls.edgekd_chain_open(str(folder).encode(), ctypes.byref(options), ctypes.byref(handle))
        )
        return cls(library, handle)

    def clone(self) -> CChain:
        """Return a chain that shares the weights with this one, for another thread."""
        handle = ctypes.c_void_p()
        self._library.check(self._library.calls.edgekd_chain_clone(self._handle, ctypes.byref(handle)))
        return CChain(self._library, handle)

    def close(self) -> None:
        """Give the chain's memory back; a second call does nothing."""
        self._library.calls.edgekd_chain_close(self._handle)
        self._handle = ctypes.c_void_p()

    def __enter__(self) -> CChain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __call__(
        self, picture: UInt8Array, options: ChainOptions | None = None, boxes: Float32Array | None = None
    ) -> ChainResult:
        """Find objects and their masks.

        Args:
            picture: (H, W, 3) uint8 BGR; rows may lie apart, pixels may not.
            options: thresholds; the defaults when None.
            boxes: (n, 4) xyxy in picture pixels to segment instead of the detector's.

        Raises:
            EdgekdError: the picture, an option or the boxes cannot be used.
        """
        run = self._run_options(options or ChainOptions())
        if boxes is not None:
            boxes = np.ascontiguousarray(boxes, np.float32)
            run.boxes_xyxy, run.n_boxes = boxes.ctypes.data, len(boxes)
        self._library.check(
            self._library.calls.edgekd_chain_run(self._handle, ctypes.byref(_image(picture)), ctypes.byref(run))
        )
        return self._result(picture.shape[:2], turned=boxes is None)

    def _run_options(self, options: ChainOptions) -> RunOptions:
        run = RunOptions()
        self._library.check(self._library.calls.edgekd_run_options_init(ctypes.byref(run), ctypes.sizeof(run)))
        run.confidence, run.iou, run.max_boxes = options.detect.confidence, options.detect.iou, options.detect.max_boxes
        run.multi_label = options.detect.multi_label
        run.mask_threshold, run.min_region_px = options.mask.threshold, options.mask.min_region_px
        return run

    def _corners(self, n: int) -> Float32Array:
        corners = np.zeros((n, 4, 2), np.float32)
        self._library.check(
            self._library.calls.edgekd_chain_get_corners(self._handle, corners.ctypes.data, corners.size, None)
        )
        return corners

    def _result(self, picture_px: tuple[int, int], turned: bool) -> ChainResult:
        calls, needed = self._library.calls, ctypes.c_size_t()
        self._library.check(calls.edgekd_chain_get_objects(self._handle, None, 0, ctypes.byref(needed)))
        table = np.zeros(needed.value, _OBJECT_DTYPE)
        self._library.check(calls.edgekd_chain_get_objects(self._handle, table.ctypes.data, needed.value, None))
        found = Detections(
            _columns(table, np.float32, "left_px", "top_px", "right_px", "bottom_px"),
            table["confidence"].copy(),
            table["class_id"].copy(),
            self._corners(needed.value) if turned and calls.edgekd_chain_is_oriented(self._handle) else None,
        )
        windows = _columns(table, np.int32, "window_left", "window_top", "window_right", "window_bottom")
        crops = [self._crop(index, window) for index, window in enumerate(windows)]
        masks = Masks(picture_px, windows, crops, table["predicted_iou"].copy())
        return ChainResult(found, masks, self.class_names(), self.times_ms())

    def _crop(self, index: int, window: np.ndarray) -> BoolArray:
        left, top, right, bottom = window
        crop = np.zeros((bottom - top, right - left), np.uint8)
        self._library.check(
            self._library.calls.edgekd_chain_get_mask(self._handle, index, crop.ctypes.data, crop.nbytes, None)
        )
        return crop.view(np.bool_)

    def class_names(self) -> tuple[str, ...]:
        """Return the bundle's class names."""
        calls = self._library.calls
        n = calls.edgekd_chain_class_count(self._handle)
        return tuple(calls.edgekd_chain_class_name(self._handle, index).decode() for index in range(n))

    def times_ms(self) -> dict[str, float]:
        """Return the milliseconds of each stage of the last run, and `total`."""
        times = Times(struct_size=ctypes.sizeof(Times))
        self._library.check(self._library.calls.edgekd_chain_get_times(self._handle, ctypes.byref(times)))
        return {field[0][: -len("_ms")]: getattr(times, field[0]) for field in Times._fields_[1:]}


def _columns(table: np.ndarray, dtype: Any, *names: str) -> np.ndarray:
    return np.stack([table[name] for name in names], 1).astype(dtype)


def _image(picture: UInt8Array) -> Image:
    """View a picture without a copy; what is not a picture is refused here, because C sees only an address."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.strides[1:] != (3, 1):
        raise InputError(
            f"the picture is {picture.dtype} {picture.shape}, expected uint8 (height, width, 3) with whole rows"
        )
    height, width = picture.shape[:2]
    return Image(picture.ctypes.data, width, height, picture.strides[0], FORMAT_BGR)
