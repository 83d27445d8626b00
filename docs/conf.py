"""Settings of the documentation site: Markdown pages, and a reference made from docstrings and `--help`.

Sphinx is used because it reads docstrings and the command line itself, turns every broken link into a warning, and
`-W` makes each warning an error: `make docs`.
"""

import subprocess
import sys
from pathlib import Path

from sphinx.application import Sphinx

import edgekd

project = "edgekd"
author = "The edgekd authors"
copyright = "the edgekd authors, Apache-2.0"
release = edgekd.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"edgekd {release}"
html_static_path: list[str] = []
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_ivar = True
myst_heading_anchors = 3
# Type names such as Float32Array are aliases that have no page of their own.
nitpicky = False


def _write_command_reference(app: Sphinx) -> None:
    """Write `reference/commands.md` from the command line itself, through Typer's own documentation command."""
    page = Path(app.srcdir) / "reference/commands.md"
    command = [sys.executable, "-m", "typer", "edgekd.cli.main", "utils", "docs", "--name", "edgekd"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    page.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Make the command reference before the pages are read."""
    app.connect("builder-inited", _write_command_reference)
