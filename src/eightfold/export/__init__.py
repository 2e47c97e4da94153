"""Export: fixed-size ONNX, simplification, FP16, INT8, engines, comparison and bundles as they are written."""
