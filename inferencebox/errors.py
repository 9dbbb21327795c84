"""What is wrong with the environment, said once and in one way."""

ENVIRONMENT = 2
"""Exit code: the environment is at fault; nothing is said of the platform."""
TERMINATED = 143
"""Exit code: somebody wanted it to end (SIGTERM)."""


def exit_code(of_pytest: int) -> int:
    """Our exit code for one of pytest's, whose codes above 1 are all the environment's."""
    return of_pytest if of_pytest in (0, 1) else ENVIRONMENT


class SetupProblem(Exception):
    """The environment, not the platform, is at fault: exit code 2, verdict *error*.

    Args:
        what: what is wrong, one line, naming the object.
        fix: what the reader can do about it, one line.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}. Fix: {fix}")
        self.what = what
        self.fix = fix

    def __reduce__(self) -> tuple[type["SetupProblem"], tuple[str, str]]:
        return type(self), (self.what, self.fix)
