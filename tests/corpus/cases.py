"""One corpus for Python and C: manifests that are right, and manifests that are wrong in one place each.

    python tests/corpus/cases.py FOLDER     writes every case as a file, for a fuzzer to start from

Everything comes from one valid manifest; a case is its name, its bytes, and the class of reason it is refused for:
None (accepted), `damaged` (not JSON, or not a description of a bundle), `newer` (a format or kind of the future),
`path` (a file name that leads out of the folder), `changed` (a digest that does not fit).
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One manifest."""

    name: str
    content: bytes
    reason: str | None


def full(manifest: Json) -> Json:
    """A manifest with every optional part in place."""
    whole = copy.deepcopy(manifest)
    file = {"name": "known_answer.png", "sha256": "0" * 64, "n_bytes": 1}
    known = {"xyxy": [0.0, 0, 1.5, 2], "class_id": 0, "confidence": 0.5, "predicted_iou": 1, "mask": "0f" * 1200}
    gate = {"passed": True, "measured": {"box_ap": 1}, "limits": {"box_ap": 0.5}, "n_images": 3, "float_layers": ["a"]}
    whole |= {"kind": "sam", "notes": ["built"], "gate": gate, "format_version": 2}
    whole["known_answer"] = {"picture": file, "found": [known], "given": []}
    whole["target"] |= {"compute_capability": None, "n_multiprocessors": None}
    whole["pipeline"]["head"]["n_coefficients"] = 0
    whole["pipeline"]["detector_input"]["smaller_sizes_px"] = [[16, 32]]
    whole["pipeline"] |= {"crop": None, "trained_scale": 0.5}
    whole["pipeline"]["head"] |= {"name": "detect", "angle": "sigmoid"}
    for stage in whole["stages"].values():
        stage |= {"float_precision": None, "calibration": {"target": "cpu"}}
        stage["source"]["trained"] = True
    return whole


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value below an object; of a list its first entry."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(manifest: Json, path: tuple[Any, ...], value: Any) -> bytes:
    """The manifest with another value at a place."""
    whole = copy.deepcopy(manifest)
    at: Any = whole
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return json.dumps(whole).encode()


OPTIONAL = {
    ("format_version",), ("kind",), ("notes",), ("gate",), ("known_answer",), ("box_buckets",),
    ("gate", "float_layers"), ("known_answer", "given"), ("pipeline", "head", "n_coefficients"),
    ("pipeline", "head", "name"), ("pipeline", "head", "angle"), ("pipeline", "trained_scale"),
    ("pipeline", "crop"), ("pipeline", "prompt"), ("pipeline", "detector_input", "smaller_sizes_px"),
    ("target", "compute_capability"), ("target", "n_multiprocessors"),
}  # fmt: skip
MAPS = {("gate", "measured"), ("gate", "limits")}


def missing(manifest: Json) -> Iterator[Case]:
    """Every part left out, and every part under a name that no manifest has."""
    for path in places(manifest):
        if isinstance(path[-1], int) or path[:-1] in MAPS or path[-2:-1] == ("calibration",):
            continue
        if len(path) > 2 and path[0] == "stages" and path[1] != "detector":
            continue
        whole = copy.deepcopy(manifest)
        at: Any = whole
        for key in path[:-1]:
            at = at[key]
        value = at.pop(path[-1])
        may_lack = path in OPTIONAL or path[-1] in ("float_precision", "calibration", "trained")
        yield Case(f"without {words(path)}", json.dumps(whole).encode(), None if may_lack else "damaged")
        if len(path) > 1 and path[:-1] == ("stages",):
            continue
        at[f"{path[-1]}_"] = value
        yield Case(f"with {words(path)}_", json.dumps(whole).encode(), "damaged")


def wrong_types(manifest: Json) -> Iterator[Case]:
    """Every value of another type: a number as text, text as a list, a boolean as a number."""
    for path in places(manifest):
        if len(path) > 1 and path[0] == "stages" and path[1] != "detector":
            continue
        at: Any = manifest
        for key in path:
            at = at[key]
        if path[-2:-1] == ("shape",):  # a number or the name of an axis
            continue
        other: Any = {} if isinstance(at, (str, list)) or at is None else "1" if isinstance(at, (int, float)) else [at]
        yield Case(f"{words(path)} of another type", changed(manifest, path, other), "damaged")


def words(path: tuple[Any, ...]) -> str:
    """A path as text."""
    return ".".join(str(part) for part in path)


