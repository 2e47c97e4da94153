"""Report content of a finished run: headlines, verdicts and remedies."""
