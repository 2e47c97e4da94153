"""The libraries behind `eightfold.runtime.backends.cuda_memory`, one module each."""
