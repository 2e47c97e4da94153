"""The HTML report: its content, number formats, plots and template."""
