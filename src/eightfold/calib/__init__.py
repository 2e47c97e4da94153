"""Calibration: observes activation ranges on images, chooses thresholds and equalizes layers."""
