"""What surrounds each request: who is let in by route, host and origin, HEAD, headers, request ids, the audit log."""

import hashlib
import json
import logging

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.websockets import WebSocketDisconnect

from mets_ray.ecg.ecg import LEADS
from mets_ray.serve.app import create_app
from tests.support.serving import Counts, json_ecg, make_bundle, make_service, npy, plain_server, synthetic_ecg

TOKEN = "a-token-that-may-do-everything"
RIGHT = {"authorization": f"Bearer {TOKEN}"}
OPEN = ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/static/app.js", "/static-offline-docs/swagger-ui.css")
CLOSED = (
    ("GET", "/v1/model"),
    ("GET", "/v1/examples"),
    ("GET", "/v1/examples/afib"),
    ("POST", "/v1/zero-shot"),
    ("POST", "/v1/zero-shot/batch"),
    ("POST", "/v1/embed"),
    ("POST", "/v1/ecg"),
    ("POST", "/v1/timeline"),
    ("PUT", "/v1/prompt-sets/mine"),
)
# Prefixes as `route_prefix`, `root_path` and proxies make them; some are a part of a segment of the routes themselves.
PREFIXES = ("", "/ecg", "/ecg/v2", "/v", "/v1", "/v1/model", "/healthz", "/static", "/docs", "/ecg/")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def service(bundle, tmp_path_factory):
    """One for all apps of this file: a service is the slow part of an app."""
    return make_service(bundle, Counts(), state_uri=str(tmp_path_factory.mktemp("state")), prompt_set="mets:synthetic")


@pytest.fixture
def app_of(service, monkeypatch):
    monkeypatch.setenv("METS_RAY_TOKEN", TOKEN)
    before = service.config

    def make(**settings):
        service.config = before.model_copy(update=settings)
        return create_app(service, Counts())

    yield make
    service.config = before


def client_of(app, prefix="", *, base="http://localhost"):
    return TestClient(app, base_url=base, root_path=prefix, follow_redirects=False, raise_server_exceptions=False)


def reason(answer):
    return answer.json()["error"]["reason"]


# --- the token, by route ---


@pytest.mark.parametrize("prefix", PREFIXES)
def test_below_any_prefix_the_routes_ask_for_the_token_and_the_page_does_not(app_of, prefix):
    client = client_of(app_of(auth="bearer"), prefix)
    under = prefix.rstrip("/")
    for method, path in CLOSED:
        for ending in ("", "/", "//", "?a=b"):
            answer = client.request(method, f"{under}{path}{ending}")
            assert (answer.status_code, reason(answer)) == (401, "no_token"), (method, path, ending)
            assert answer.headers["www-authenticate"] == "Bearer"
        if prefix != "/ecg/":  # no root path ends in a slash: below that nothing is found, and nothing is open
            assert client.request(method, f"{under}{path}", headers=RIGHT).status_code not in (401, 403, 404, 405)
    if prefix != "/ecg/":
        for path in OPEN:
            assert client.get(f"{under}{path}").status_code == 200, path
            assert client.head(f"{under}{path}").status_code == 200, path


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_path_without_its_prefix_asks_for_the_token_too(app_of, prefix):
    """As a proxy that strips the prefix sends it."""
    client = client_of(app_of(auth="bearer"), prefix)
    for method, path in CLOSED:
        # The root path itself leads to the page.
        assert client.request(method, path).status_code == (307 if path == prefix else 401), path


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/v1",
        "/v1/",
        "/v2/model",
        "/V1/model",
        "//v1/model",
        "/%2Fv1/model",
        "/v1%2Fmodel",
        "/v1//model",
        "/v1/./model",
        "/v1/model;a=b",
        "/v1/model%00",
        "/v1/model%20",
        "/static/../v1/model",
        "/static/%2e%2e/v1/model",
        "/docs/../v1/model",
        "/healthz/v1/model",
        "/docs/v1/model",
        "/static%2F..%2Fv1%2Fmodel",
        "/.",
        "/metrics",
        "/redoc",
    ],
)
@pytest.mark.parametrize("prefix", ["", "/ecg"])
def test_a_path_that_is_written_in_another_way_opens_nothing(app_of, prefix, path):
    app = app_of(auth="bearer")
    scope_path, raw = raw_path(f"{prefix}{path}")
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "GARBAGE"):
        status, body = ask_raw(app, method, scope_path, raw, root_path=prefix)
        # Below /static are files only, and none of them is called so.
        assert status == 401 or (scope_path.startswith(f"{prefix}/static/") and status == 404), (method, body)
        assert b"model_version" not in body


