"""The torch-free runtime: a picture and a bundle in, boxes and masks out. Needs numpy, OpenCV and one backend."""