HEAD, DETECTOR = ("pipeline", "head"), ("pipeline", "detector_input")
FILE = ("stages", "detector", "files", 0)
TENSOR = ("stages", "detector", "inputs", 0)
VALUES: tuple[tuple[tuple[Any, ...], tuple[Any, ...], str | None], ...] = (
    (("format_version",), (1, 2), None),
    (("format_version",), (0, -1, 2.0, True, None, "2"), "damaged"),
    (("format_version",), (4, 99, 2**31, 2**63), "newer"),
    (("kind",), ("fastsam", "SAM", "", "x" * 300), "newer"),
    (("kind",), ("crop", "yolo-seg", None, 1, ["sam"]), "damaged"),
    (("backend",), ("abacus", "", "OpenVINO", None), "damaged"),
    (("max_boxes",), (1, 4096), None),
    (("max_boxes",), (0, -1, 4097, 10**40, 300.0, True, "300", None), "damaged"),
    (("box_buckets",), ([], [1], [1, 2, 4096], list(range(1, 65))), None),
    (("box_buckets",), ([0], [-1], [4, 1], [1, 1], [4097], list(range(1, 66)), [1.0], ["1"], {}, None), "damaged"),
    ((*HEAD, "strides_px"), ([8], [8, 16, 32, 64]), None),
    ((*HEAD, "strides_px"), ([], [0], [-8], [8193], [8.0], [8] * 9, "8", [None]), "damaged"),
    ((*HEAD, "reg_max"), (0, 65, -1, 1e300, 16.5), "damaged"),
    ((*HEAD, "n_coefficients"), (32, -1, 257, None), "damaged"),
    ((*HEAD, "end2end"), (0, 1, "true", None), "damaged"),
    ((*DETECTOR, "height_px"), (0, -32, 8193, 32.0, 2**64), "damaged"),
    ((*DETECTOR, "place"), ("center", "", "CENTRE"), "damaged"),
    ((*DETECTOR, "interpolation"), ("cubic", None), "damaged"),
    ((*DETECTOR, "std"), ([1, 1, 1], [0.5, -1, 1e-9]), None),
    ((*DETECTOR, "std"), ([0, 1, 1], [1, 1, 0.0], [1, 1], [1, 1, 1, 1], ["1", 1, 1], [True, 1, 1]), "damaged"),
    ((*DETECTOR, "mean"), ([1e308, 0, 0], [-5, 0, 0.25]), None),
    ((*DETECTOR, "mean"), ([None, 0, 0], [[0], 0, 0], "0 0 0"), "damaged"),
    ((*DETECTOR, "smaller_sizes_px"), ([], [[1, 1]], [[32, 32]] * 64), None),
    (
        (*DETECTOR, "smaller_sizes_px"),
        ([[0, 1]], [[33, 1]], [[16]], [[16, 16, 16]], [16, 16], "16x16", [[32, 32]] * 65, [[16.0, 16]]),
        "damaged",
    ),
    ((*HEAD, "name"), ("", "segment", None), "damaged"),
    ((*HEAD, "angle"), ("degrees", None, 0), "damaged"),
    (("pipeline", "trained_scale"), (1e-9, 1, 64, None), None),
    (("pipeline", "trained_scale"), (0, -1, 64.5, "1", []), "damaged"),
    (("pipeline", "prompt"), ("box", "box+centre", None), None),
    (("pipeline", "prompt"), ("points", "", 1), "damaged"),
    (("pipeline", "encoder_input"), (None, {}), "damaged"),
    (
        ("pipeline", "crop"),
        ({"side_px": 64, "window_factor": 1.3, "pad": [0, 0, 0]}, {}, {"side_px": 4}),
        "damaged",
    ),
    (("pipeline", "class_names"), ([], ["ship"], ["Schiff \u00e4", "\u8239", "a" * 5000]), None),
    (
        ("pipeline", "class_names"),
        (["\x1b[31m"], ["a\nb"], ["\x7f"], ["\x85"], ["a\0b"], [1], [None], "ship", {"0": "ship"}),
        "damaged",
    ),
    (("notes",), ([], ["a"] * 500), None),
    (("notes",), (["a\tb"], [1], "a", None), "damaged"),
    (("created",), ("", "never"), None),
    (("target", "n_multiprocessors"), (1, 16, None), None),
    (("target", "n_multiprocessors"), (0, -1, 2**31, 1.0, "16"), "damaged"),
    (("target", "compute_capability"), (8.7, 87, []), "damaged"),
    (("stages",), ({}, [], None), "damaged"),
    ((*FILE, "name"), ("../x", "/etc/passwd", "a/b", ".", "..", "", "./a", "a/", "//"), "path"),
    ((*FILE, "name"), ("a\0b", "a\nb", None, 1), "damaged"),
    ((*FILE, "name"), ("a\\b", "a b", "...", "\u00e4.bin", "a" * 300), None),
    ((*FILE, "n_bytes"), (0, 16 << 30), None),
    ((*FILE, "n_bytes"), (-1, (16 << 30) + 1, 2**63, 1.5, 9.0, "9"), "damaged"),
    (("stages", "detector", "files"), ([], None, {}), "damaged"),
    (("stages", "detector", "precision"), ("fp32", "bf16", "fp16", "int8"), None),
    (("stages", "detector", "precision"), ("fp64", "FP32", None), "damaged"),
    (("stages", "detector", "float_precision"), ("fp32", "bf16", None), None),
    (("stages", "detector", "float_precision"), ("fp16", "int8", ""), "damaged"),
    (("stages", "detector", "calibration"), (None, {}, {"target": "cpu"}), None),
    (("stages", "detector", "calibration"), ({"target": 1}, ["cpu"], "cpu"), "damaged"),
    (("stages", "detector", "inputs"), ([], None), "damaged"),
    ((*TENSOR, "dtype"), ("float16", "int64", "uint8", "double", None), "damaged"),
    ((*TENSOR, "shape"), ([], [1], ["n", 3, 0], [2**31 - 1], [1] * 8), None),
    ((*TENSOR, "shape"), ([-1], [2**31], [1.0], [None], [[1]], [1] * 9, "1x3"), "damaged"),
    (("gate",), (None,), None),
    (("gate", "n_images"), (-1, 1.5, 2**31), "damaged"),
    (("gate", "measured"), ({}, {"a": -1e9}), None),
    (("gate", "measured"), ({"a": None}, {"a": "1"}, {"a": True}, []), "damaged"),
    (("known_answer",), (None,), None),
    (("known_answer", "picture", "name"), ("../x.png", "", "a/b.png"), "path"),
    (("known_answer", "found"), ([], [{}], None), None),
    (("known_answer", "found", 0, "xyxy"), ([0, 0, 1], [0] * 5, [0, 0, 1, "1"]), "damaged"),
    (("known_answer", "found", 0, "mask"), ("", "0" * 2399, "F" * 2400, "g" * 2400), "damaged"),
    (("known_answer", "found", 0, "class_id"), (-1, 2**31, 0.0), "damaged"),
)  # fmt: skip


