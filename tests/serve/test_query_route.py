"""Routes with a query string, read without FastAPI's way to fill parameters: the same values, the same errors."""

from typing import Annotated

import pytest
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient

from mets_ray.serve.messages import SignalParameters, TimelineQuery, ZeroShotQuery
from mets_ray.serve.query_route import QueryRoute


def client_of(model):
    """`/ours` and `/fastapi` have the same endpoint; both say what they were given, or every fault."""
    app = FastAPI()

    async def endpoint(request: Request, query: Annotated[model, Query()]) -> Response:
        return Response(query.model_dump_json())

    @app.exception_handler(RequestValidationError)
    async def faults(request, error):
        facts = [{"loc": list(fault["loc"]), "msg": fault["msg"], "type": fault["type"]} for fault in error.errors()]
        return Response(repr(facts), status_code=422)

    app.router.add_api_route("/ours", endpoint, methods=["POST"], route_class_override=QueryRoute)
    app.router.add_api_route("/fastapi", endpoint, methods=["POST"])
    return TestClient(app)


@pytest.mark.parametrize(
    ("model", "query"),
    [
        (ZeroShotQuery, ""),
        (ZeroShotQuery, "unit=uV&sampling_rate_hz=500&leads=I,II&candidate_labels=a&candidate_labels=b,c"),
        (ZeroShotQuery, "candidate_labels=a,b, c"),
        (ZeroShotQuery, "candidate_labels="),
        (ZeroShotQuery, "unit=&prompt_set=x%20y&multi_label=yes&hypothesis_template={}"),
        (ZeroShotQuery, "unit=mV&unit=uV"),
        (ZeroShotQuery, "sampling_rate_hz=fast&multi_label=perhaps"),
        (ZeroShotQuery, "sampling_rate_hz=nan"),
        (ZeroShotQuery, "units=mV&unit=mV"),
        (ZeroShotQuery, "other=1&other=2"),
        (ZeroShotQuery, "candidate_labels=" + "," * 5000),
        (SignalParameters, "unit=mV&candidate_labels=a"),
        (TimelineQuery, "stride_s=0&above=2&signals=true"),
        (TimelineQuery, "stride_s=2.5&above=0.25&signals=0&candidate_labels=a&candidate_labels=b"),
    ],
)
def test_a_query_is_read_as_fastapi_reads_it(model, query):
    with client_of(model) as client:
        ours, theirs = (client.post(f"/{way}?{query}") for way in ("ours", "fastapi"))
    assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text)


def test_the_documentation_is_the_same():
    with client_of(ZeroShotQuery) as client:
        paths = client.get("/openapi.json").json()["paths"]
    ours, theirs = (paths[f"/{way}"]["post"] for way in ("ours", "fastapi"))
    assert ours["parameters"] == theirs["parameters"]
