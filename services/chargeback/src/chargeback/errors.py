"""What is wrong around the program, for the person who started it."""


class SetupProblem(Exception):
    pass
