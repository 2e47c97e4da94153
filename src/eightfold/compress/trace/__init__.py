"""The trace of a model: labels of channels followed through ATen operators, groups, constraints."""
