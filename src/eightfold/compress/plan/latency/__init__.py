"""Integer program over widths under a latency budget: choices, prices, the solver, and the fit to whole networks."""
