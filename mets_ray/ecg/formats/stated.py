"""What a caller states for a file that does not say it: nothing is guessed."""

from dataclasses import dataclass

from mets_ray.errors import RecordError


@dataclass(frozen=True)
class Stated:
    """Sampling rate, unit (one of `ecg.UNITS`) and lead names of a file without a header; None for what is unstated."""

    sampling_rate_hz: float | None = None
    unit: str | None = None
    leads: tuple[str, ...] | None = None

    def required_rate_hz(self) -> float:
        """Raises RecordError `missing_sampling_rate`."""
        if self.sampling_rate_hz is None:
            raise RecordError(
                "missing_sampling_rate", "the file does not say its sampling rate", hint="give `sampling_rate_hz`"
            )
        return self.sampling_rate_hz

    def required_unit(self) -> str:
        """Raises RecordError `missing_unit`."""
        if self.unit is None:
            raise RecordError("missing_unit", "the file does not say the unit of its samples", hint="give `unit`")
        return self.unit

    def required_leads(self) -> tuple[str, ...]:
        """Raises RecordError `missing_lead_names`."""
        if self.leads is None:
            raise RecordError(
                "missing_lead_names", "the file does not name its leads", hint="give `leads`, in the file's order"
            )
        return self.leads
