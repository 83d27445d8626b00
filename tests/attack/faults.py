"""Faults in the middle of a command: killed, stopped, no room, no rights, little memory; then the same command again.

    python tests/attack/faults.py --faults 300 [--seed 0] [--verb run] [--fault SIGKILL]
    python tests/attack/faults.py --faults 300 --json FILE --room FOLDER --minutes 20   # again until it ends

After each fault the output must be the old result or the new one or nothing, a file of the user beside it must be
untouched, and the same command must then end with 0 and leave no temporary file. Exit 1 when one of that fails, 3 when
the time was over: the same call with the same file goes on.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import forked
from report import write_report
from verbs import Verb, lay_inputs, verbs

FAULTS = ("SIGKILL", "SIGTERM", "SIGINT", "no room", "few files", "read-only", "little memory")
# A traceback of a deep library is this long.
LAST_WORDS_BYTES = 20_000
OLD_MARK, DIARY = "had-old", "the user's own"
OWN = {"in", "out", "out.versions", "tmp", "diary.txt", OLD_MARK}
# Names of files that are being written, by edgekd and by the libraries under it.
TEMPORARY = re.compile(r"^\.|\.tmp$|~$|tmp[a-z0-9_]{8}|edgekd-tmp-")


def limits(fault: str, share: float, work: Path) -> Callable[[], None]:
    """What a process does to itself first; `share` (0 to 1) says how hard the limit is."""

    def prepare() -> None:
        if fault == "no room":
            # A file may not grow beyond this: the write fails as on a full disk, without a full disk.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(share**3 * 5_000_000) + 1, resource.RLIM_INFINITY))
        elif fault == "few files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (6 + int(share * 30), 4096))
        elif fault == "read-only":
            work.chmod(0o555)
            _obey_permissions()
        elif fault == "little memory":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            room = pages * resource.getpagesize() + int(share**2 * 400_000_000)
            resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))

    return prepare


def _obey_permissions() -> None:
    """Give up what lets root write where the permissions say no (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x2008_0522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    sets[0] &= ~0b110
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def run_with_fault(words: list[str], work: Path, fault: str, share: float, lasts_s: float) -> tuple[int, str]:
    """Run the command and let the fault happen; return the exit code and its last words."""
    errors = work / "stderr.txt"
    process = forked.start(words, work, errors, limits(fault, share, work))
    if fault.startswith("SIG"):
        time.sleep(share * lasts_s)
        os.kill(process, getattr(signal, fault))
    code = forked.wait(process)
    work.chmod(0o755)
    text = errors.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace") if errors.exists() else ""
    errors.unlink(missing_ok=True)
    return code, text


def try_fault(verb: Verb, room: Path, work: Path, fault: str, share: float, lasts_s: float) -> str:
    """Return what went wrong, or an empty string."""
    lay_out(verb, room, work, with_old=verb.replaces and int(share * 1e6) % 2 == 0)
    before = tree_of(room / "inputs")
    code, text = run_with_fault(verb.words(work), work, fault, share, lasts_s)
    if wrong := _what_it_left(verb, work, fault, code, text):
        return wrong
    if (work / "diary.txt").read_text() != DIARY or tree_of(room / "inputs") != before:
        return "changed a file of the user"
    if verb.keeps_old and verb.whole(work / "out"):  # it ended, or was struck after its last step: kept from then on
        return _said_left(work)
    code, text = run_with_fault(verb.again(work), work, "none", 0.0, lasts_s)
    if code != 0:
        return f"the next call ended with {code}: {text.strip()[-300:]}"
    if not verb.whole(work / "out"):
        return "the next call left a result that is not whole"
    return _said_left(work)


def _said_left(work: Path) -> str:
    left = leftovers(work)
    return f"left behind: {left}" if left else ""


def lay_out(verb: Verb, room: Path, work: Path, with_old: bool) -> None:
    """Lay the user's files, and an earlier result where one is asked for."""
    work.chmod(0o755)
    (work / "tmp").mkdir()
    (work / "tmp").chmod(0o777)
    (work / "in").symlink_to(room / "inputs")
    (work / "diary.txt").write_text(DIARY)
    if with_old:
        shutil.copytree(room / "old" / verb.name, work, symlinks=True, dirs_exist_ok=True)


def _what_it_left(verb: Verb, work: Path, fault: str, code: int, text: str) -> str:
    """What is wrong right after the fault."""
    whole = verb.whole(work / "out")
    if "Traceback" in text:
        return f"traceback, exit {code}: {text.strip()[-300:]}"
    if code == 124:
        return f"did not end in {forked.TIMEOUT_S:.0f} s"
    # With too little memory a native library may abort, as the system's own killer would have ended the process.
    if code < 0 and fault not in ("SIGKILL", "little memory"):
        return f"ended by signal {-code}"
    if code == 0 and not whole:
        return "ended with 0 and a result that is not whole"
    return "lost the old result" if (work / OLD_MARK).exists() and not whole else ""


def leftovers(work: Path) -> list[str]:
    """Temporary files beside and in the result, and what lies in the folder for temporary files."""
    beside = [path.name for path in work.iterdir() if path.name not in OWN]
    inside = [str(path.relative_to(work)) for path in (work / "out").rglob("*") if TEMPORARY.search(path.name)]
    return sorted(beside + inside + [f"tmp/{path.name}" for path in (work / "tmp").iterdir()])


def tree_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Relative path -> size and time of the last change of everything below a folder."""
    files = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return {str(path.relative_to(folder)): (state.st_size, state.st_mtime_ns) for path, state in files}


def undisturbed_s(verb: Verb, room: Path) -> float:
    """How long a verb takes; a fault comes within this time. Its result is kept as the old one."""
    work = room / "old" / verb.name
    work.mkdir(parents=True)
    lay_out(verb, room, work, with_old=False)
    start = time.perf_counter()
    code, text = run_with_fault(verb.words(work), work, "none", 0.0, 0.0)
    lasts_s = time.perf_counter() - start
    if code or not verb.whole(work / "out"):
        raise SystemExit(f"{verb.name} ended with {code} without a fault: {text[-2000:]}")
    if left := leftovers(work):
        raise SystemExit(f"{verb.name} leaves {left} without a fault")
    for name in ("in", "diary.txt"):
        (work / name).unlink()
    shutil.rmtree(work / "tmp")
    (work / OLD_MARK).touch()
    return lasts_s


class Course:
    """What has been tried so far; written to the result file after every fault, and read from it by a later call."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.file: Path | None = options.json
        self.settings = {name: getattr(options, name) for name in ("faults", "seed", "fault", "verb")}
        self.counts, self.findings, self.took_s, self.done = Counter[str](), list[str](), 0.0, 0
        self.lasts_s: dict[str, float] = {}
        if self.file and self.file.exists():
            earlier = json.loads(self.file.read_text())
            if any(earlier["settings"][name] != value for name, value in self.settings.items()):
                raise SystemExit(f"{self.file} is of a call with other settings: {earlier['settings']}")
            self.counts, self.findings = Counter(earlier["counts"]), earlier["findings"]
            self.took_s, self.done = earlier["took_s"], earlier["settings"]["done"]
            self.lasts_s = earlier["settings"]["lasts_s"]

    def note(self, name: str, finding: str, took_s: float) -> None:
        """Count one fault."""
        self.counts[f"{name}: {'wrong' if finding else 'right'}"] += 1
        self.done += 1
        self.took_s += took_s
        if finding:
            self.findings.append(finding)
            print(finding, flush=True)
        if self.file:
            settings = self.settings | {"done": self.done, "lasts_s": self.lasts_s}
            write_report(self.file, settings, dict(sorted(self.counts.items())), self.findings, self.took_s)


def main() -> None:
    """Try faults, print what goes wrong, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb")
    parser.add_argument("--fault", choices=FAULTS, help="this one alone; SIGKILL is `make kills`")
    parser.add_argument("--json", type=Path, help="result file; one that is there is continued")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this time")
    parser.add_argument("--room", type=Path, help="folder for the inputs, which later calls use again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        room = (options.room or Path(name)).absolute()
        room.mkdir(parents=True, exist_ok=True)
        room.chmod(0o755)
        os.environ["XDG_CACHE_HOME"] = str(room / "cache")
        sys.exit(_try_all(options, room))


def _try_all(options: argparse.Namespace, room: Path) -> int:
    """Try the faults one after the other and return the exit code."""
    course, end = Course(options), time.perf_counter() + 60.0 * options.minutes
    turns = [verb for verb in verbs() for _ in range(verb.turns) if options.verb in (None, verb.name)]
    while course.done < options.faults:
        start, number = time.perf_counter(), course.done
        if start > end:
            print(f"{number} of {options.faults} faults, {len(course.findings)} findings; the time is over")
            return 3
        # All turns of a verb follow one another, and those that train come last, so that their imports come late.
        verb = turns[number * len(turns) // options.faults]
        fault = options.fault or FAULTS[number % len(FAULTS)]
        forked.import_all(trains=verb.resumes)
        _prepare(verb, room, course)
        share = Random(f"{options.seed} {number}").random()
        with tempfile.TemporaryDirectory(dir=room) as work:
            wrong = try_fault(verb, room, Path(work), fault, share, course.lasts_s[verb.name])
        finding = wrong and f"fault {number}, {verb.name}, {fault} at {share:.4f} of its time or limit: {wrong}"
        course.note(f"{verb.name}, {fault}", finding, time.perf_counter() - start)
    for line, count in sorted(course.counts.items()):
        print(f"{line}: {count}")
    return int(bool(course.findings))


def _prepare(verb: Verb, room: Path, course: Course) -> None:
    """Make what all commands read, and this one's undisturbed result, where they are not there yet."""
    if not (room / "laid").exists():
        shutil.rmtree(room / "inputs", ignore_errors=True)
        if forked.call(lambda: lay_inputs(room / "inputs")):
            raise SystemExit("the inputs could not be made")
        (room / "laid").touch()
    if verb.name not in course.lasts_s or not (room / "old" / verb.name / OLD_MARK).exists():
        shutil.rmtree(room / "old" / verb.name, ignore_errors=True)
        course.lasts_s[verb.name] = round(undisturbed_s(verb, room), 2)


if __name__ == "__main__":
    main()