def values(manifest: Json) -> Iterator[Case]:
    """Numbers and texts at and beyond their limits."""
    for path, several, reason in VALUES:
        for index, value in enumerate(several):
            expected = "damaged" if path == ("known_answer", "found") and index else reason
            yield Case(f"{words(path)} {value!r:.40} ({index})", changed(manifest, path, value), expected)


def texts(manifest: Json) -> Iterator[Case]:
    """Files that are not JSON, or JSON that two readers may read in two ways."""
    good = json.dumps(manifest)
    number = '"max_boxes": 300'
    assert number in good
    yield from (
        Case("empty", b"", "damaged"),
        Case("a space", b" ", "damaged"),
        Case("null", b"null", "damaged"),
        Case("a number", b"1", "damaged"),
        Case("a list", b"[]", "damaged"),
        Case("an empty object", b"{}", "damaged"),
        Case("truncated", good[:-1].encode(), "damaged"),
        Case("something behind", good.encode() + b"{}", "damaged"),
        Case("a line behind", good.encode() + b"\n\n", None),
        Case("spaces in front", b" \t\r\n" + good.encode(), None),
        Case("a zero behind", good.encode() + b"\0", "damaged"),
        Case("a mark of byte order", b"\xef\xbb\xbf" + good.encode(), "damaged"),
        Case("UTF-16", good.encode("utf-16"), "damaged"),
        Case("not UTF-8", good.replace("dark", "d\udcffrk").encode(errors="surrogateescape"), "damaged"),
        Case("overlong UTF-8", good.encode().replace(b"dark", b"\xc0\xaf"), "damaged"),
        Case("a surrogate in UTF-8", good.encode().replace(b"dark", b"\xed\xa0\x80"), "damaged"),
        Case("half a surrogate", good.replace("dark", "\\ud800").encode(), "damaged"),
        Case("two surrogates", good.replace("dark", "\\ud83d\\udea2").encode(), None),
        Case("an escaped zero", good.replace("dark", "\\u0000").encode(), "damaged"),
        Case("an escaped control character", good.replace("dark", "\\u001b[2J").encode(), "damaged"),
        Case("a raw control character", good.replace("dark", "a\x01b").encode(), "damaged"),
        Case("NaN", good.replace(number, '"max_boxes": NaN').encode(), "damaged"),
        Case("NaN in a mean", changed(manifest, (*DETECTOR, "mean"), [float("nan"), 0, 0]), "damaged"),
        Case("infinity in a std", changed(manifest, (*DETECTOR, "std"), [float("inf"), 1, 1]), "damaged"),
        Case("a huge exponent", good.replace(number, '"max_boxes": 1e999').encode(), "damaged"),
        Case("5,000 digits", good.replace(number, '"max_boxes": 3' + "0" * 5000).encode(), "damaged"),
        Case("a leading zero", good.replace(number, '"max_boxes": 0300').encode(), "damaged"),
        Case("a plus", good.replace(number, '"max_boxes": +300').encode(), "damaged"),
        Case("minus zero", good.replace(number, '"max_boxes": -0').encode(), "damaged"),
        Case("hexadecimal", good.replace(number, '"max_boxes": 0x10').encode(), "damaged"),
        Case("a comment", good.replace(number, number + " /* all */").encode(), "damaged"),
        Case("a comma at the end", (good[:-1] + ",}").encode(), "damaged"),
        Case("single quotes", good.replace('"', "'").encode(), "damaged"),
        Case("a name twice", good.replace(number, number + ", " + number).encode(), "damaged"),
        Case("a name twice, inside", good.replace('"os":', '"os": "linux", "os":').encode(), "damaged"),
        Case("a name twice, escaped", good.replace(number, number + ', "\\u006dax_boxes": 5').encode(), "damaged"),
        Case("an unknown name", good.replace(number, number + ', "__proto__": {}').encode(), "damaged"),
        Case("deep lists", b"[" * 100_000, "damaged"),
        Case("deep lists inside", good.replace(number, '"max_boxes": ' + "[" * 900 + "]" * 900).encode(), "damaged"),
        Case("deep objects", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "damaged"),
        Case("four megabytes of spaces", b" " * (4 << 20) + good.encode(), "damaged"),
    )


