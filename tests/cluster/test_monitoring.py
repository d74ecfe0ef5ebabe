"""Alert rules and dashboard: files that Prometheus and Grafana read, with metrics that somebody exports.

The names come from the sources of this package and of the installed Ray; `tests/ray/test_serve.py` compares them with
what a running cluster shows.
"""

import ast
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "docs" / "deploy"
RULES = DEPLOY / "prometheus-rules.yaml"
DASHBOARD = DEPLOY / "grafana-dashboard.json"
METRIC = re.compile(r"\bray_[a-z0-9_]+")
SUFFIXES = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}


def alerts():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels():
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions():
    yield from ((f"alert {rule['alert']}", rule["expr"]) for rule in alerts())
    yield from ((f"panel {panel['title']}", target["expr"]) for panel in panels() for target in panel["targets"])


def named_metrics():
    """Every metric that a rule or a panel names, as Prometheus sees it."""
    return {name for _, expression in expressions() for name in METRIC.findall(expression)}


# What is exported


@cache
def exported():
    """Name as Prometheus sees it → tags, of every metric that mets_ray, Ray Serve or Ray's node agent makes."""
    import ray

    package = Path(ray.__file__).parent
    files = [*(ROOT / "mets_ray").rglob("*.py"), *(package / "serve").rglob("*.py")]
    found = {}
    for file in files:
        for kind, name, tags in made_in(ast.parse(file.read_text())):
            for suffix in SUFFIXES[kind]:
                found[f"ray_{name.removesuffix(suffix) if suffix else name}{suffix}"] = tags
    agent = (package / "dashboard" / "modules" / "reporter" / "reporter_agent.py").read_text()
    declared = agent.split("METRICS_GAUGES = {", 1)[1].split("\n}", 1)[0]
    return found | {f"ray_{name}": None for name in re.findall(r'^    "(node_\w+)": Gauge\(', declared, re.MULTILINE)}


def made_in(tree):
    """(kind, name, tags or None) of each `Counter(...)`, `Gauge(...)`, `Histogram(...)`; f-strings for HTTP."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        kind = getattr(node.func, "attr", getattr(node.func, "id", None))
        given = {word.arg: word.value for word in node.keywords}
        name = text_of(node.args[0] if node.args else given.get("name"))
        if kind not in SUFFIXES or name is None:
            continue
        tags = given.get("tag_keys")
        yield kind, name, set(ast.literal_eval(tags)) if isinstance(tags, ast.Tuple) else None


def text_of(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):  # Ray: f"serve_num_{protocol_name}_requests"
        parts = [part.value if isinstance(part, ast.Constant) else "http" for part in node.values]
        return "".join(parts)
    return None


def test_this_package_and_ray_export_what_rules_and_dashboard_name():
    assert len(named_metrics()) > 20
    assert sorted(named_metrics() - set(exported())) == []
    ours = {name for name in exported() if name.startswith("ray_mets_ray_")}
    seen = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named_metrics()}
    missing = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours} - seen
    assert missing <= {"ray_mets_ray_batch_size"}, "a metric of ours that nobody looks at"


def test_names_and_tags_that_nobody_exports_are_noticed():
    assert not {"ray_mets_ray_requests", "ray_mets_ray_latency_ms_bucket", "ray_serve_http_requests_total"} & set(
        exported()
    )
    assert exported()["ray_mets_ray_requests_total"] == {"route", "status", "model_version"}
    assert {"route", "method", "application", "status_code"} == exported()["ray_serve_num_http_requests_total"]


OF_SERVE = {"application", "deployment", "replica", "le"}  # Serve adds them to each metric of a replica
OF_NODES = {"instance"}  # Prometheus adds it


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_an_expression_selects_by_tags_that_its_metric_has(where, expression):
    for name, selector in re.findall(r"\b(ray_[a-z0-9_]+)\{([^}]*)\}", expression):
        tags = exported()[name]
        used = set(re.findall(r"(\w+)\s*=", selector))
        assert tags is None or used <= tags | OF_SERVE, (where, name)
    by = {tag.strip() for tags in re.findall(r"\bby \(([^)]*)\)", expression) for tag in tags.split(",")}
    known = set().union(*(exported()[name] or () for name in METRIC.findall(expression)))
    assert by <= known | OF_SERVE, where


def test_reasons_that_rules_select_are_reasons_that_the_server_gives():
    sources = "\n".join(path.read_text() for path in (ROOT / "mets_ray" / "serve").glob("*.py"))
    for where, expression in expressions():
        for reasons in re.findall(r'reason=~?"([^"]+)"', expression):
            for reason in reasons.split("|"):
                assert f'"{reason}"' in sources, (where, reason)
        for route in re.findall(r'route="([^"]+)"', expression):
            assert f'"{route}"' in sources, (where, route)
        for name in re.findall(r'deployment="([^"]+)"', expression):
            assert f"class {name}:" in sources, (where, name)


def test_the_application_has_the_name_that_rules_select():
    named = {name for _, expression in expressions() for name in re.findall(r'application="([^"]+)"', expression)}
    assert named == {"mets_ray"}
    assert 'name="mets_ray"' in (ROOT / "mets_ray" / "serve" / "run.py").read_text()
    for file in (ROOT / "serve_configs").glob("*.yaml"):
        assert "- name: mets_ray\n" in file.read_text()


# The files


def test_every_alert_says_what_happened_how_bad_it_is_and_what_to_do():
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) >= 12
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for rule in alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/runbook.md"
        assert anchor in anchors, f"{rule['alert']}: no heading for {anchor}"
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_objectives_are_the_same_in_rules_dashboard_and_page():
    page = (DEPLOY / "slo.md").read_text()
    assert "99.5 %" in page
    assert "500 ms" in page
    rules = {rule["alert"]: rule["expr"] for rule in alerts()}
    assert "14.4 * 0.005" in rules["MetsRayErrorBudgetFast"]
    assert "6 * 0.005" in rules["MetsRayErrorBudgetSlow"]
    assert rules["MetsRaySlow"].rstrip().endswith("> 500")
    assert [name for name in rules if f"`{name}`" not in page] == []


def test_panels_have_a_place_and_a_source_of_their_own():
    dashboard = json.loads(DASHBOARD.read_text())
    (variable,) = dashboard["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        assert [target["refId"] for target in panel["targets"]] == ["A", "B", "C"][: len(panel["targets"])]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian's package prometheus has it)")
def test_promtool_takes_the_rules_and_they_fire_when_they_should():
    for command in (["check", "rules", str(RULES)], ["test", "rules", "tests/cluster/prometheus_rules_test.yaml"]):
        done = subprocess.run(["promtool", *command], cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