def raw_path(path):
    from urllib.parse import unquote

    return unquote(path), path.encode()


def ask_raw(app, method, path, raw, *, root_path=""):
    """(status, body), with a scope as uvicorn makes it: a client library would tidy up the path."""
    import asyncio

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": raw,
        "root_path": root_path,
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_a_slash_too_few_or_too_many_leads_to_the_page(app_of):
    for auth in ("bearer", "none"):
        client = client_of(app_of(auth=auth), "/ecg")
        for path, target in (("/ecg", "/ecg/"), ("/ecg/docs/", "/ecg/docs"), ("/ecg/healthz/", "/ecg/healthz")):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["location"]) == (307, f"http://localhost{target}")


def test_a_route_that_nobody_declared_is_closed(app_of):
    app = app_of(auth="bearer")
    other = FastAPI()

    @app.get("/v3/new")
    @app.post("/v3/new")
    @app.patch("/v1/prompt-sets/{name}")
    @other.get("/healthz")
    @other.post("/v1/zero-shot")
    async def answer(name: str = ""):
        return PlainTextResponse("secret")

    app.mount("/mounted", other)
    app.include_router(other.router, prefix="/included")
    client = client_of(app)
    for method, path in (
        ("GET", "/v3/new"),
        ("POST", "/v3/new"),
        ("PATCH", "/v1/prompt-sets/mine"),
        ("GET", "/mounted/healthz"),
        ("POST", "/mounted/v1/zero-shot"),
        ("GET", "/included/healthz"),
        ("POST", "/included/v1/zero-shot"),
    ):
        assert client.request(method, path).status_code == 401, path
        assert client.request(method, path, headers=RIGHT).text == "secret", path


def test_an_app_inside_another_is_closed_too(app_of):
    app = app_of(auth="bearer")
    for prefix, mount in (
        ("", Mount("", app)),
        ("/v1", Mount("/v1", app)),
        ("/models/ecg", Mount("/models", routes=[Mount("/ecg", app)])),
    ):
        outer = Starlette(routes=[mount])
        for root in ("", "/proxy"):
            client = client_of(outer, root)
            for method, path in CLOSED:
                assert client.request(method, f"{root}{prefix}{path}").status_code == 401, (prefix, root, path)
            assert client.get(f"{root}{prefix}/v1/model", headers=RIGHT).status_code == 200
            assert client.get(f"{root}{prefix}/healthz").status_code == 200


def test_with_the_token_unknown_routes_and_methods_are_404_and_405(app_of):
    client = client_of(app_of(auth="bearer"))
    for method in ("GET", "POST", "DELETE"):
        assert client.request(method, "/v1/nothing", headers=RIGHT).status_code == 404
    for method in ("POST", "OPTIONS", "TRACE", "DELETE"):
        assert client.request(method, "/v1/model", headers=RIGHT).status_code == 405


def test_a_write_to_an_open_route_asks_for_the_token(app_of):
    client = client_of(app_of(auth="bearer"))
    for path in OPEN:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert client.request(method, path).status_code == 401, (method, path)


