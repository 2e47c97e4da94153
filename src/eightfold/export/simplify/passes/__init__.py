"""Clean-ups that the simplifiers miss and that targets need. Each pass is one file with one function, which edits a
graph in place and returns how many changes it made; each states the identity that makes it right."""
