"""The command line: one file per sub-command, in one folder per stage."""