@pytest.mark.parametrize(
    "value",
    ["", TOKEN, "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer é", "x" * 9],
)
def test_anything_but_the_token_is_401(app_of, value):
    client = client_of(app_of(auth="bearer"))
    assert client.get("/v1/model", headers={"authorization": value.encode()}).status_code == 401
    two = [("authorization", f"Bearer {TOKEN}"), ("authorization", value.encode())]
    assert client.get("/v1/model", headers=two).status_code == 401
    assert client.get("/v1/model", headers={"authorization": f"bearer  {TOKEN} "}).status_code == 200


def test_a_websocket_is_closed(app_of):
    for auth in ("bearer", "none"):
        with pytest.raises(WebSocketDisconnect), client_of(app_of(auth=auth)).websocket_connect("/v1/model"):
            pass


# --- scopes ---


@pytest.fixture
def scoped(app_of, tmp_path):
    path = tmp_path / "tokens.yaml"
    path.write_text(
        "- {name: ward-3, token: token-of-ward-3-score, scopes: [score]}\n"
        "- {name: librarian, token: token-of-the-librarian, scopes: [register]}\n"
    )
    return client_of(app_of(auth="bearer", tokens_file=str(path)))


def test_a_token_opens_what_its_scopes_say(scoped):
    ward = {"authorization": "Bearer token-of-ward-3-score"}
    librarian = {"authorization": "Bearer token-of-the-librarian"}
    body = {"ecg": json_ecg(synthetic_ecg())}
    labels = {"candidate_labels": ["sinus rhythm"]}
    for headers in (ward, librarian, RIGHT):
        assert scoped.get("/v1/model", headers=headers).status_code == 200
    assert scoped.post("/v1/zero-shot", json=body, headers=ward).status_code == 200
    assert scoped.put("/v1/prompt-sets/mine", json=labels, headers=librarian).status_code == 201
    for answer, need in (
        (scoped.post("/v1/zero-shot", json=body, headers=librarian), "score"),
        (scoped.post("/v1/embed", json={"texts": ["a"]}, headers=librarian), "score"),
        (scoped.put("/v1/prompt-sets/mine", json=labels, headers=ward), "register"),
    ):
        assert (answer.status_code, reason(answer)) == (403, "wrong_scope")
        assert answer.headers["www-authenticate"] == f'Bearer error="insufficient_scope", scope="{need}"'
        assert need in answer.json()["error"]["message"]
        assert "token-of" not in answer.text
    assert scoped.post("/v1/zero-shot", json=body, headers=RIGHT).status_code == 200
    assert scoped.put("/v1/prompt-sets/mine", json=labels, headers=RIGHT).status_code == 200


def test_the_document_names_the_scope_of_each_operation(app_of):
    paths = client_of(app_of(auth="bearer")).get("/openapi.json").json()["paths"]
    assert paths["/v1/zero-shot"]["post"]["security"] == [{"bearer": ["score"]}]
    assert paths["/v1/prompt-sets/{name}"]["put"]["security"] == [{"bearer": ["register"]}]
    assert paths["/v1/examples/{name}"]["get"]["security"] == [{"bearer": []}]
    assert "security" not in paths["/healthz"]["get"]


# --- hosts and origins ---


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "LocalHost:1", "localhost.", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"],
)
def test_without_a_token_the_names_of_this_machine_are_answered(app_of, host):
    client = client_of(app_of(auth="none"))
    for path in ("/", "/docs", "/healthz", "/v1/model"):
        assert client.get(path, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example#localhost",
        "localhost@evil.example",
        "localhost:80@evil.example",
        "evil-localhost",
        "notlocalhost",
        "192.168.1.7",
        "0.0.0.0",
        "[fe80::1]",
        "[::ffff:192.168.1.7]",
        "localhost,evil.example",
        "localhost evil.example",
        "localhost:abc",
        "",
    ],
)
def test_without_a_token_no_other_name_is_answered(app_of, host):
    """DNS rebinding: a page's own name, made to point here."""
    client = client_of(app_of(auth="none"))
    body = {"ecg": json_ecg(synthetic_ecg())}
    for answer in (
        *(client.get(path, headers={"host": host}) for path in ("/", "/docs", "/healthz", "/v1/model", "/nothing")),
        client.post("/v1/zero-shot", json=body, headers={"host": host}),
        client.put("/v1/prompt-sets/evil", json={"candidate_labels": ["a"]}, headers={"host": host}),
    ):
        assert (answer.status_code, reason(answer)) == (403, "unknown_host")
    two = [("host", "localhost"), ("host", "evil.example")]
    assert client.get("/v1/model", headers=two).status_code == 403


