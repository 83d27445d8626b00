"""A camera on the loopback: an HTTP server that sends JPEG frames, and can stall, cut, or send garbage."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import cv2
import numpy as np


class MjpegServer:
    """Frame i is grey of value i % 200 with a white square; `mode` is `send`, `stall`, `cut` or `garbage`."""

    def __init__(self, fps: float = 50.0) -> None:
        self.mode, self.fps, self.n_sent = "send", fps, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._serve(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/camera.mjpg"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> MjpegServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.mode = "cut"
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        if self.mode == "cut":
            request.send_error(503)
            return
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        try:
            while self.mode != "cut":
                if self.mode == "send":
                    request.wfile.write(self._part())
                elif self.mode == "garbage":
                    request.wfile.write(np.random.default_rng(0).bytes(5000))
                time.sleep(1 / self.fps)
        except OSError:
            pass

    def _part(self) -> bytes:
        picture = np.full((96, 128, 3), self.n_sent % 200, np.uint8)
        picture[20:50, 30:70] = 255
        self.n_sent += 1
        data = cv2.imencode(".jpg", picture)[1].tobytes()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
        return head.encode() + data + b"\r\n"
