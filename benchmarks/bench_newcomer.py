"""How long a newcomer takes from a clone to a bundle of own classes: the commands of docs/own-classes.md with a watch.

    python benchmarks/bench_newcomer.py --assets $EDGEKD_ASSETS

Clones the repository into a fresh folder, lays the training pictures of NWPU VHR-10 beside it as the page asks for, and
runs the page's commands as they stand. The download of the installation is part of the time. A trial changes numbers in
the commands and nothing else: `--pictures 20 --epochs 1 --steps 20 --environment .venv/bin`, which leaves the
installation out. Ends with 1 when the whole takes more than 45 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result_file import write_result

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/own-classes.md"
STEP = re.compile(r"^<!-- step: (.+?) -->\n```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
LIMIT_S = 45 * 60
MADE = ("data/samples.jpg", "runs/detector/weights/best.pt", "runs/segmenter/best.pt", "bundle/manifest.json")


def steps_of(page: str, numbers: dict[str, int]) -> dict[str, str]:
    """The commands of each step of the page, with other numbers after the flags that `numbers` names."""
    steps = dict(STEP.findall(page))
    for name, commands in steps.items():
        for flag, number in numbers.items():
            commands = re.sub(rf"(?<=--{flag} )\d+", str(number), commands)
        steps[name] = commands
    return steps


def lay_pictures(assets: Path, folder: Path, n_pictures: int | None) -> int:
    """Write `annotations.json` and `images/` of the training part of NWPU VHR-10; return how many pictures."""
    source = assets / "data/nwpu_vhr10"
    content = json.loads((source / "annotations.json").read_text())
    names = set(json.loads((ROOT / "edgekd/data/splits/nwpu_seed0.json").read_text())["train"][:n_pictures])
    content["images"] = [image for image in content["images"] if image["file_name"] in names]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
    (folder / "annotations.json").write_text(json.dumps(content))
    (folder / "images").mkdir()
    for image in content["images"]:
        (folder / "images" / image["file_name"]).write_bytes((source / "images" / image["file_name"]).read_bytes())
    return len(content["images"])


def timed(commands: str, folder: Path, scripts: Path) -> dict[str, float]:
    """Run a step's commands as a shell would after the environment was activated; they must succeed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PATH": f"{scripts}:{os.environ['PATH']}"}
    if not scripts.is_relative_to(folder):
        environment["PYTHONPATH"] = str(folder)  # a trial in an environment that has another edgekd
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(["bash", "-euc", commands], cwd=folder, env=environment, check=False, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{commands}ended with {done.returncode}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.perf_counter() - start, 1), "processor_s": round(used, 1)}


def main() -> int:
    """Measure, write the result file, say whether it was fast enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--pictures", type=int, help="so many alone")
    parser.add_argument("--epochs", type=int, help="instead of the page's")
    parser.add_argument("--steps", type=int, help="instead of the page's")
    parser.add_argument("--environment", type=Path, help="folder of scripts to use instead of the step `install`")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    numbers = {name: getattr(options, name) for name in ("epochs", "steps") if getattr(options, name)}
    steps = steps_of(PAGE.read_text(), numbers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "edgekd"
        times = {"clone": timed(f"git clone -q {ROOT} {folder}\n", ROOT, Path("/usr/bin"))}
        n_pictures = lay_pictures(options.assets, folder, options.pictures)
        scripts = options.environment.absolute() if options.environment else folder / ".venv/bin"
        for step, commands in steps.items():
            if step != "install" or not options.environment:
                times[step] = timed(commands, folder, scripts)
                print(f"{step}: {times[step]}", flush=True)
        if missing := [each for each in MADE if not (folder / each).is_file()]:
            raise SystemExit(f"the page's commands did not write {missing}")
        n_found = sum(
            len(each["objects"]) for each in json.loads((folder / "out/results.json").read_text())["pictures"]
        )
    total_s = round(sum(each["wall_s"] for each in times.values()), 1)
    settings = {"changed": numbers, "n_pictures": n_pictures, "data": "NWPU VHR-10, training part", "limit_s": LIMIT_S}
    content = {"settings": settings, "steps": times, "total_s": total_s, "n_objects_found": n_found}
    print(write_result("newcomer", content, options.output), f"{total_s / 60:.1f} minutes")
    return int(total_s > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
