"""What each verb of the command line takes and does: a dataclass a verb, its fields the flags, `run` the exit code."""
