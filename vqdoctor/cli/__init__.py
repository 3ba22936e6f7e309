"""The command line: one file a command, thin. What is heavy is imported inside the commands."""
