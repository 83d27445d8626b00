"""A signed bundle is what its maker wrote, or it is refused; keys and signatures are those of minisign."""

from __future__ import annotations

import base64
import binascii
import shutil
import subprocess
from pathlib import Path

import pytest
from bundle_files import flip, rewrite
from typer.testing import CliRunner

from edgekd.bundle import FILE_NAME, SIGNATURE_NAME, listed_files, read_manifest
from edgekd.cli.main import app
from edgekd.errors import BackendUnavailable, BundleError, InputError
from edgekd.signature import KEY_TEXT_LENGTH, new_key, sign

pytest.importorskip("minisign")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_key(tmp_path / "mine.key", None)
    return tmp_path / "mine.key"


@pytest.fixture
def signed(shipped_bundle: Path, key: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "signed"
    folder.mkdir()
    shutil.copy(shipped_bundle / FILE_NAME, folder)  # nothing else is looked at before the signature
    sign(folder / FILE_NAME, key, lambda: "")
    return folder


def public(key: Path) -> Path:
    return key.with_suffix(".pub")


def test_a_signed_bundle_is_read_with_the_file_or_the_letters(signed: Path, key: Path) -> None:
    letters = public(key).read_text().splitlines()[1]
    assert len(letters) == KEY_TEXT_LENGTH
    assert read_manifest(signed, public(key)) == read_manifest(signed, letters) == read_manifest(signed)
    assert SIGNATURE_NAME in (listed_files(signed) or ())


@pytest.mark.parametrize("place", [10, 3000, -5])
def test_a_changed_manifest_is_refused_before_it_is_read(signed: Path, key: Path, place: int) -> None:
    size = (signed / FILE_NAME).stat().st_size
    flip(signed / FILE_NAME, place % size, 0)
    with pytest.raises(BundleError, match="does not fit manifest.json and the key"):
        read_manifest(signed, public(key))


def test_hashes_that_fit_do_not_help_a_forger(signed: Path, key: Path) -> None:
    rewrite(signed, lambda manifest: manifest.update(max_boxes=1))
    assert read_manifest(signed).max_boxes == 1
    with pytest.raises(BundleError, match="signature verification failed"):
        read_manifest(signed, public(key))


def meaning(signature: bytes) -> list[bytes] | None:
    """The lines of a signature file, the two of base64 decoded; None where they are not base64."""
    lines = signature.split(b"\n")
    try:
        lines[1::2] = [base64.b64decode(line, validate=True) for line in lines[1::2]]
    except binascii.Error:
        return None
    return lines


def test_every_bit_of_a_signature_counts_but_those_of_its_untrusted_comment(signed: Path, key: Path) -> None:
    path = signed / SIGNATURE_NAME
    whole = path.read_bytes()
    untrusted = whole.index(b"\n")
    for place in [*range(untrusted, len(whole) - 1, 5), 0]:
        flip(path, place, place % 8)
        if meaning(path.read_bytes()) == meaning(whole):  # a spare bit of the last letter of base64
            path.write_bytes(whole)
            continue
        with pytest.raises(BundleError, match="does not fit"):
            read_manifest(signed, public(key))
        path.write_bytes(whole)


def test_what_is_not_signed_or_by_somebody_else_is_refused(signed: Path, tmp_path: Path) -> None:
    other = new_key(tmp_path / "other.key", "a password")
    with pytest.raises(BundleError, match="incompatible key identifiers"):
        read_manifest(signed, other)
    (signed / SIGNATURE_NAME).unlink()
    with pytest.raises(BundleError, match=f"is not signed .* edgekd sign {signed}"):
        read_manifest(signed, other)


@pytest.mark.parametrize("text", ["", "nowhere.pub", "RW" + "!" * 54, "a\0b"])
def test_a_public_key_that_cannot_be_read_is_said(signed: Path, text: str) -> None:
    with pytest.raises(InputError, match="public key|public_key"):
        read_manifest(signed, text)


def test_an_encrypted_key_wants_its_password(signed: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden.key"
    shown = new_key(hidden, "correct")
    assert hidden.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="wrong password"):
        sign(signed / FILE_NAME, hidden, lambda: "wrong")
    sign(signed / FILE_NAME, hidden, lambda: "correct")
    read_manifest(signed, shown)
    with pytest.raises(InputError, match="is there already"):
        new_key(hidden, None)


def test_the_program_minisign_agrees(signed: Path, key: Path) -> None:
    if shutil.which("minisign") is None:
        pytest.skip("minisign is not on this machine; on Debian: apt install minisign")
    subprocess.run(["minisign", "-Vm", signed / FILE_NAME, "-p", public(key)], check=True, capture_output=True)
    (signed / SIGNATURE_NAME).unlink()
    subprocess.run(["minisign", "-Sm", signed / FILE_NAME, "-s", key], check=True, capture_output=True, input=b"\n")
    read_manifest(signed, public(key))


def test_the_commands(shipped_bundle: Path, tmp_path: Path) -> None:
    bundle, key = Path(shutil.copytree(shipped_bundle, tmp_path / "b")), tmp_path / "c.key"
    made = CliRunner().invoke(app, ["new-key", "-o", str(key), "--no-password"])
    assert made.exit_code == 0 and public(key).read_text().splitlines()[1] in made.output
    assert CliRunner().invoke(app, ["inspect", str(bundle), "--require-signature", str(public(key))]).exit_code == 1
    assert CliRunner().invoke(app, ["sign", str(bundle), "--key", str(key)]).exit_code == 0
    assert CliRunner().invoke(app, ["inspect", str(bundle), "--require-signature", str(public(key))]).exit_code == 0
    flip(bundle / "decoder.bin", 1000, 3)
    failed = CliRunner().invoke(app, ["sign", str(bundle), "--key", str(key)])
    assert isinstance(failed.exception, BundleError)


def test_without_the_library_it_is_one_sentence(signed: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minisign", None)
    with pytest.raises(BackendUnavailable, match=r"edgekd\[sign\]"):
        read_manifest(signed, public(key))
