"""Hostile inputs from good ones: bytes flipped, cut and repeated; JSON with wrong types, names, numbers and depths.

Everything random comes from the generator that is passed in, so that a number names an input for ever.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 65_536, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63, 10**40, 0.0, -0.0, 0.5,
    1e-320, 1e308, float("nan"), float("inf"), float("-inf"), "", " ", ".", "..", "/", "/etc/passwd", "../../x", "a/b",
    "a\x00b", "\ud800", "\u202e", "\x1b[31m", "a\nb", "NaN", "x" * 300, "detector.xml", "manifest.json", [], [[]],
    [None], [0] * 7, [[1e9, -1e9] * 4], {}, {"": {}}, {"$ref": "#"}, "__import__('os').system('touch pwned')",
    "$(touch pwned)", "; touch pwned",
)  # fmt: skip


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Change a few places of a file, or its length."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        place = random.randrange(len(changed) + 1)
        match random.randrange(6):
            case 0 if changed:
                changed[place % len(changed)] ^= 1 << random.randrange(8)
            case 1:
                changed[place:place] = random.randbytes(random.choice((1, 4, 64)))
            case 2:
                del changed[place : place + random.choice((1, 8, 100))]
            case 3:
                del changed[place:]
            case 4:
                changed[place:place] = changed[place : place + 200]
            case _:
                word = random.choice(
                    (b"-1", b"1e999", b"nan", b"\xff\xfe", b"\x00", b"9" * 30, b"<!ENTITY", b"!!python", b"\r\n")
                )
                changed[place : place + len(word)] = word
    return bytes(changed)


def mutate_json(data: bytes, random: Random) -> bytes:
    """Change a few values, names or places of a JSON text; the result is JSON in Python's wide sense."""
    tree = json.loads(data)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        tree = _change(tree, random, _depth(random))
    try:
        return json.dumps(tree).encode("utf-8", "surrogatepass")
    except RecursionError:
        return data[:1] + b"[" * 100_000 + data[1:]


def _depth(random: Random) -> int:
    return random.choice((0, 1, 2, 3, 4, 5, 6, 7))


def _change(tree: Any, random: Random, depth: int) -> Any:
    """A copy of the tree with one place changed, at most `depth` steps down."""
    if depth == 0 or not isinstance(tree, (dict, list)) or not tree:
        return random.choice(NASTY)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = random.choice(keys)
    copy = tree.copy()
    match random.randrange(8):
        case 0:
            del copy[key]
        case 1 if isinstance(copy, dict):
            copy[random.choice(("", "x", "format_version", "../x", str(key) + "s"))] = random.choice(NASTY)
        case 1:
            copy.append(random.choice(NASTY))
        case 2:
            copy[key] = tree[random.choice(keys)]
        case 3:
            for _ in range(random.choice((1, 50, 900))):
                copy[key] = [copy[key]]
        case _:
            copy[key] = _change(tree[key], random, depth - 1)
    return copy
