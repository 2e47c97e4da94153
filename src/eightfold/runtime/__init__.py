"""The part that runs on a device: bundles, predictor, back ends, measurement and report. Never imports torch."""
