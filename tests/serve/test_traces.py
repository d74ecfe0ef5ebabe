"""Spans of a request, where somebody turned tracing on: never a class or another text of the client."""

from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mets_ray.serve.app import create_app
from tests.support.serving import Counts, json_ecg, make_bundle, make_service, npy, synthetic_ecg


def test_spans_hold_no_text_of_a_client(tmp_path, monkeypatch):
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    counts = Counts()
    client = TestClient(create_app(make_service(make_bundle(tmp_path), counts), counts))
    ecg = synthetic_ecg()
    with trace.get_tracer("test").start_as_current_span("as Ray Serve's span around a request"):
        query = {"candidate_labels": ["secret finding", "other"], "unit": "mV", "sampling_rate_hz": 100}
        query |= {"leads": ",".join(ecg.leads)}
        headers = {"content-type": "application/x-npy"}
        assert client.post("/v1/zero-shot", params=query, content=npy(ecg.signal_mv), headers=headers).is_success
        assert client.post("/v1/zero-shot", params=query | {"unit": "secret"}, content=b"x", headers=headers).is_error
        body = {"ecg": json_ecg(ecg), "candidate_labels": ["secret finding", "other"]}
        assert client.post("/v1/zero-shot", json=body).is_success
        assert client.get("/v1/examples/secret").status_code == 404
    told = [span.to_json() for span in spans.get_finished_spans()]
    assert len(told) >= 1, "nothing was traced"
    assert [span for span in told if "secret" in span] == []
