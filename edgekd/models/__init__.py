"""What the networks are: YOLO detectors, TinySAM, DINOv2, SAM3, and where their weights come from."""
