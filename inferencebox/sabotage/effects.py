"""That a sabotage found nothing to break."""


class NoEffect(RuntimeError):
    """A sabotage found nothing to break."""
