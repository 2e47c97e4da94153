"""The criteria that rank channels, one small function each; `scores` registers them by name.

A criterion sees `Evidence` and gives, for each free group, a float64 matrix [layers, width]: one row for each layer of
the group that has an opinion (rules that let coupled layers vote need the rows), or a single row for the group.
"""
