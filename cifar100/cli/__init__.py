"""The subcommands: one dataclass each; its fields are the flags, `run()` returns the exit code."""
