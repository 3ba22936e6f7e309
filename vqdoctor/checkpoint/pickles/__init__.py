"""Reading a pickle without running it: nothing is imported or called because a file says so."""
