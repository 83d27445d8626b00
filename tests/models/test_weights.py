"""Names to files: nothing is fetched by itself, a wrong file is refused, offline is one sentence."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from edgekd.errors import InputError, ModelError
from edgekd.model_set import read_model_set
from edgekd.models import weights


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_unknown_and_absent_names_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known are yolo11n"):
        weights.resolve("yolo99")
    with pytest.raises(InputError, match="edgekd weights fetch yolo11n"):
        weights.resolve("yolo11n")
    with pytest.raises(InputError, match="does not exist"):
        weights.resolve("missing.pt")


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    path.touch()
    assert weights.resolve(str(path)) == path


def test_a_changed_file_in_the_cache_is_refused(cache: Path) -> None:
    entry = weights.named("yolo11n")
    cache.mkdir()
    entry.file.write_bytes(b"other")
    with pytest.raises(ModelError, match="sha256 differs"):
        weights.resolve("yolo11n")


def test_a_file_without_a_known_hash_says_so(cache: Path) -> None:
    entry = weights.named("tinysam")
    cache.mkdir()
    entry.file.write_bytes(b"anything")
    assert weights.verify(entry) is False


def test_offline_is_one_sentence_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str, timeout: float) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(InputError, match="cannot be reached .* copy it to") as caught:
        weights.fetch(weights.named("yolo11n"), lambda done, total: None)
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_another_file_than_published_is_not_kept(cache: Path, tmp_path: Path) -> None:
    published = tmp_path / "yolo11n.pt"
    published.write_bytes(b"wrong content")
    entry = weights.Weights("x", "detector", published.as_uri(), "0" * 64, "none")
    with pytest.raises(ModelError, match="sha256 differs"):
        weights.fetch(entry, lambda done, total: None)
    assert list(cache.iterdir()) == []


def test_a_download_is_kept(cache: Path, tmp_path: Path) -> None:
    published = tmp_path / "a.pt"
    published.write_bytes(b"content")
    entry = weights.Weights("x", "detector", published.as_uri(), None, "none")
    assert weights.fetch(entry, lambda done, total: None).read_bytes() == b"content"


def test_shipped_models_are_copied_at_the_size_that_was_asked_for(tmp_path: Path) -> None:
    copied = weights.copy_shipped(tmp_path / "m", None, (512, 512))
    assert (copied.pipeline.encoder_input.height_px, copied.pipeline.encoder_input.width_px) == (512, 512)
    assert read_model_set(tmp_path / "m").pipeline == copied.pipeline
