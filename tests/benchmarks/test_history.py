"""The history of results: what git kept of each file, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import history
import result_file
import table_parts
from result_file import write_result

from edgekd.environment import describe_machine


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def git(folder: Path, *words: str) -> None:
    person = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", str(folder), *person, *words], check=True, capture_output=True)


def test_every_committed_result_is_a_point_and_what_lacks_the_number_is_none(repository: Path) -> None:
    good = [{"results": {"python_over_c": {"total": total}}} for total in (1.5, 2.0)]
    for content in (good[0], {"rows": []}, good[1]):
        path = write_result("capi", content, repository)
        git(repository, "add", ".")
        git(repository, "commit", "-qm", "measure")
    write_result("capi", {"results": {"python_over_c": {"total": 9.0}}}, repository)  # not committed

    ((label, points),) = history.history(repository).items()

    assert label.startswith("C library") and path.stem.rsplit("_", 2)[1] in label
    assert [value for _, value in points] == [1.5, 2.0]


def test_a_result_names_theme_date_and_machine(tmp_path: Path) -> None:
    written = json.loads(write_result("capi", {"settings": {"threads": 2}}, tmp_path / "new").read_text())

    assert list(written) == ["theme", "date", "machine", "settings"]
    assert written["machine"]["n_cores"] > 0


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    history.draw({"a": [("2026-11-23 10:00", 2.0), ("2026-11-24 10:00", 4.0)]}, tmp_path / "plot.png")

    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_machines_of_one_name_and_other_instruction_sets_have_their_own_files(tmp_path: Path, monkeypatch) -> None:
    here = describe_machine()
    wide = here.model_copy(update={"cpu": "AMD EPYC", "n_cores": 2, "gpu": None, "isa": ("avx2", "avx512_bf16")})
    narrow = wide.model_copy(update={"isa": ("avx2",)})
    before = tmp_path / "chain_amd-epyc-2core_202001.json"
    before.write_text(json.dumps({"machine": narrow.model_dump(), "results": 0}))
    for number, machine in enumerate((wide, narrow), 1):
        monkeypatch.setattr(result_file, "describe_machine", lambda m=machine: m)
        written = write_result("chain", json.loads(before.read_text()) | {"results": number}, tmp_path)
        assert json.loads(written.read_text())["machine"] == json.loads(machine.model_dump_json())
    monkeypatch.setattr(table_parts, "RESULTS", tmp_path)

    assert [path.name.rsplit("_", 1)[0] for path in sorted(tmp_path.iterdir())] == [
        "chain_amd-epyc-2core-avx2",
        "chain_amd-epyc-2core-avx512bf16",
        "chain_amd-epyc-2core",
    ]
    assert table_parts.newest("chain")["results"] == 1
