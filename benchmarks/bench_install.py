"""How long a new user waits: the README's first command in a fresh environment, and `edgekd --help` there.

    python benchmarks/bench_install.py -o benchmarks/results

Download time is part of it and depends on the network; the packages are not cached.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from result_file import write_result

ROOT = Path(__file__).parent.parent


def seconds(command: list[str]) -> float:
    """Run a command that must succeed; return its wall time."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as name:
        scripts = Path(name) / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        start = time.perf_counter()
        venv.create(Path(name) / "venv", with_pip=True)
        venv_s = time.perf_counter() - start
        install_s = seconds([str(scripts / "pip"), "install", "-q", "--no-cache-dir", str(ROOT)])
        demo_s = seconds([str(scripts / "edgekd"), "demo", "-o", f"{name}/demo"])
        help_s = min(seconds([str(scripts / "edgekd"), "--help"]) for _ in range(10))
    result = {
        "venv_s": venv_s,
        "install_s": install_s,
        "demo_s": demo_s,
        "total_s": venv_s + install_s + demo_s,
        "help_s": help_s,
    }
    write_result("install", result, output)
    print(json.dumps({key: value for key, value in result.items() if key.endswith("_s")}, indent=1))


if __name__ == "__main__":
    main()
