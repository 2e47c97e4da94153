"""Sensitivity: how far the outputs move when a group of channels is narrowed, and the widths that follow from it."""
