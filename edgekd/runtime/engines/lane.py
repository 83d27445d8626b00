"""One stream and one scratch buffer on the GPU, for engines that one thread runs one after the other.

The engines of a chain join one lane: what the encoder queues is done before the decoder starts, without a wait on the
host, and the scratch memory is that of the greediest plan instead of the sum over all plans and shapes.
"""

from __future__ import annotations

from edgekd.runtime.cuda_calls import Cuda


class Lane:
    """A stream and scratch memory; the last engine that leaves gives both back."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.stream = cuda.create_stream()
        self._n_users = 0
        self._wanted_bytes = 0
        self._buffers: list[tuple[int, int]] = []

    def join(self, scratch_bytes: int) -> None:
        """Count a user in, and what it wants at most."""
        self._n_users += 1
        self._wanted_bytes = max(self._wanted_bytes, scratch_bytes)

    def scratch(self) -> tuple[int, int]:
        """Return address and size of memory that is large enough for every engine that joined so far.

        It is allocated at the first call. Where a greedier engine joins later, a larger buffer is added and the old one
        stays, because recorded graphs hold its address.
        """
        if not self._buffers or self._buffers[-1][1] < self._wanted_bytes:
            n_bytes = max(self._wanted_bytes, 1)
            self._buffers.append((self._cuda.allocate(n_bytes), n_bytes))
        return self._buffers[-1]

    def leave(self) -> None:
        """Count a user out; after the last one stream and memory are given back."""
        self._n_users -= 1
        if self._n_users:
            return
        while self._buffers:
            self._cuda.free(self._buffers.pop()[0])
        self._cuda.destroy_stream(self.stream)
