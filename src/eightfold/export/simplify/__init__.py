"""Simplification of ONNX files: our passes, and onnxsim and onnxslim in processes of their own."""
