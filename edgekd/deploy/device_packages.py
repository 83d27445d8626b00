"""Whether the packages are here that turn exported models into engines for a GPU.

Nothing goes in; a sentence comes out where one is missing. A Jetson installs them with the extra `device`.
"""

from __future__ import annotations

from edgekd.environment import has_module
from edgekd.errors import BackendUnavailable

PACKAGES = ("onnx", "onnxsim", "onnxruntime")


def require_device_packages() -> None:
    """Check them before the first graph is read.

    Raises:
        BackendUnavailable: one of `PACKAGES` is not installed.
    """
    missing = [name for name in PACKAGES if not has_module(name)]
    if missing:
        raise BackendUnavailable(
            f"{', '.join(missing)} cannot be imported and building an engine needs it; "
            "install it with: pip install 'edgekd[device]'"
        )
