"""The documentation against the tree: every package, file, setting, route and link that it names is there."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import mets_ray
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PACKAGE = ROOT / "mets_ray"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# Paths in backticks that begin like these are files of the repository.
NAMED = re.compile(r"`((?:mets_ray|jobs|tests|docs|examples|benchmarks|serve_configs)/[\w./-]+)`")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def words_of(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_pages_load_nothing_from_elsewhere(site):
    loading = re.compile(
        r"<(?:script|img|iframe|link rel=\"(?:stylesheet|preconnect|icon)\")[^>]*(?:src|href)=\"?(?:https?:)?//"
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assert [page.name for page in pages if loading.search(page.read_text())] == []


def test_the_configuration_reference_has_every_setting(site):
    from mets_ray.config.load import describe_settings
    from mets_ray.exchange.settings import ExportConfig
    from mets_ray.serve.settings import ServeConfig

    text = words_of(site / "reference/configuration.html")
    keys = re.findall(r"^  ([\w.]+) = ", describe_settings(), re.MULTILINE)
    assert len(keys) > 80
    assert [key for key in [*keys, *ServeConfig.model_fields, *ExportConfig.model_fields] if key not in text] == []


def test_the_python_reference_has_every_public_name(site):
    page = (site / "reference/python.html").read_text()
    documented = {anchor.rpartition(".")[2] for anchor in re.findall(r'id="(mets_ray[\w.]*)"', page)}
    assert set(mets_ray.__all__) - {"__version__"} <= documented
    assert {"zero_shot", "embed", "facts"} <= documented


def test_the_http_reference_has_every_route():
    sources = "\n".join(path.read_text() for path in (PACKAGE / "serve").glob("*.py"))
    routes = re.findall(r"\.(get|post|put|delete)\(\s*\"(/[^\"]*)\"", sources)
    assert len(routes) >= 10
    text = (DOCS / "reference/http.md").read_text()
    assert [route for verb, route in routes if f"`{verb.upper()} {route}`" not in text] == []


def test_every_package_has_its_line():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    lines = re.findall(r"^\| `(\w+)/` \|", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    assert sorted(lines) == sorted(packages)


def test_packages_stand_in_the_order_of_their_imports():
    contract = (ROOT / "pyproject.toml").read_text().split("layers = [", 1)[1].split("]", 1)[0]
    layers = [set(re.findall(r"\w+", line)) for line in contract.splitlines() if line.strip()]
    floor = {name: number for number, names in enumerate(reversed(layers)) for name in names}
    lines = re.findall(r"^\| `(\w+)/` \|", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    assert [floor[name] for name in lines] == sorted(floor[name] for name in lines)


def test_the_way_from_a_shard_to_the_loss_is_short():
    route = (DOCS / "architecture.md").read_text().split("**From a shard to the loss**", 1)[1].split("**", 1)[0]
    stops = re.findall(r"^\d+\. `mets_ray/(\w+)/\w+\.py`", route, re.MULTILINE)
    assert 5 < len(stops) <= 10
    assert len(set(stops)) <= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    named = set(NAMED.findall(FENCED.sub("", page.read_text())))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    text = FENCED.sub("", page.read_text())
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    assert [link for link in links if link and "://" not in link and not (page.parent / link).exists()] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    assert (ROOT / "README.md").read_text().count("not a medical device") == 1


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in (DOCS / "images").iterdir()}
    assert {"page.png", "roc.png", "architecture.svg"} <= set(sizes)
    assert [name for name, size in sizes.items() if size >= 300_000] == []


def test_prompt_files_of_the_pages_can_be_read():
    from mets_ray.tasks.prompt_files import parse_prompt_file

    found = 0
    for page in (DOCS / "extend/prompt-set.md", DOCS / "guide/evaluate.md"):
        for suffix, content in re.findall(
            r"^```(json|yaml|csv)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
        ):
            prompt_set = parse_prompt_file(content.encode(), f"clinic.{suffix}")
            assert set(prompt_set.tasks["rhythm"]) == {"AF", "SR"}
            found += 1
    assert found == 4


def test_the_changelog_names_the_schema_versions():
    from mets_ray.dataset import card
    from mets_ray.model import bundle
    from mets_ray.serve import prompt_set_files

    text = (ROOT / "CHANGELOG.md").read_text()
    for name, version, read in (
        ("data set", card.SCHEMA_VERSION, card.READ_VERSIONS),
        ("bundle", bundle.BUNDLE_SCHEMA_VERSION, bundle.READ_VERSIONS),
        ("registered prompt set", prompt_set_files.SCHEMA_VERSION, (1, prompt_set_files.SCHEMA_VERSION)),
    ):
        assert re.search(rf"^\| {name} \| [^|]+ \| {version} \| {', '.join(map(str, read))} \|$", text, re.MULTILINE), (
            name
        )


def test_github_runs_what_ci_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    targets = [step.removeprefix("make ") for step in steps]
    assert {"install", "lint", "docs", "bench-check", "test", "test-slow"} == set(targets)
    run = re.findall(r"\bmake ([a-z-]+)", (ROOT / ".ci/run").read_text())
    assert [target for target in run if target not in targets] == []


def test_hooks_call_the_linters_of_make_lint():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]]
    assert all(repo["repo"] == "local" for repo in config["repos"])
    lint = (ROOT / "Makefile").read_text().split("\nlint:", 1)[1].split("\n\n", 1)[0]
    tools = re.findall(r"\$\(BIN\)/([\w-]+)", lint)
    assert {Path(entry.split()[0]).name for entry in entries} == set(tools)
