"""How words on the command line are read: sizes, lists, compute capabilities, and a group with a default command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

from edgekd.errors import InputError

if TYPE_CHECKING:
    from edgekd.runtime.large import LargeOptions
    from edgekd.runtime.results.writer import Format
    from edgekd.runtime.tiles import TileOptions


class DefaultGroup(TyperGroup):
    """A group with a command `default` that needs no name: `edgekd bench BUNDLE` beside `edgekd bench compare A B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the default command's help, with all its options, for the group's own."""
        return list(super().parse_args(ctx, ["default", "--help"] if not args or args == ["--help"] else args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take a first word that names no command as an argument of `default`, which is never typed."""
        if args and args[0] in self.commands and args[0] != "default":
            return super().resolve_command(ctx, args)
        rest = args[1:] if args[:1] == ["default"] else args
        return "", self.commands["default"], rest

    def list_commands(self, ctx: Any) -> list[str]:
        """List what the user may type."""
        return [name for name in super().list_commands(ctx) if name != "default"]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parse `640` or `1024x640` (width x height) into (height, width); None stays None.

    Raises:
        InputError: it is neither.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise InputError(f"the size is {text!r}, expected a side or WIDTHxHEIGHT in pixels, such as 640 or 1024x640")
    width, height = int(parts[0]), int(parts[-1])
    return height, width


def parse_numbers(text: str | None) -> tuple[int, ...]:
    """Parse `1,4,8` into numbers; None is none.

    Raises:
        InputError: a part is not a number.
    """
    if not text:
        return ()
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise InputError(f"the list is {text!r}, expected numbers with commas between them, such as 1,4,8")
    return tuple(int(part) for part in parts)


def parse_sm(text: str | None) -> str | None:
    """Parse `89`, `8.9` or `sm_89` into a compute capability "8.9"; None stays None.

    Raises:
        InputError: it is none of these.
    """
    if text is None:
        return None
    digits = text.lower().removeprefix("sm_").replace(".", "")
    if not digits.isdigit() or not 2 <= len(digits) <= 3:
        raise InputError(f"compute_capability is {text!r}, expected one such as 87 or 8.9")
    return f"{int(digits[:-1])}.{digits[-1]}"


def parse_names(text: str | None) -> tuple[str, ...]:
    """Parse `ship,bridge` into names; None is none."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def parse_shares(text: str | None) -> dict[str, float]:
    """Parse `ship=0.5,bridge=0.1` into numbers by name; None is none.

    Raises:
        InputError: a part is not name=number.
    """
    shares = {}
    for part in parse_names(text):
        name, _, number = part.rpartition("=")
        try:
            shares[name.strip()] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"{part!r} is not name=number, expected such as ship=0.5,bridge=0.1")
    return shares


def parse_formats(text: str | None, also_geojson: bool = False) -> tuple[Format, ...]:
    """Parse `coco,csv` into formats, each once.

    Raises:
        InputError: a part is not one.
    """
    from edgekd.runtime.results.writer import FORMATS

    names = [*parse_names(text), *(["geojson"] if also_geojson else [])]
    for name in names:
        if name not in FORMATS:
            raise InputError(f"formats names {name!r}, expected some of {', '.join(FORMATS)}")
    return tuple(each for each in FORMATS if each in names)


def parse_tiles(tile: str, object_px: int | None) -> TileOptions | None:
    """Read `off` (None), `auto` or the side of a tile.

    Raises:
        InputError: it is none of these.
    """
    from edgekd.runtime.tiles import TileOptions

    if tile == "off":
        return None
    if tile != "auto" and not tile.isdecimal():
        raise InputError(f"tile is {tile}, expected off, auto or the side of a tile in pixels, such as 640")
    return TileOptions(tile_px=int(tile) if tile.isdecimal() else None, object_px=object_px)


def parse_large(tile: str, object_px: int | None, bands: str, stretch: str) -> LargeOptions:
    """Read words such as `auto` or `640`, `4,3,2` and `0,3000`; empty bands and stretch are the file's own.

    Raises:
        InputError: a word is none of these.
    """
    from edgekd.runtime.large import LargeOptions
    from edgekd.runtime.windows import BandOptions

    if tile not in ("auto", "off") and not tile.isdecimal():
        raise InputError(f"tile is {tile}, expected off, auto or the side of a tile in pixels, such as 640")
    try:
        numbers = tuple(int(text) for text in bands.split(",")) if bands else None
    except ValueError as error:
        raise InputError(f"bands is {bands}, expected numbers with commas, such as 4,3,2") from error
    try:
        values = tuple(float(text) for text in stretch.split(",")) if stretch else None
    except ValueError as error:
        raise InputError(f"stretch is {stretch}, expected two numbers, such as 0,3000") from error
    if values is not None and len(values) != 2:
        raise InputError(f"stretch is {stretch}, expected two numbers, such as 0,3000")
    return LargeOptions(
        tile=int(tile) if tile.isdecimal() else "off" if tile == "off" else "auto",
        object_px=object_px,
        bands=BandOptions(bands=numbers, stretch=(values[0], values[1]) if values else None),
    )


def parse_device(name: str) -> str:
    """Read `cpu` or `cuda`; empty is cuda where PyTorch finds a GPU.

    Raises:
        InputError: it is neither.
        BackendUnavailable: there is no GPU.
    """
    import torch

    from edgekd.errors import BackendUnavailable

    if name not in ("", "cpu", "cuda"):
        raise InputError(f"device is {name!r}, expected cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("device is cuda, but PyTorch finds no GPU here; use cpu.")
    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def parse_shape(text: str) -> tuple[int, int, int, int]:
    """'8,256,80,80' to the shape of a map. Raises InputError."""
    sizes = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if len(sizes) != 4 or min(sizes) < 1:
        raise InputError(f"shape is {text!r}, expected four positive integers N,C,H,W such as 8,256,80,80")
    n, channels, height, width = sizes
    return n, channels, height, width
