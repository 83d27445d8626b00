"""`edgekd sign` and `edgekd new-key`: who made a bundle, so that a device can refuse every other one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sign(
    bundle: Annotated[Path, typer.Argument(help="bundle written by build-engine")],
    key: Annotated[Path, typer.Option(help="secret key, from edgekd new-key or minisign -G")],
) -> None:
    """Sign a bundle; edgekd, the C library and minisign verify it with the public key.

    The signature is that of the manifest, which has the size and sha256 of every other file; they are compared first.
    A bundle that is built again loses its signature.
    """
    from edgekd.bundle import FILE_NAME, check_files, read_manifest
    from edgekd.cli.console import out
    from edgekd.signature import sign as sign_file

    check_files(bundle, read_manifest(bundle))
    signature = sign_file(bundle / FILE_NAME, key, lambda: str(typer.prompt("password", hide_input=True, err=True)))
    out.print(f"{signature} signs {FILE_NAME}, which has the hashes of all other files")
    out.print(f"next: edgekd run {bundle} PICTURES --require-signature {key.with_suffix('.pub')}")


def new_key(
    output: Annotated[Path, typer.Option("-o", "--output", help="file of the secret key, such as edgekd.key")],
    password: Annotated[bool, typer.Option(help="ask for a password that encrypts the secret key")] = True,
) -> None:
    """Make a pair of keys: the secret one signs bundles, the public one goes to the devices."""
    from edgekd.cli.console import out
    from edgekd.signature import new_key as make

    words = str(typer.prompt("password", hide_input=True, confirmation_prompt=True, err=True)) if password else None
    public = make(output, words)
    out.print(f"{output}  keep it secret: whoever has it can sign bundles")
    out.print(f"{public}  copy it to the devices: {public.read_text().splitlines()[1]}")
