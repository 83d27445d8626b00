"""An archive on a local cluster of two workers, one of which is killed; broken rows; tiles that are joined."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from perfect_chain import PerfectChain, draw

from edgekd.errors import InputError
from edgekd.integrations.ray import ArchiveOptions, TileWorker, cut_picture, join_tiles, map_bundle
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.tiled_chain import TiledChain
from edgekd.runtime.tiles import TileOptions

# Ray warns of its own settings and leaves its sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
TILES = TileOptions(128, 40)
N_PICTURES = 24


@pytest.fixture
def archive(tmp_path: Path, scene: np.ndarray) -> list[str]:
    (tmp_path / "archive").mkdir()
    paths = [tmp_path / f"archive/{index:02d}.png" for index in range(N_PICTURES)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), scene[:320, index : index + 320])
    paths[3].write_text("not a picture")
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'edgekd[ray]'")
    pytest.importorskip("ray.data", reason="ray[data] is not installed: pip install 'edgekd[ray]'")
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_a_worker_that_is_killed_loses_no_picture(cluster: Any, archive: list[str], shipped_bundle: Path) -> None:
    rows = cluster.data.from_items(
        [{"path": path, "scene": "yard"} for path in archive], override_num_blocks=N_PICTURES
    )
    found: list[dict[str, Any]] = []
    for row in map_bundle(rows, shipped_bundle, ArchiveOptions(chain=ChainOptions(masks=False))).iter_rows():
        found.append(row)
        if len(found) == 2:
            os.kill(row["worker"], signal.SIGKILL)
    assert sorted(row["path"] for row in found) == archive and {row["scene"] for row in found} == {"yard"}
    broken = [row for row in found if row["reason"]]
    assert [row["path"] for row in broken] == [archive[3]] and "is not a picture" in broken[0]["reason"]
    with Chain.open(shipped_bundle, 1) as chain:
        for row in found[:3]:
            if not row["reason"]:
                assert row["n_objects"] == len(chain.detect(cv2.imread(row["path"])))
    assert len({row["worker"] for row in found}) >= 2


def test_tiles_go_to_workers_and_come_back_joined(cluster: Any, archive: list[str], shipped_bundle: Path) -> None:
    wanted = ArchiveOptions(chain=ChainOptions(masks=False), tiles=TileOptions(240, 64))
    with pytest.raises(InputError, match="3 workers of 1 threads take all 3 CPUs of the cluster"):
        map_bundle(None, shipped_bundle, replace(wanted, workers=3))
    rows = cluster.data.from_items([{"path": path} for path in archive[2:5]])
    found = {row["path"]: row for row in map_bundle(rows, shipped_bundle, wanted).iter_rows()}
    assert sorted(found) == archive[2:5]
    assert "1 of 1 tiles could not be read" in found[archive[3]]["reason"]
    objects = json.loads(found[archive[2]]["objects"])
    with Chain.open(shipped_bundle, 1) as chain:
        alone = TiledChain(chain, TileOptions(240, 64)).detect(cv2.imread(archive[2]))
    assert found[archive[2]]["n_objects"] == len(objects) == len(alone) > 0
    np.testing.assert_allclose([each["xyxy"] for each in objects], alone.xyxy, atol=0.01)


def look(path: Path, monkeypatch: pytest.MonkeyPatch, masks: bool = True) -> dict[str, list[Any]]:
    """The steps of a mapping over tiles, without Ray."""
    chain = PerfectChain()
    monkeypatch.setattr(Chain, "open", lambda folder, n_threads: chain)
    worker = TileWorker(Path("b"), ArchiveOptions(chain=ChainOptions(masks=masks), tiles=TILES))
    rows = [worker(row) for row in cut_picture({"path": path}, chain.manifest.pipeline, TILES)]
    group = {name: np.array([row[name] for row in rows], object) for name in rows[0]}
    return join_tiles(group, chain.manifest.pipeline.class_names, masks)


@pytest.mark.parametrize("masks", [True, False])
def test_joined_tiles_are_the_whole_picture(masks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, _ = draw((300, 400), 30)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    joined = look(tmp_path / "a.png", monkeypatch, masks)
    objects = json.loads(joined["objects"][0])
    whole = PerfectChain()(picture).detections.xyxy
    assert joined["n_objects"] == [len(objects)] and joined["reason"] == [""]
    assert {tuple(entry["xyxy"]) for entry in objects} == {tuple(box) for box in whole.tolist()}
    assert all(("mask" in entry) == masks for entry in objects)


def test_a_picture_that_cannot_be_opened_is_a_row_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = look(tmp_path / "missing.png", monkeypatch)
    assert joined["objects"] == ["[]"] and "missing.png does not exist" in joined["reason"][0]
    with pytest.raises(InputError, match="workers is 0"):
        ArchiveOptions(workers=0)
