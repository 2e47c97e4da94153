"""Label-free recovery: the pruned network learns to give what the original gives on unlabelled images."""
