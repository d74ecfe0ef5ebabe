"""Every command of README, guide and how-tos: its words are checked, and the curl commands run.

`tests/system/test_documented_commands.py` runs whole jobs as the pages write them.
"""

import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.docs.records import write_record
from tests.support.serving import make_bundle, npy, plain_server, synthetic_ecg

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("guide/*.md"))]
PAGES += sorted((ROOT / "docs").glob("extend/*.md"))
# Checked for their syntax only: what they need is not on a test machine. Their line says so in a comment.
NEEDS_MORE = {"serve deploy serve_configs/production.yaml": "# needs a Ray cluster and a bucket"}
# Started for real by the slow tests of that file; what they submit is checked here.
RUN_ELSEWHERE = dict.fromkeys(
    [("ray", "start"), ("ray", "job", "submit"), ("ray", "get-auth-token", "--generate")], "tests/system/test_jobs.py"
)
SHELL = {
    "source .venv/bin/activate",
    "export RAY_AUTH_MODE=token",
    "export 'METS_RAY_PSEUDONYM_KEY=$(openssl rand -hex 32)'",
    "chmod 600 '~/.ray/auth_token'",
}


def blocks(page, language="bash"):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page):
    """The commands of a page, continued lines joined, comments kept."""
    return [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


EVERY = [pytest.param(line, id=f"{page.name}:{line[:50]}") for page in PAGES for line in commands(page)]


@pytest.mark.parametrize("line", EVERY)
def test_a_command_can_be_typed(line):
    assert subprocess.run(["bash", "-n", "-c", line], check=False).returncode == 0
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # PYTHONPATH=. before a command
        words = words[1:]
    text = " ".join(words)
    if text in NEEDS_MORE:
        assert line.endswith(NEEDS_MORE[text])
    elif shlex.join(shlex.split(line, comments=True)) in SHELL or words[0] == "curl":
        return  # `test_the_curl_commands` runs the latter
    elif words[0] == "make":
        assert subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=False).returncode == 0
    elif elsewhere := [file for start, file in RUN_ELSEWHERE.items() if tuple(words[: len(start)]) == start]:
        assert all(f'"{word}"' in (ROOT / elsewhere[0]).read_text() for word in words[:2] if word != "ray")
        if "--" in words:
            check_job(words[words.index("--") + 1 :])
    else:
        check_job(words)


def test_no_page_turns_the_token_off():
    told = [page.name for page in [*PAGES, *(ROOT / "docs").rglob("*.md")] if "AUTH_MODE=disabled" in page.read_text()]
    assert told == []


def check_job(words):
    """Load the settings of `mets-ray NAME …` or `python jobs/NAME.py …`, as the command does before Ray starts."""
    from mets_ray.archive.command import parse_words as parse_search
    from mets_ray.cli import COMMANDS
    from mets_ray.config.flat import read_flat
    from mets_ray.exchange.settings import ExportConfig
    from mets_ray.job import load_settings, parse_words

    if words[0] == "python":
        script = Path(words[1])
        assert script.parent == Path("jobs")
        assert (ROOT / script).is_file()
        name, words = script.stem, words[2:]
    else:
        assert words[0] == "mets-ray", f"{words[0]} is no command that this test knows"
        name, words = words[1], words[2:]
        if name == "serve":
            from mets_ray.serve.run import read_settings

            read_settings(None, words)
            return
        if name == "search":
            assert parse_search(words).words
            return
        if name == "export":
            read_flat(ExportConfig, {}, words)
            return
    arguments = parse_words(COMMANDS[name], [str(ROOT / word) if word.startswith("jobs/") else word for word in words])
    load_settings(COMMANDS[name], arguments)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A folder with the files that the curl commands send."""
    folder = tmp_path_factory.mktemp("user")
    write_record(folder / "records", "00001_lr")
    (folder / "ecg.npy").write_bytes(npy(np.rint(synthetic_ecg().signal_mv * 1000).astype(np.int16)))
    return folder


def test_the_curl_commands(records, tmp_path):
    found = [line for page in PAGES for line in commands(page) if line.startswith("curl")]
    assert len(found) >= 3
    with plain_server(make_bundle(tmp_path), deadline_s=120) as (client, _):
        for line in found:
            command = line.replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/"))
            answer = json.loads(
                subprocess.run(["bash", "-ec", command], cwd=records, check=True, capture_output=True).stdout
            )
            assert [row["class_name"] for row in answer["classes"]] == ["atrial fibrillation", "sinus rhythm"]
            assert sum(row["score"] for row in answer["classes"]) == pytest.approx(1, abs=1e-5)
