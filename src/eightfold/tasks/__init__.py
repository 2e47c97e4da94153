"""The tasks that `eightfold run` knows."""
