"""Compiled networks are kept: a kept one gives the same bits, a damaged or foreign one is not used, room is bounded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.runtime.engines import openvino_cache as module
from edgekd.runtime.engines.openvino import OpenVinoEngine
from edgekd.runtime.engines.openvino_cache import digest_of

openvino = pytest.importorskip("openvino")
Network = tuple[bytes, bytes]
IMAGES = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)


def network_of(factor: float, folder: Path) -> Network:
    """images (n, 3, h, w) -> times a factor, as the bytes of the two files."""
    from openvino import opset13 as ops

    images = ops.parameter([-1, 3, -1, -1], np.float32, name="images")
    product = ops.multiply(images, ops.constant(np.full((1, 3, 1, 1), factor, np.float32)))
    images.output(0).set_names({"images"})
    product.output(0).set_names({"product"})
    path = folder / "network.xml"
    openvino.save_model(openvino.Model([product], [images]), path, compress_to_fp16=False)
    return path.read_bytes(), path.with_suffix(".bin").read_bytes()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where networks are kept."""
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEKD_MODEL_CACHE", raising=False)
    return tmp_path / "cache" / "openvino"


@pytest.fixture
def n_compiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a network was compiled and not taken from the folder: each is kept at once."""
    kept: list[Any] = []
    plain = module._keep

    def counted(path: Path, compiled: Any) -> None:
        kept.append(path)
        plain(path, compiled)

    monkeypatch.setattr(module, "_keep", counted)
    return lambda: len(kept)


def product(network: Network, images: np.ndarray = IMAGES, n_threads: int = 1) -> np.ndarray:
    engine = OpenVinoEngine.open(Path("network.xml"), "fp32", n_threads, network)
    try:
        return engine.infer({"images": images})["product"].copy()
    finally:
        engine.close()


def test_the_second_time_nothing_is_compiled(tmp_path, folder, n_compiled):
    network = network_of(3, tmp_path)
    first = product(network)
    assert n_compiled() == 1
    np.testing.assert_array_equal(product(network), first)
    np.testing.assert_array_equal(first, IMAGES * 3)
    assert n_compiled() == 1
    assert [path.suffix for path in folder.iterdir()] == [".openvino"]
    assert folder.stat().st_mode & 0o77 == 0


def test_every_part_of_the_name_counts(tmp_path, folder, n_compiled):
    three, five = network_of(3, tmp_path), network_of(5, tmp_path)
    product(three)
    np.testing.assert_array_equal(product(five), IMAGES * 5)
    product(three, IMAGES[:, :, :2].copy())
    product(three, n_threads=2)
    assert n_compiled() == 4
    product(three, IMAGES[:1])  # the number of pictures stays open
    assert n_compiled() == 4


def test_the_files_of_a_network_are_told_apart():
    assert len({digest_of(parts) for parts in ((b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"c", b"ab"))}) == 4


@pytest.mark.parametrize("damage", [
    lambda content: content[:-1],
    lambda content: content[: len(content) // 2] + b"\x01" + content[len(content) // 2 + 1 :],
    lambda content: b"",
    lambda content: module.hashlib.sha256(b"not OpenVINO's").digest() + b"not OpenVINO's",
])  # fmt: skip
def test_a_damaged_one_is_compiled_again(tmp_path, folder, n_compiled, damage):
    network = network_of(3, tmp_path)
    product(network)
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(product(network), IMAGES * 3)
    assert n_compiled() == 2
    product(network)
    assert n_compiled() == 2


def test_a_folder_that_others_can_write_is_not_used(tmp_path, folder, n_compiled, caplog):
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    np.testing.assert_array_equal(product(network_of(3, tmp_path)), IMAGES * 3)
    assert n_compiled() == 0
    assert list(folder.iterdir()) == []
    assert f"chmod go-w {folder}" in caplog.text


def test_it_can_be_turned_off(tmp_path, folder, monkeypatch, n_compiled):
    monkeypatch.setenv("EDGEKD_MODEL_CACHE", "off")
    np.testing.assert_array_equal(product(network_of(3, tmp_path)), IMAGES * 3)
    assert n_compiled() == 0
    assert not folder.exists()


def test_what_cannot_be_kept_is_used_all_the_same(tmp_path, folder, monkeypatch):
    network = network_of(3, tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        np.testing.assert_array_equal(product(network), IMAGES * 3)
    assert list(folder.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(module, "bytes_of", lambda _: (_ for _ in ()).throw(MemoryError("no room")))
        np.testing.assert_array_equal(product(network), IMAGES * 3)
    assert list(folder.iterdir()) == []
    monkeypatch.setenv("EDGEKD_CACHE", "/proc/nowhere")
    np.testing.assert_array_equal(product(network), IMAGES * 3)


def test_a_user_without_a_home_folder_runs_networks_too(tmp_path, folder, monkeypatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("EDGEKD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    np.testing.assert_array_equal(product(network_of(3, tmp_path)), IMAGES * 3)


def test_those_unused_for_longest_are_removed(tmp_path, folder, monkeypatch, n_compiled):
    first, second, third = (network_of(factor, tmp_path) for factor in (2, 3, 4))
    product(first)
    product(second)
    size_bytes = max(path.stat().st_size for path in folder.iterdir())
    for age_s, path in enumerate(sorted(folder.iterdir(), key=lambda each: -each.stat().st_mtime)):
        os.utime(path, (path.stat().st_mtime - 60 - age_s,) * 2)
    product(first)  # now the last used
    monkeypatch.setattr(module, "MAX_BYTES", 2 * size_bytes + 50)
    product(third)
    assert n_compiled() == 3
    product(first)
    assert n_compiled() == 3
    product(second)
    assert n_compiled() == 4
