"""TensorRT engines: options, parse, build, record, refit, calibrators."""
