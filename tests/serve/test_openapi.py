"""The OpenAPI document against the server: schemathesis makes requests of it, good and bad, and checks the answers."""

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mets_ray.ecg.ecg import LEADS
from tests.support.serving import json_ecg, make_bundle, npy, plain_server, synthetic_ecg

# Left out: negative_data_rejection and positive_data_acceptance, because most ECGs that fit a JSON schema are too
# short, flat or of an unknown unit, and are refused rightly; unsupported_method, which sends TRACE to every path;
# ignored_auth, because this server asks for no token (tests/serve/test_app.py has one that does).
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OPERATIONS = [
    "DELETE /v1/prompt-sets/{name}",
    "GET /healthz",
    "GET /readyz",
    "GET /v1/examples",
    "GET /v1/examples/{name}",
    "GET /v1/model",
    "GET /v1/prompt-sets",
    "POST /v1/ecg",
    "POST /v1/embed",
    "POST /v1/predict",
    "POST /v1/timeline",
    "POST /v1/zero-shot",
    "POST /v1/zero-shot/batch",
    "PUT /v1/prompt-sets/{name}",
]


@schemathesis.serializer(
    "application/x-npy",
    "application/zip",
    "application/octet-stream",
    "application/dicom",
    "application/xml",
    "text/xml",
)
def as_it_is(context, value):
    """Bytes, which schemathesis wraps where it made them itself; it sends no body of these types without this."""
    return value if isinstance(value, bytes) else getattr(value, "data", str(value).encode())


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    bundle = make_bundle(tmp_path_factory.mktemp("bundle"))
    with plain_server(bundle, state_uri=str(tmp_path_factory.mktemp("state"))) as (client, _):
        yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")


ECG = json_ecg(synthetic_ecg())
BESIDE = {"unit": "mV", "sampling_rate_hz": 100, "leads": ",".join(LEADS)}
LABELS = ["sinus rhythm", "atrial fibrillation"]
GOOD = {
    "a": ("POST /v1/zero-shot", 200, {"body": {"ecg": ECG, "candidate_labels": LABELS, "multi_label": True}}),
    "b": ("POST /v1/zero-shot", 200, {"body": {"ecg": ECG, "prompt_set": "mets:synthetic"}}),
    "c": ("POST /v1/zero-shot/batch", 200, {"body": {"ecgs": [ECG, ECG | {"unit": "x"}], "candidate_labels": LABELS}}),
    "d": ("POST /v1/embed", 200, {"body": {"ecg": ECG}}),
    "e": ("POST /v1/embed", 200, {"body": {"texts": LABELS}}),
    "f": ("POST /v1/ecg", 200, {"body": ECG}),
    "g": (
        "POST /v1/ecg",
        200,
        {"body": npy(synthetic_ecg().signal_mv), "media_type": "application/x-npy", "query": BESIDE},
    ),
    "h": ("PUT /v1/prompt-sets/{name}", 201, {"body": {"candidate_labels": LABELS}, "path_parameters": {"name": "h"}}),
    "i": ("PUT /v1/prompt-sets/{name}", 200, {"body": {"candidate_labels": LABELS}, "path_parameters": {"name": "h"}}),
    "j": ("GET /v1/examples/{name}", 200, {"path_parameters": {"name": "afib"}}),
    "o": ("POST /v1/predict", 404, {"body": {"ecg": ECG, "head": "none"}}),
    "k": ("GET /v1/model", 200, {}),
    "l": ("GET /v1/prompt-sets", 200, {"query": {"limit": 1}}),
    "m": ("DELETE /v1/prompt-sets/{name}", 200, {"path_parameters": {"name": "h"}}),
    "n": ("DELETE /v1/prompt-sets/{name}", 404, {"path_parameters": {"name": "never"}}),
}


@pytest.mark.parametrize(("label", "status", "parts"), GOOD.values(), ids=GOOD)
def test_answers_to_good_requests_are_what_the_document_says(schema, label, status, parts):
    """Made by hand: of random numbers none are an ECG."""
    if "body" in parts:
        parts = {"media_type": "application/json"} | parts
    answer = operations(schema)[label].Case(**parts).call_and_validate(checks=CHECKS, timeout=30)
    assert answer.status_code == status


def _let_in(case):
    """A real ECG, and no query string, so that what else is random reaches what stands behind these checks."""
    case.query = {}
    if isinstance(case.body, dict):
        for name, ecg in (("ecg", ECG), ("ecgs", [ECG])):
            if case.body.get(name):
                case.body[name] = ecg


def operations(schema):
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


def test_every_operation_is_checked(schema):
    assert sorted(operations(schema)) == OPERATIONS


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_are_what_the_document_says(schema, label, mode):
    @hypothesis.given(case=operations(schema)[label].as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=25,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case):
        if mode is schemathesis.GenerationMode.POSITIVE and case.media_type == "application/json":
            _let_in(case)
        case.call_and_validate(checks=CHECKS, timeout=30)

    try:
        check()
    except hypothesis.errors.Unsatisfiable:
        assert mode is schemathesis.GenerationMode.NEGATIVE  # nothing can be wrong where nothing is given
