"""Compression of torch modules: trace, score, plan, surgery, compensation and training."""