def test_a_name_of_the_internet_is_not_believed_even_as_the_servers_own(app_of):
    """A connection's own address is: probes use it."""
    app = app_of(auth="none")
    assert client_of(app, base="http://evil.example").get("/v1/model").status_code == 403
    assert client_of(app, base="http://10.2.3.4:8000").get("/healthz").status_code == 200


def test_more_names_can_be_allowed(app_of):
    client = client_of(app_of(auth="none", allowed_hosts="ecg.hospital.example, other.example"))
    labels = {"candidate_labels": ["a"]}
    for host, origin, status in (
        ("ecg.hospital.example", "https://ecg.hospital.example", 201),
        ("ECG.Hospital.Example:8443", "https://other.example", 200),
        ("localhost", "https://ecg.hospital.example", 200),
        ("ecg.hospital.example", "https://evil.example", 403),
        ("evil.example", "https://ecg.hospital.example", 403),
        ("x.ecg.hospital.example", None, 403),
    ):
        headers = {"host": host} | ({"origin": origin} if origin else {})
        assert client.put("/v1/prompt-sets/hosts", json=labels, headers=headers).status_code == status, (host, origin)
    client = client_of(app_of(auth="none", allowed_hosts="*"))
    assert client.get("/v1/model", headers={"host": "any.example"}).status_code == 200
    foreign = {"host": "any.example", "origin": "http://evil.example"}
    assert client.put("/v1/prompt-sets/hosts", json=labels, headers=foreign).status_code == 403


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:3000"},
    {"origin": "http://localhost.evil.example:8000"},
    {"origin": "http://evil.example/localhost:8000"},
    {"origin": "file://"},
    {"origin": ""},
    {"origin": "http://localhost:x"},
    {"origin": "http://[::1"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "anything"},
    {"sec-fetch-site": "cross-site", "origin": "http://localhost:8000"},
    {"sec-fetch-site": "same-origin", "origin": "http://evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_other_sites_can_send_nothing(app_of, headers):
    client = client_of(app_of(auth="none"), base="http://localhost:8000")
    form = {"files": {"file": ("r.npy", npy(synthetic_ecg().signal_mv))}}  # which browsers send without asking first
    for answer in (
        client.post("/v1/zero-shot", headers=headers, **form),
        client.post("/v1/ecg", content=b"x", headers=headers | {"content-type": "text/plain"}),
        client.put("/v1/prompt-sets/evil", json={"candidate_labels": ["a"]}, headers=headers),
        client.request("DELETE", "/v1/prompt-sets/mine", headers=headers),
        client.post("/nothing", headers=headers),
    ):
        assert (answer.status_code, reason(answer)) == (403, "foreign_origin")
        assert "access-control-allow-origin" not in answer.headers
    assert client.get("/v1/model", headers=headers).status_code == 200  # a link; no other page can read the answer


@pytest.mark.parametrize(
    ("base", "headers"),
    [
        ("http://localhost:8000", {}),
        ("http://localhost:8000", {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}),
        ("http://localhost", {"origin": "http://localhost"}),
        ("http://localhost", {"origin": "https://localhost"}),  # TLS ends before the server
        ("http://[::1]:8000", {"origin": "http://[::1]:8000"}),
        ("http://127.0.0.1:8000", {"sec-fetch-site": "none"}),
    ],
    ids=str,
)
def test_the_servers_own_page_and_programs_can(app_of, base, headers):
    client = client_of(app_of(auth="none"), base=base)
    assert client.post("/v1/zero-shot", json={"ecg": json_ecg(synthetic_ecg())}, headers=headers).status_code == 200


def test_with_a_token_hosts_and_origins_are_checked_only_where_they_are_set(app_of):
    foreign = RIGHT | {"host": "gateway.example", "origin": "https://app.example", "sec-fetch-site": "cross-site"}
    body = {"ecg": json_ecg(synthetic_ecg())}
    assert client_of(app_of(auth="bearer")).post("/v1/zero-shot", json=body, headers=foreign).status_code == 200
    client = client_of(app_of(auth="bearer", allowed_hosts="gateway.example"))
    assert client.post("/v1/zero-shot", json=body, headers=foreign).status_code == 403
    assert client.post("/v1/zero-shot", json=body, headers=RIGHT | {"host": "gateway.example"}).status_code == 200
    assert client.get("/v1/model", headers=RIGHT | {"host": "evil.example"}).status_code == 403


# --- headers and HEAD ---


def test_every_answer_has_the_security_headers_and_an_id(app_of, monkeypatch):
    from mets_ray.model.predictor import Predictor

    app = app_of(auth="bearer", allowed_hosts="localhost")
    client = client_of(app)
    answers = {
        "page": client.get("/"),
        "script": client.get("/static/app.js"),
        "docs": client.get("/docs"),
        "docs script": client.get("/static-offline-docs/swagger-ui.css"),
        "document": client.get("/openapi.json"),
        "health": client.get("/healthz"),
        "redirect": client.get("/docs/"),
        "model": client.get("/v1/model", headers=RIGHT),
        "head": client.head("/v1/model", headers=RIGHT),
        "400": client.post("/v1/zero-shot", headers=RIGHT | {"content-type": "application/json"}, content="{"),
        "401": client.get("/v1/model"),
        "403": client.get("/v1/model", headers=RIGHT | {"host": "evil.example"}),
        "404": client.get("/v1/nothing", headers=RIGHT),
        "404 file": client.get("/static/nothing"),
        "405": client.get("/v1/zero-shot", headers=RIGHT),
        "413": client.post("/v1/zero-shot", headers=RIGHT, content=b"x" * 20_000_000),
        "415": client.post("/v1/zero-shot", headers=RIGHT, content=b"x"),
        "422": client.post("/v1/embed", json={"texts": []}, headers=RIGHT),
    }
    monkeypatch.setattr(Predictor, "class_vectors", None)
    answers["500"] = client.post("/v1/zero-shot", json={"ecg": json_ecg(synthetic_ecg())}, headers=RIGHT)
    assert answers["redirect"].status_code == 307
    for name, answer in answers.items():
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff", name
        assert headers["x-frame-options"] == "DENY", name
        assert headers["referrer-policy"] == "no-referrer", name
        assert headers["cross-origin-resource-policy"] == "same-origin", name
        assert headers["cross-origin-opener-policy"] == "same-origin", name
        assert "frame-ancestors 'none'" in headers["content-security-policy"], name
        assert headers.get_list("x-request-id")[0], name
        assert ("no-store" in headers.get("cache-control", "")) == ("etag" not in headers), name
        if name.isdecimal():
            assert answer.status_code == int(name)
            assert answer.json()["error"]["request_id"] == headers["x-request-id"], name
    assert len({answer.headers["x-request-id"] for answer in answers.values()}) == len(answers)


def test_the_documentation_runs_no_script_but_its_own(app_of):
    page = client_of(app_of(auth="none"), "/ecg").get("/ecg/docs")
    assert "'sha256-" in page.headers["content-security-policy"]
    script_policy = page.headers["content-security-policy"].split("script-src")[1].split(";")[0]
    assert "unsafe" not in script_policy
    for attribute in ('src="/ecg/static-offline-docs/', 'href="/ecg/static-offline-docs/', "'/ecg/openapi.json'"):
        assert attribute in page.text


def test_head_answers_as_get_does_without_a_body(app_of):
    client = client_of(app_of(auth="none"), "/ecg")
    files = ("", "/", "/healthz", "/readyz", "/docs", "/openapi.json", "/static/app.js", "/static/nothing")
    routes = ("/v1/model", "/v1/examples", "/v1/examples/afib", "/v1/examples/none", "/v1/zero-shot", "/nothing")
    for path in (*files, *routes):
        get, head = client.get(f"/ecg{path}"), client.head(f"/ecg{path}")
        assert (head.status_code, head.content) == (get.status_code, b""), path
        for name in ("content-type", "content-length", "etag", "allow", "location", "content-security-policy"):
            if name != "content-length" or get.status_code == 200:  # an error quotes the request's id
                assert head.headers.get(name) == get.headers.get(name), (path, name)
    closed = client_of(app_of(auth="bearer"))
    assert closed.head("/v1/model").status_code == 401
    assert closed.head("/v1/model", headers=RIGHT).status_code == 200


def test_head_over_real_http_leaves_the_connection_usable(bundle):
    with plain_server(bundle) as (client, _):
        for path in ("/", "/healthz", "/static/app.js", "/v1/examples/afib", "/v1/examples/none", "/healthz"):
            head = client.head(path)
            assert (head.status_code, head.content) == (client.get(path).status_code, b"")


# --- request ids and the audit log ---


@pytest.mark.parametrize("given", ["a", "A-1_b.c", "0" * 128, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"])
def test_a_clients_id_is_taken_over(app_of, given):
    client = client_of(app_of(auth="none"))
    for path in ("/healthz", "/nothing"):
        answer = client.get(path, headers={"x-request-id": given})
        assert answer.headers.get_list("x-request-id") == [given]
    assert answer.json()["error"]["request_id"] == given


@pytest.mark.parametrize("given", ["", " ", "a b", "a%0a", "é", "x" * 129, '"}', "<script>", "%s", "a\tb", "a,b"])
def test_an_id_that_could_forge_a_log_line_is_replaced(app_of, given):
    answer = client_of(app_of(auth="none")).get("/nothing", headers={"x-request-id": given.encode()})
    (made,) = answer.headers.get_list("x-request-id")
    assert made != given
    assert len(made) == 32
    assert answer.json()["error"]["request_id"] == made


def test_each_request_has_an_id_of_its_own_and_so_have_its_log_lines(app_of, monkeypatch, caplog):
    from mets_ray.model.predictor import Predictor

    monkeypatch.setattr(Predictor, "windows", None)
    client = client_of(app_of(auth="none"))
    with caplog.at_level(logging.INFO, logger="ray.serve"):
        for given in ("first", "second"):
            answer = client.post(
                "/v1/zero-shot", json={"ecg": json_ecg(synthetic_ecg())}, headers={"x-request-id": given}
            )
            assert answer.json()["error"]["request_id"] == given
    faults = [record for record in caplog.records if "failed: TypeError" in record.getMessage()]
    assert [record.request_id for record in faults] == ["first", "second"]
    for record, given in zip(faults, ("first", "second"), strict=True):
        assert record.getMessage().startswith(f"[request {given}] POST /v1/zero-shot failed")


def test_where_ray_answers_the_id_it_is_not_answered_twice(service, app_of):
    """Ray Serve puts an id into the request and repeats it in the answer."""
    client = client_of(create_app(service, Counts(), names_requests=False))
    assert "x-request-id" not in client.get("/healthz", headers={"x-request-id": "of-ray"}).headers
    answer = client.get("/nothing", headers={"x-request-id": "not plain"})  # Ray repeats this one as it is
    assert answer.headers["x-request-id"] == answer.json()["error"]["request_id"]


def audited(caplog):
    lines = [record.getMessage() for record in caplog.records if record.name == "ray.serve.audit"]
    caplog.clear()
    return [json.loads(line.removeprefix("audit ")) for line in lines]


def test_each_scoring_and_each_write_leaves_one_line_that_holds_no_data(scoped, service, caplog):
    ward = {"authorization": "Bearer token-of-ward-3-score", "x-request-id": "r-1"}
    label = "a label that names a patient"
    query = {"unit": "uV", "sampling_rate_hz": 100, "leads": ",".join(LEADS), "candidate_labels": label}
    body = npy((synthetic_ecg().signal_mv * 1000).astype("int16"))
    facts = {"request_id": "r-1", "who": "ward-3", "model_version": service.predictor.model_version}
    with caplog.at_level(logging.INFO, logger="ray.serve"):
        headers = ward | {"content-type": "application/x-npy"}
        assert scoped.post("/v1/zero-shot", params=query, content=body, headers=headers).status_code == 200
        (line,) = audited(caplog)
        assert line == facts | {
            "needs": "score",
            "method": "POST",
            "route": "/v1/zero-shot",
            "status": 200,
            "prompt_set": None,
            "classes_sha256": hashlib.sha256(json.dumps([[label], None], separators=(",", ":")).encode()).hexdigest(),
            "body_bytes": len(body),
            "body_sha256": hashlib.sha256(body).hexdigest(),
        }
        ecg = json_ecg(synthetic_ecg())
        scoped.post("/v1/zero-shot/batch", json={"ecgs": [ecg], "prompt_set": "mets:synthetic"}, headers=ward)
        (line,) = audited(caplog)
        assert (line["prompt_set"], line["route"], line["who"]) == ("mets:synthetic@1", "/v1/zero-shot/batch", "ward-3")
        scoped.post("/v1/embed", json={"ecg": ecg}, headers=ward)
        scoped.post("/v1/ecg", json=ecg, headers=ward)
        assert [line["route"] for line in audited(caplog)] == ["/v1/embed", "/v1/ecg"]
        labels = {"candidate_labels": [label, "other"]}
        scoped.put("/v1/prompt-sets/audited", json=labels, headers={"authorization": "Bearer token-of-the-librarian"})
        (line,) = audited(caplog)
        assert (line["who"], line["prompt_set"], line["status"]) == ("librarian", "audited@1", 201)
        assert len(line["classes_sha256"]) == 64
        # refused ones too
        scoped.put("/v1/prompt-sets/audited", json=labels, headers=ward)
        scoped.put("/v1/prompt-sets/A%20patient", json=labels)
        scoped.post("/v1/zero-shot", json={"ecg": ecg, "candidate_labels": [label] * 2}, headers=ward)
        wrong_scope, nobody, repeated = audited(caplog)
        assert (wrong_scope["who"], wrong_scope["status"], wrong_scope["prompt_set"]) == ("ward-3", 403, "audited")
        assert (nobody["who"], nobody["status"], nobody["body_sha256"], nobody.get("prompt_set")) == (
            None,
            401,
            None,
            None,
        )
        assert (repeated["who"], repeated["status"]) == ("ward-3", 422)
        # what neither scores nor writes leaves none
        scoped.get("/v1/model", headers=ward)
        scoped.get("/healthz")
        scoped.post("/v1/nothing", headers=ward)
        assert not audited(caplog)


def test_no_log_line_holds_a_token_a_label_or_a_sample(scoped, caplog):
    label = "a label that names a patient"
    with caplog.at_level(logging.DEBUG):
        for token in ("token-of-ward-3-score", "token-that-is-wrong"):
            headers = {"authorization": f"Bearer {token}"}
            body = {"ecg": json_ecg(synthetic_ecg()), "candidate_labels": [label]}
            scoped.post("/v1/zero-shot", json=body, headers=headers)
            scoped.put(f"/v1/prompt-sets/{label}", json={"candidate_labels": [label]}, headers=headers)
    text = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    assert "audit" in text
    for secret in ("token-of-ward", "token-that", "patient", str(synthetic_ecg().signal_mv[0, 5])):
        assert secret not in text
