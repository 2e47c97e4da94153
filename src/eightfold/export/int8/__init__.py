"""INT8 graphs: Q/DQ and QOperator forms, bias correction, AdaRound, mixed precision."""
