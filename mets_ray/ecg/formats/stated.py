"""What a caller states for a file that does not say it: nothing is guessed."""

from dataclasses import dataclass

from mets_ray.ecg.leads import standard_lead
from mets_ray.errors import RecordError


@dataclass(frozen=True)
class Stated:
    """Sampling rate, unit (one of `ecg.UNITS`) and lead names of a file without a header; None for what is unstated."""

    sampling_rate_hz: float | None = None
    unit: str | None = None
    leads: tuple[str, ...] | None = None

    def check(self, said: "Stated") -> None:
        """Compare with what the file says beside its samples; what either leaves open agrees.

        Raises RecordError `sampling_rate_mismatch`, `header_mismatch` for another unit, and `leads_mismatch`.
        """
        if self.sampling_rate_hz and said.sampling_rate_hz and self.sampling_rate_hz != said.sampling_rate_hz:
            raise RecordError(
                "sampling_rate_mismatch",
                f"the file says {said.sampling_rate_hz:g} Hz, and {self.sampling_rate_hz:g} Hz are stated",
                hint="state the sampling rate of the file",
            )
        if self.unit and said.unit and self.unit != said.unit:
            raise RecordError(
                "header_mismatch",
                f"the file says {said.unit}, and {self.unit} is stated",
                hint="state the unit of the file",
            )
        if self.leads and said.leads and tuple(map(standard_lead, self.leads)) != said.leads:
            raise RecordError(
                "leads_mismatch",
                f"the file says {', '.join(said.leads)}, and {len(self.leads)} leads are stated that differ",
                hint="state the leads of the file",
            )

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
