"""Signatures of bundles: Ed25519 in the format of minisign, over the bytes of a manifest.

A manifest holds size and sha256 of every other file that a bundle is opened from, so its signature covers all of them.
The library is py-minisign, on the cryptography of the Python Cryptographic Authority: the format and the keys are those
of the program `minisign`, which can sign and verify the same files, and no own code touches a key.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekd.errors import BackendUnavailable, BundleError, InputError, first_line
from edgekd.files import atomic_file, is_file, write_bytes

SUFFIX = ".minisig"
KEY_TEXT_LENGTH = 56  # two bytes of algorithm, eight of the key's number, 32 of the key, in base64
_MAX_BYTES = 4096


def new_key(path: Path, password: str | None) -> Path:
    """Make a pair of keys.

    Args:
        path: file of the secret key, readable by its owner alone; it must not be there yet.
        password: encrypts the secret key; None leaves it open to whoever can read the file.

    Returns:
        The file of the public key, `path` with the suffix `.pub`.

    Raises:
        InputError: one of the files is there already, or cannot be written.
        BackendUnavailable: py-minisign is not installed.
    """
    minisign = _library()
    public = path.with_suffix(".pub")
    for file in (path, public):
        if file.exists():
            raise InputError(f"{file} is there already, expected a new name: a lost key cannot be had again")
    pair = minisign.KeyPair.generate()
    public_text = bytes(pair.public_key)
    if password is not None:
        pair.secret_key.encrypt(password)
    write_bytes(public, public_text + b"\n")
    with atomic_file(path, mode=0o600) as temporary:
        temporary.write_bytes(bytes(pair.secret_key) + b"\n")
        pair.secret_key.wipe()
    return public


def sign(path: Path, key: Path, password: Callable[[], str]) -> Path:
    """Sign a file.

    Args:
        path: what is signed.
        key: file of a secret key, from `new_key` or from `minisign -G`.
        password: called when the key is encrypted.

    Returns:
        The signature, `path` with `.minisig` added; an old one is replaced.

    Raises:
        InputError: the key cannot be read, or the password is another one.
        BackendUnavailable: py-minisign is not installed.
    """
    minisign = _library()
    try:
        with minisign.SecretKey.from_bytes(_bytes_of(key, "a secret key")) as secret:
            if secret.is_encrypted():
                secret.decrypt(password())
            signature = secret.sign(path.read_bytes(), trusted_comment=f"edgekd {path.name}")
    except (minisign.Error, ValueError) as error:
        raise InputError(
            f"{key} cannot sign ({first_line(error)}), expected a secret key of minisign and its password; "
            "make one with: edgekd new-key -o edgekd.key"
        ) from error
    target = path.with_name(path.name + SUFFIX)
    write_bytes(target, bytes(signature) + b"\n")
    return target


def verify(path: Path, content: bytes, public_key: str | Path) -> None:
    """Compare bytes that were read from `path` with the signature beside it.

    Args:
        path: where the bytes come from; the file is not read again.
        content: the bytes.
        public_key: the file of a public key, or its 56 letters.

    Raises:
        BundleError: the signature is missing, or belongs to another key or to other bytes.
        InputError: the public key cannot be read.
        BackendUnavailable: py-minisign is not installed.
    """
    minisign = _library()
    key = _public_key(public_key)
    beside = path.with_name(path.name + SUFFIX)
    if not is_file(beside):
        raise BundleError(f"{path.parent} is not signed (no {beside.name}); sign it with: edgekd sign {path.parent}")
    try:
        key.verify(content, minisign.Signature.from_bytes(_bytes_of(beside, "a signature")))
    except (minisign.Error, InputError, ValueError) as error:
        raise BundleError(
            f"{beside} does not fit {path.name} and the key ({first_line(error)}); "
            "get the bundle again, or the public key of who signed it"
        ) from error


def _public_key(given: str | Path) -> Any:
    minisign = _library()
    text = os.fspath(given)
    try:
        if len(text) == KEY_TEXT_LENGTH and text.startswith("RW"):
            return minisign.PublicKey.from_base64(text)
        return minisign.PublicKey.from_bytes(_bytes_of(Path(text), "a public key"))
    except (minisign.Error, ValueError) as error:
        raise InputError(
            f"public_key is {text!r}, which cannot be read ({first_line(error)}), expected the file that "
            "edgekd new-key wrote, or its 56 letters"
        ) from error


def _bytes_of(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}), expected {what}") from error
    if len(content) > _MAX_BYTES:
        raise InputError(f"{path} has more than {_MAX_BYTES} bytes, expected {what}")
    return content


def _library() -> Any:
    try:
        import minisign
    except ImportError as error:
        raise BackendUnavailable(
            f"py-minisign cannot be imported ({error}) and signatures need it; "
            "install it with: pip install 'edgekd[sign]'"
        ) from error
    return minisign
