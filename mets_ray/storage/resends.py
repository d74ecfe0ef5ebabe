"""How many requests to object stores this process has sent again."""


class ResendCount:
    """Counts requests that were sent again because of a passing fault. All stores of a process share one thread."""

    def __init__(self) -> None:
        self.total = 0

    def add(self) -> None:
        self.total += 1


RESENDS = ResendCount()
"""Of this process."""
