"""Machine code of both kernel families for every GPU from a Xavier (sm_72) to Blackwell (sm_120), without a GPU.

    pip download --no-deps 'nvidia-cuda-nvrtc-cu12<13'    (and unpack it)
    python benchmarks/compile_kernels.py --nvrtc nvidia/cuda_nvrtc/lib/libnvrtc.so.12

CUDA 13 no longer targets sm_72, so an older compiler is given for it. What the machine code looks like (loads of 16
bytes, no spills) is tested in `tests/test_nvrtc.py`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from result_file import RESULTS, write_result

from edgekd.nvrtc import compile_ahead, parse_sms


def main() -> None:
    """Compile and write which compiler made how many bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sm", default="72,75,80,86,87,89,90,100,110,120", help="compute capabilities without a dot")
    parser.add_argument("--nvrtc", type=Path, action="append", default=[], help="libnvrtc of an older CUDA")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest = compile_ahead(parse_sms(options.sm), Path(folder), options.nvrtc)
        cubins = json.loads(manifest.read_text())["cubins"]
    print(write_result("kernels_ahead", {"settings": {"sm": options.sm}, "cubins": cubins}, options.output))


if __name__ == "__main__":
    main()
