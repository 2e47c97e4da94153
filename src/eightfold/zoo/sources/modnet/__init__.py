"""MODNet, a matting network (Ke et al., AAAI 2022): definition, pruning plans, model source."""
