"""`croissant.json`: the data set described in JSON-LD as Croissant 1.1, which catalogues and loaders of other tools
read.

https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. It is plain JSON: nothing but the tests needs a
library."""

import json
from typing import Any

import pyarrow as pa

from mets_ray import storage
from mets_ray.dataset.card import CARD_NAME, DatasetCard, shard_schema

CROISSANT_NAME = "croissant.json"

# The context of the specification, whole: readers warn of one that differs.
_TERMS = """
arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty fileSet format
includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace
samplingRate separator source subField transform
"""
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}

_DESCRIPTIONS = {
    "record_id": "Id of the ECG",
    "patient_id": "Id of the patient; all records of a patient should lie in one fold",
    "fold": "Numbered group of patients, for splits",
    "signal_uv": "The ECG in microvolts, [lead, sample]",
    "report": "What a clinician or a machine wrote about the ECG",
    "statements": "The findings of the report, each a text of its own",
    "labels": "Codes of the source",
    "age": "Age in years",
    "sex": "male or female",
}


def croissant(card: DatasetCard, card_sha256: str) -> dict[str, Any]:
    """The description of a prepared data set. Files are named by their path below the card, with their sha256.

    Where the source tells no licence or citation, neither does the description, and Croissant's checker warns of it.
    """
    shards = [_file(shard.path, shard.sha256, "application/x-parquet") for shard in card.shards]
    files = {
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "description": "All shards; each is a Parquet file of some hundred ECGs.",
        "encodingFormat": "application/x-parquet",
        "includes": "shards/*.parquet",
    }
    facts = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"{card.source}-{card.fingerprint[:8]}",
        "description": _description(card),
        "url": card.source_uri if "://" in (card.source_uri or "") else f"urn:sha256:{card.content_sha256}",
        "datePublished": card.created_at,
        "version": f"{card.schema_version}.0.0",
        "isLiveDataset": False,
        "distribution": [_file(CARD_NAME, card_sha256, "application/json"), *shards, files],
        "recordSet": [_records(card)],
    }
    if card.licence:
        facts["license"] = card.licence
    if card.citation:
        facts["citeAs"] = card.citation
    return facts


def write_croissant(dataset_uri: str, card: DatasetCard, card_sha256: str) -> str:
    """Write `croissant.json` beside the card. Returns its URI."""
    uri = storage.join(dataset_uri, CROISSANT_NAME)
    storage.write_bytes(uri, json.dumps(croissant(card, card_sha256), indent=1, ensure_ascii=False).encode())
    return uri


def _description(card: DatasetCard) -> str:
    kind = "SYNTHETIC ECGs" if card.synthetic else "ECGs"
    words = [f"{card.records_out:,} {kind} of the source {card.source}, prepared by mets_ray: {card.signal}."]
    words += [f"{note[0].upper()}{note[1:]}." for note in card.notes]
    return " ".join(words)


def _file(path: str, sha256: str, encoding: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "encodingFormat": encoding,
        "sha256": sha256,
    }


def _records(card: DatasetCard) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "records",
        "name": "records",
        "description": f"One row per ECG; leads {', '.join(card.leads)} at {card.sampling_rate_hz} Hz.",
        "key": {"@id": "records/record_id"},
        "field": [_field(field) for field in shard_schema(card.signal)],
    }


def _field(column: pa.Field) -> dict[str, Any]:
    field = {
        "@type": "cr:Field",
        "@id": f"records/{column.name}",
        "name": column.name,
        "description": _DESCRIPTIONS.get(column.name, column.name),
        "dataType": _data_type(column.type),
        "source": {"fileSet": {"@id": "shards"}, "extract": {"column": column.name}},
    }
    if isinstance(column.type, pa.FixedShapeTensorType):
        field |= {"isArray": True, "arrayShape": ",".join(map(str, column.type.shape))}
    elif pa.types.is_list(column.type):
        field |= {"isArray": True, "arrayShape": "-1"}
    return field


def _data_type(kind: pa.DataType) -> str:
    if isinstance(kind, pa.FixedShapeTensorType) or pa.types.is_list(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return f"cr:{str(kind).capitalize()}"
    return f"cr:{'Float32' if kind == pa.float32() else 'Float64'}" if pa.types.is_floating(kind) else "sc:Text"
