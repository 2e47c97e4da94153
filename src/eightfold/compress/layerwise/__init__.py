"""Two models executed layer by layer in step."""
