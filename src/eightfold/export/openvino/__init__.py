"""OpenVINO files: build, record and probe of intermediate tensors."""