def digests(manifest: Json) -> Iterator[Case]:
    """The sha256 of the manifest itself."""
    blank = json.dumps({"digest": "0" * 64} | manifest)
    digest = hashlib.sha256(blank.encode()).hexdigest()
    good = blank.replace("0" * 64, digest, 1).encode()
    yield Case("a digest", good, None)
    yield Case("a digest of another file", good.replace(b'"max_boxes": 300', b'"max_boxes": 301'), "changed")
    yield Case("a wrong digest", blank.replace("0" * 64, "1" * 64, 1).encode(), "changed")
    escaped = f"\\u{ord(digest[0]):04x}{digest[1:]}"
    yield Case("a digest in escapes", good.replace(digest.encode(), escaped.encode()), "changed")
    yield Case("a digest of null", changed(manifest | {"digest": ""}, ("digest",), None), None)
    for value in ("", "0" * 63, "0" * 65, "G" * 64, "A" * 64, 1, []):
        yield Case(f"a digest like {value!r:.70}", changed(manifest | {"digest": ""}, ("digest",), value), "damaged")


def all_cases(manifest: Json) -> list[Case]:
    """Every case of a valid manifest of the kind `sam` with sides of 32 px, the class `dark` and 300 boxes."""
    whole = full(manifest)
    accepted = [Case("as it is", json.dumps(manifest).encode(), None), Case("whole", json.dumps(whole).encode(), None)]
    parts = (missing(whole), wrong_types(whole), values(whole), texts(whole), digests(whole))
    return [*accepted, *(case for part in parts for case in part)]


def valid_manifest() -> Json:
    """The manifest of the C tests, for this machine."""
    import platform
    import re

    from edgekd.capi.build import SOURCES

    text = (SOURCES / "tests/bundle.json.in").read_text().replace("@CMAKE_SYSTEM_PROCESSOR@", platform.machine())
    manifest: Json = json.loads(re.sub("@([A-Z0-9_]+)@", "0" * 64, text))
    return manifest


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(all_cases(valid_manifest())):
        (folder / f"{number:04}.json").write_bytes(case.content)
