"""From weights to a bundle: export to ONNX, calibrate to Q/DQ, build engines, gate on accuracy."""
