"""The libraries behind `eightfold.runtime.cuda_memory`, one module each."""
