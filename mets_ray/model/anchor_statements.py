"""Which training statements a bundle may name, so that an explanation can quote them.

A bundle holds the language model's features of the statements that prompts are blended with (`Mets.embed_prompt`), and
features say nothing to a person. Text does, and comes from reports of patients: only a statement that the reports of
many patients hold is written down, and only one in which nothing identifies a person. No report is ever written.
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mets_ray.text.deidentify import holds_identifiers
from mets_ray.text.reports import sentences


class AnchorStatement(BaseModel):
    """A statement, how many training patients have it in a report, and the row of its features among the anchors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(min_length=1)
    patients: int = Field(ge=1)
    anchor: int = Field(ge=0)


class AnchorStatements(BaseModel):
    """`anchor_statements.json` of a bundle: those of its anchors that at least `least_patients` patients share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(1, ge=1, le=1)
    least_patients: int = Field(ge=1)
    statements: tuple[AnchorStatement, ...]

    @model_validator(mode="after")
    def _is_what_many_share(self) -> "AnchorStatements":
        for row in self.statements:
            if row.patients < self.least_patients:
                raise ValueError(f"a statement of {row.patients} patients, where {self.least_patients} are the least")
        if len({row.anchor for row in self.statements}) < len(self.statements):
            raise ValueError("two statements have the features of one anchor")
        return self

    def check_anchors(self, anchors: int) -> None:
        """Raise ValueError for a statement that is none of so many anchors."""
        if beyond := [row.anchor for row in self.statements if row.anchor >= anchors]:
            raise ValueError(f"it names anchor {max(beyond)}, and there are {anchors}")


def name_anchors(
    anchor_ids: Sequence[int], texts: Mapping[int, str], patients: Mapping[int, int], *, least_patients: int
) -> AnchorStatements:
    """The statements that may be named, in the order of the anchors.

    anchor_ids: the text ids of the anchors, in their order. texts: of each id. patients: how many have each in a
    report. Left out are those of fewer than `least_patients`, those that hold a name, a date, a number or what stands
    in place of one, and those of several sentences, which may be a whole report.
    """
    named = [
        AnchorStatement(text=texts[one], patients=patients[one], anchor=row)
        for row, one in enumerate(anchor_ids)
        if patients[one] >= least_patients and not holds_identifiers(texts[one]) and len(sentences(texts[one])) == 1
    ]
    return AnchorStatements(least_patients=least_patients, statements=tuple(named))
