"""Run a camera, an address or a video until it ends: python camera.py BUNDLE SOURCE OUTPUT.jsonl [FRAMES]."""

import json
import sys

import edgekd
from edgekd.runtime.streams import Stream

bundle, source, output = sys.argv[1:4]  # a camera is its number, such as 0
most_frames = int(sys.argv[4]) if len(sys.argv) > 4 else None

# A live source is read in a thread of its own: the chain gets the newest frame, and those that come too fast are left.
with edgekd.load(bundle) as chain, Stream(source) as stream, open(output, "w") as lines:
    for frame in stream:
        result = chain(frame.picture)
        names = [result.class_names[class_id] for class_id in result.detections.class_id]
        boxes = result.detections.xyxy.round(1).tolist()
        lines.write(json.dumps({"frame": frame.index, "names": names, "boxes": boxes}) + "\n")
        print(f"frame {frame.index}: {len(result)} objects, {result.times_ms['total']:.0f} ms", flush=True)
        if most_frames is not None and frame.index + 1 >= most_frames:
            break
