"""A Hugging Face hub of a few kilobytes: what huggingface_hub asks for over HTTP when it uploads and downloads."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

TOKEN = "hf_test"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub, parts = self.server, self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:  # api, models, user, name, "tree" or "revision", commit
            repository, commit = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else None
        else:  # user, name, "resolve", commit, path
            repository, commit = "/".join(parts[:2]), parts[3]
        hub.asked.append(self.path)
        commits = hub.repositories.get(repository)
        if commits is None or (repository in hub.private and not self._is_known()):
            return self._answer(401 if commits else 404, {"error": "none"}, error="RepoNotFound")
        commit = next(reversed(commits), None) if commit in (None, "main") else commit
        if commit not in commits:
            return self._answer(404, {"error": f"Invalid rev id: {commit}"}, error="RevisionNotFound")
        files = commits[commit]
        if parts[0] == "api":
            tree = [{"type": "file", "path": name, "size": len(data), "oid": "2" * 40} for name, data in files.items()]
            info = {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            return self._answer(200, tree if parts[4:5] == ["tree"] else info)
        name = "/".join(parts[4:])
        if name not in files:
            return self._answer(404, {"error": "none"}, error="EntryNotFound")
        hub.fetched.append(name) if self.command == "GET" else None
        return self._send(200, files[name], "application/octet-stream", commit=commit)

    def do_POST(self):
        hub, parts = self.server, self.path.split("?")[0].strip("/").split("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self._is_known():
            return self._answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked['organization']}/{asked['name']}"
            hub.repositories.setdefault(repository, {})
            if asked.get("private") or asked.get("visibility") == "private":
                hub.private.add(repository)
            return self._answer(200, {"url": f"{hub.url}/{repository}"})
        if self.path == "/api/validate-yaml":  # of the model card
            header = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            errors = [] if header.get("license") else [{"message": "no license"}]
            return self._answer(400 if errors else 200, {"errors": errors, "warnings": []})
        repository = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        commit = hashlib.sha1(body).hexdigest()
        hub.repositories[repository][commit] = files
        return self._answer(
            200, {"success": True, "commitOid": commit, "commitUrl": f"{hub.url}/{repository}/commit/{commit}"}
        )

    def _is_known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _answer(self, status, content, *, error=None):
        self._send(status, json.dumps(content).encode(), "application/json", error=error)

    def _send(self, status, content, kind, *, commit=None, error=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        for name, value in (("X-Repo-Commit", commit), ("X-Error-Code", error)):
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


class Hub(ThreadingHTTPServer):
    """`repositories`: files by path, by commit, by `user/name`. `fetched`: the names of the files that were sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.private, self.asked, self.fetched = {}, set(), [], []


@contextlib.contextmanager
def running_hub(monkeypatch, cache):
    """A hub that huggingface_hub in this process talks to, with an empty cache of its own."""
    from huggingface_hub import constants

    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    # It reads its environment once, when it is imported.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
