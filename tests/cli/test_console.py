"""What the command line shows while it works."""

from __future__ import annotations

import threading

from edgekd.cli.console import StepBar, TileBar
from edgekd.runtime.mosaic import TileReport
from edgekd.train.finetune.averaged import Stage


def test_bars_draw_without_a_thread_of_their_own() -> None:
    n_threads = threading.active_count()
    with StepBar(3) as steps:
        steps.show(Stage(1, 3), 0, {"total": 1.0})
        assert threading.active_count() == n_threads
    with TileBar() as tiles:
        tiles.show(TileReport(index=0, n_tiles=2, window=(0, 0, 8, 8), n_objects=0, state="run"))
        assert threading.active_count() == n_threads
