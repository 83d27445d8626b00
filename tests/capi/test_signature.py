"""The C library verifies what edgekd and minisign sign, refuses what was changed, and says when it cannot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bundle_files import counted_opens, flip, rewrite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toolchain import run

from edgekd.bundle import FILE_NAME, SIGNATURE_NAME, read_manifest
from edgekd.capi.build import SOURCES
from edgekd.capi.library import CChain, Library
from edgekd.errors import BundleError, InputError
from edgekd.signature import new_key, sign

pytest.importorskip("minisign")
FILES = (FILE_NAME, "detector.fake", "encoder.fake", "decoder.fake")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "mine.key"
    new_key(path, None)
    return path


@pytest.fixture(scope="module")
def signed(built: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the fake backend with a digest and a signature."""
    folder = Path(shutil.copytree(built / "tests/bundle", tmp_path_factory.mktemp("signed") / "b"))
    rewrite(folder, lambda manifest: None)
    sign(folder / FILE_NAME, key, lambda: "")
    return folder


def test_file_and_letters_of_the_key_are_taken(library: Library, built: Path, signed: Path, key: Path) -> None:
    public = key.with_suffix(".pub")
    for given_key in (public, public.read_text().splitlines()[1], None):
        CChain.open(library, signed, backend_path=built / "tests/backends", public_key=given_key).close()
    with pytest.raises(InputError, match="public_key is 'nowhere'"):
        CChain.open(library, signed, backend_path=built / "tests/backends", public_key="nowhere")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from((*FILES, SIGNATURE_NAME)), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused_by_both(
    library: Library, built: Path, signed: Path, key: Path, name: str, place: float, bit: int
) -> None:
    path = signed / name
    whole = path.read_bytes()
    start = whole.index(b"\n") if name == SIGNATURE_NAME else 0  # an untrusted comment is not signed
    at = start + int(place * (len(whole) - start))
    public = key.with_suffix(".pub") if name == SIGNATURE_NAME else None
    flip(path, at, bit)
    try:
        if at == len(whole) - 1 and name == SIGNATURE_NAME:
            return  # the line feed behind the last letter
        with pytest.raises(BundleError):
            CChain.open(library, signed, backend_path=built / "tests/backends", public_key=public)
        if name in (FILE_NAME, SIGNATURE_NAME):
            with pytest.raises(BundleError):
                read_manifest(signed, public)
    finally:
        path.write_bytes(whole)


def test_a_forger_with_fitting_hashes_is_found(
    library: Library, built: Path, signed: Path, key: Path, tmp_path: Path
) -> None:
    forged = Path(shutil.copytree(signed, tmp_path / "forged"))
    rewrite(forged, lambda manifest: manifest.update(max_boxes=1))
    CChain.open(library, forged, backend_path=built / "tests/backends").close()
    with pytest.raises(BundleError, match="does not fit manifest.json and the key .the signature is wrong"):
        CChain.open(library, forged, backend_path=built / "tests/backends", public_key=key.with_suffix(".pub"))
    with pytest.raises(BundleError, match="it is of another key"):
        other = new_key(tmp_path / "other.key", None)
        CChain.open(library, signed, backend_path=built / "tests/backends", public_key=other)
    (forged / SIGNATURE_NAME).unlink()
    with pytest.raises(BundleError, match="is not signed"):
        CChain.open(library, forged, backend_path=built / "tests/backends", public_key=key.with_suffix(".pub"))


def test_every_file_is_opened_once(library: Library, shipped_bundle: Path, signed: Path, built: Path) -> None:
    with counted_opens(signed) as opens:
        CChain.open(library, signed, backend_path=built / "tests/backends").close()
    assert opens == dict.fromkeys(FILES, 1)
    if not (built / "prefix/lib/libedgekd_openvino.so").is_file():
        pytest.skip("OpenVINO's headers are not here, so the C library has no backend for it")
    with counted_opens(shipped_bundle) as opens:
        CChain.open(library, shipped_bundle).close()
    names = (f"{stage}.{suffix}" for stage in ("detector", "encoder", "decoder") for suffix in ("xml", "bin"))
    assert opens == dict.fromkeys((FILE_NAME, *names), 1)


def test_without_openssl_it_is_one_sentence(tmp_path: Path) -> None:
    """The file that stands in when OpenSSL is not found, compiled alone."""
    main = tmp_path / "main.cpp"
    main.write_text(
        '#include <cstdio>\n#include "error.h"\n#include "signature.h"\n'
        'int main() { try { edgekd::verify_signature("b/manifest.json", "", "key"); } '
        "catch (const edgekd::Error& error) { std::puts(error.what()); } }\n"
    )
    sources = (SOURCES / "src/signature.cpp", main)
    run("c++", "-std=c++17", f"-I{SOURCES}/src", f"-I{SOURCES}/include", *sources, "-o", tmp_path / "main")
    assert "was built without OpenSSL; install it (on Debian: apt install libssl-dev)" in run(tmp_path / "main")
