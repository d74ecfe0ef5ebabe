"""Every error that mets_ray raises on purpose.

MetsError                 base: a fact, where it was seen, and a `hint:` with the smallest remedy
├── ConfigError           a setting or a combination of settings that cannot work
├── RecordError           one ECG that must not enter the data set; `reason` is what is counted
├── DatasetError          a data set, manifest or storage location that cannot be used
├── CheckpointError       a bundle or checkpoint that cannot be used
└── RequestError          one HTTP request that cannot be answered as it stands, with its status and `reason`
"""


class MetsError(Exception):
    """A fact with value and unit, then where it was seen, then the smallest remedy."""

    def __init__(self, fact: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(fact)
        self.fact = fact
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.fact]
        if self.where:
            lines.append(f"  in {self.where}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Ray pickles exceptions between processes; keyword-only arguments need help to survive that.
        return _rebuild, (type(self), self.__dict__ | {"fact": self.fact})


class ConfigError(MetsError):
    """A setting, or several together, that cannot work."""


class DatasetError(MetsError):
    """A data set, a manifest or a storage location that cannot be used."""


class CheckpointError(MetsError):
    """A bundle or a checkpoint that cannot be used."""


class RecordError(MetsError):
    """One ECG that must not enter the data set.

    `reason` is a short snake_case word: rejected records are counted by it.
    """

    def __init__(self, reason: str, fact: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(fact, where=where, hint=hint)
        self.reason = reason


class RequestError(MetsError):
    """One HTTP request that cannot be answered as it stands.

    `status` is the HTTP status of the answer (4xx, or 503), `reason` a short snake_case word that is counted.
    """

    def __init__(self, status: int, reason: str, fact: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(fact, where=where, hint=hint)
        self.status = status
        self.reason = reason


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _rebuild(kind: type[MetsError], state: dict[str, str]) -> MetsError:
    error = kind.__new__(kind)
    Exception.__init__(error, state["fact"])
    error.__dict__.update(state)
    return error
