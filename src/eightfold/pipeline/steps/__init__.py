"""The named steps of a run, one file per stage: train, export, decode, INT8, engine, measure."""
