"""Fixed shapes: input sizes, batch sizes and files with dynamic axes."""
