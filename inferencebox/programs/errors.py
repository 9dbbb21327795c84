"""Why one source of a program did not work out, as opposed to a problem that ends the run."""


class Unavailable(Exception):
    """This source cannot give the program here; the next one is tried.

    Args:
        reason: why, one line.
        fix: what the reader could do to make this source work.
    """

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix
