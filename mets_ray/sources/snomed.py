"""Diagnoses as SNOMED CT codes, in words: those of the PhysioNet/CinC challenges, and a folder's own table."""

from collections.abc import Iterable
from dataclasses import dataclass

from mets_ray import storage
from mets_ray.packaged import packaged_files, read_yaml
from mets_ray.sources.cells import identifier
from mets_ray.sources.csv_table import read_table

_TABLE = "ConditionNames_SNOMED-CT.csv"  # of Chapman-Shaoxing and Ningbo in its own layout
_NAMED = 10


@dataclass(frozen=True)
class SnomedWords:
    """What each code says, and the files that say so."""

    words: dict[str, str]
    files: tuple[bytes, ...]

    @classmethod
    def read(cls, source_uri: str) -> "SnomedWords":
        """The packaged words; where `source_uri` holds `ConditionNames_SNOMED-CT.csv`, its words before those.

        That table gives some codes several names, of which the first counts. Raises DatasetError for one that cannot be
        read.
        """
        data = packaged_files("sources/terms")["snomed"].read_bytes()
        words = {str(code): str(text) for code, text in read_yaml(data, "snomed.yaml").items()}
        uri = storage.join(source_uri, _TABLE)
        if not storage.exists(uri):
            return cls(words, (data,))
        table = read_table(uri, ("Full Name", "Snomed_CT"))
        own: dict[str, str] = {}
        for _, cells in table.rows:
            if cells["Full Name"] and (code := identifier(cells["Snomed_CT"])):
                own.setdefault(code, " ".join(cells["Full Name"].split()))
        return cls(words | own, (data, table.data))

    def of(self, codes: Iterable[str]) -> tuple[str, ...]:
        """A statement for each code that has words, each once."""
        return tuple(dict.fromkeys(self.words[code] for code in codes if code in self.words))

    def notes(self, labels: Iterable[Iterable[str]]) -> tuple[str, ...]:
        """For the card: where the words come from, and which codes have none."""
        unknown = sorted({code for codes in labels for code in codes if code.isdecimal() and code not in self.words})
        notes = ["reports are the words of the records' SNOMED CT codes"]
        if unknown:
            notes.append(f"{len(unknown)} codes have no words: {', '.join(unknown[:_NAMED])}")
        return tuple(notes)
