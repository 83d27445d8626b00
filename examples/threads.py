"""Run pictures on several threads: python threads.py BUNDLE PICTURE...

A chain serves one thread; its clones, which share the weights, serve the others.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import local

import edgekd

bundle, *pictures = sys.argv[1:]
own = local()

with edgekd.load(bundle, n_threads=1) as chain:

    def count_objects(path: str) -> int:
        """Run one picture on the clone of this thread, which shares the weights."""
        if not hasattr(own, "chain"):
            own.chain = chain.clone()
        return len(own.chain(edgekd.read_picture(path)))

    with ThreadPoolExecutor(2) as pool:
        for path, n_objects in zip(pictures, pool.map(count_objects, pictures), strict=True):
            print(f"{path}: {n_objects} objects")
