"""Run one picture: python one_picture.py BUNDLE PICTURE OUTPUT_FOLDER."""

import sys
from pathlib import Path

import edgekd

bundle, picture_file, folder = sys.argv[1:]

picture = edgekd.read_picture(picture_file)  # (height, width, 3) uint8, BGR
with edgekd.load(bundle) as chain:
    result = chain(picture)

print(result)
for index, (box, confidence) in enumerate(zip(result.detections.xyxy, result.detections.confidence, strict=True)):
    name = result.class_names[result.detections.class_id[index]]
    area_px = result.masks.full(index).sum()  # (height, width) bool
    print(f"{name} {confidence:.2f}, box {box.round().astype(int).tolist()}, {area_px} px")

large = result[result.masks.areas_px() >= 1000]
print(f"{len(large)} objects have 1,000 px or more")

result.save(Path(folder) / "objects.json")
result.save(Path(folder) / "overlay.jpg", picture)
