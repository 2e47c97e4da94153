"""Values of intermediate tensors, paired between two artifacts by their content."""
