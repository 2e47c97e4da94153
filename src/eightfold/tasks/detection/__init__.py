"""Training of detectors: targets, losses, augmentation and batches, written from the papers."""
