"""A folder of pictures becomes a COCO data set: python folder_to_coco.py BUNDLE PICTURES OUTPUT_FOLDER.

Started again after an interrupt, it goes on with the pictures that are left.
"""

import sys

import edgekd

bundle, pictures, folder = sys.argv[1:]

options = edgekd.RunOptions(detect=edgekd.DetectOptions(confidence=0.4), min_area_px=50)
results = edgekd.ResultOptions(overlays=False, masks=False, formats=("coco",))
with edgekd.load(bundle) as chain:
    for report in edgekd.run_pictures(chain, [pictures], folder, options, results):
        print(report.name, report.state, dict(report.counts))
