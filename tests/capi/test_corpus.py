"""Python and C read the same manifests, and refuse the same ones for the same class of reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgekd.bundle import read_manifest
from edgekd.capi.library import CChain, Library
from edgekd.errors import BundleError, EdgekdError

sys.path.insert(0, str(Path(__file__).parent.parent / "corpus"))

from cases import all_cases, valid_manifest

CASES = all_cases(valid_manifest())
REASONS = {
    "newer": ("has format", "has the kind"),
    "path": ("expected a plain file name",),
    "changed": ("manifest.json was changed after the build",),
    "damaged": (
        "manifest.json is not JSON", "does not describe", "has no stage", "has the stage", "for the kind",
        "expected ascending numbers", "has the detector's tensor", "cannot be read or has more",
    ),
}  # fmt: skip


def reason_of(error: EdgekdError) -> str:
    message = str(error)
    assert "\n" not in message and type(error) is BundleError, message
    found = [reason for reason, words in REASONS.items() if any(word in message for word in words)]
    assert found, message
    return found[0]


def python_reason(folder: Path) -> str | None:
    try:
        read_manifest(folder)
    except EdgekdError as error:
        return reason_of(error)
    return None


def c_reason(library: Library, folder: Path, backends: Path) -> str | None:
    """An accepted manifest fails at the next step: there are no engines, or no module for its backend or machine."""
    try:
        CChain.open(library, folder, backend_path=backends).close()
    except BundleError as error:
        if type(error) is not BundleError or "lacks the engine file" in str(error):
            return None
        return reason_of(error)
    return None


def test_there_are_hundreds_of_cases_under_names_of_their_own() -> None:
    assert len(CASES) > 400
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.reason for case in CASES} == {None, *REASONS}


def test_python_and_c_agree_on_every_case(library: Library, built: Path, tmp_path: Path) -> None:
    backends, wrong = built / "tests/backends", []
    for case in CASES:
        (tmp_path / "manifest.json").write_bytes(case.content)
        found = python_reason(tmp_path), c_reason(library, tmp_path, backends)
        if found != (case.reason, case.reason):
            wrong.append(f"{case.name}: expected {case.reason}, Python {found[0]}, C {found[1]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("case", [case for case in CASES if case.reason is None], ids=lambda case: case.name[:60])
def test_what_is_accepted_survives_writing(case: object, tmp_path: Path) -> None:
    from edgekd.bundle import write_manifest

    (tmp_path / "manifest.json").write_bytes(case.content)  # type: ignore[attr-defined]
    manifest = read_manifest(tmp_path)
    assert write_manifest(tmp_path, manifest) == read_manifest(tmp_path)
