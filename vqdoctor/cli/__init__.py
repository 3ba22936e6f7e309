"""The command line: a thin file for each command. Heavy modules are imported inside the commands."""
