"""The verbs of the command line, one file each; imported when called, so that each costs what it needs."""
