"""The files that tell strangers how to work with the project agree with the package."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

import edgekd

ROOT = Path(__file__).parent.parent


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == edgekd.__version__
    assert citation["license"] == "Apache-2.0"


def test_paths_in_the_threat_model_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    paths = re.findall(r"`(edgekd/[\w./]+)`", text)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in (ROOT / "CONTRIBUTING.md", ROOT / "docs/releasing.md", ROOT / ".github/pull_request_template.md"):
        for target in re.findall(r"`make ([a-z-]+)`", path.read_text()):
            assert target in targets, f"{path.name}: make {target}"


def test_the_bill_of_materials_and_the_licences_name_the_core() -> None:
    bill = (ROOT / "docs/sbom.json").read_text()
    names = {component["name"].lower() for component in json.loads(bill)["components"]}
    page = (ROOT / "docs/licences.md").read_text()
    core = set(re.findall(r"^\| (\S+) \| \S+ \| .* \| core \|$", page, re.MULTILINE))
    for name in ("numpy", "opencv-python", "openvino", "pydantic", "typer", "rich"):
        assert name in names and name in core, name
    assert "file:" not in bill and "/site-packages" not in bill


def test_the_tests_that_the_list_of_regressions_names_exist() -> None:
    tests = ROOT / "tests"
    for row in re.findall(r"^\|[^|]*\|[^|]*\|([^|]*)\|$", (tests / "regressions.md").read_text(), re.MULTILINE)[1:]:
        file = None
        for name, function in re.findall(r"`([\w/.]*)(?:::(\w+))?`", row):
            file = tests / name if name else file
            assert file is not None and file.is_file(), name
            assert not function or f"def {function}(" in file.read_text(), (name, function)


def test_the_tests_for_other_pythons_exist() -> None:
    for name in (ROOT / ".ci/core_tests").read_text().split():
        assert (ROOT / name).exists(), name
