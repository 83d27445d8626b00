"""Masks for boxes that somebody has drawn: python given_boxes.py BUNDLE PICTURE OUTPUT.json."""

import sys

import numpy as np

import edgekd

bundle, picture_file, output = sys.argv[1:]

picture = edgekd.read_picture(picture_file)
height, width = picture.shape[:2]
boxes = np.array([[0.1 * width, 0.1 * height, 0.4 * width, 0.5 * height]], np.float32)  # left, top, right, bottom

with edgekd.load(bundle) as chain:
    result = chain(picture, boxes=boxes, class_id=np.array([2]))

print(f"{result.class_names[2]}: predicted IoU {result.masks.predicted_iou[0]:.2f}")
print(result.save(output))
