"""The two errors that carry a sentence for the user; anything else is a defect and keeps its traceback."""


class UserError(Exception):
    """A mistake that the user can mend: what was wrong, where, and what to do. Exit code 2."""


class RunFailed(Exception):
    """Something went wrong while the work was under way: the loss, the disk, the memory. Exit code 1."""
