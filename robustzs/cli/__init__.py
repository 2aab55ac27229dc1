"""The command line. Heavy imports live in the bodies of the commands, so that `--help` is quick."""
