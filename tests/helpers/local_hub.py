"""A hub on this machine: an HTTP server that answers the calls by which huggingface_hub uploads and downloads a model.

with LocalHub() as hub:
    launch("-c", code, env=hub.environment(cache))
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "0" * 40


class LocalHub:
    """Hold repositories in memory, {owner/name: {path: bytes}}, and the calls that were made, (method, path)."""

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.calls: list[tuple[str, str]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """Return what a process needs to use this hub, with its cache and tokens under `home`."""
        return {"HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_TOKEN": "hf_local", "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}  # fmt: skip

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def post(self, path: str, body: bytes) -> dict:
        """Answer the calls of an upload."""
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = "/".join(filter(None, [wanted.get("organization") or "me", wanted["name"]]))
            self.repositories.setdefault(name, {})
            return {"url": f"{self.address}/{name}", "name": name, "id": name}
        name, _, what = path.removeprefix("/api/models/").partition("/preupload/")
        if what:
            files = json.loads(body)["files"]
            return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        name, _, what = path.removeprefix("/api/models/").partition("/commit/")
        for line in map(json.loads, body.splitlines() if what else []):
            if line["key"] == "file":
                self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return {"commitUrl": f"{self.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}

    def file(self, path: str) -> bytes | None:
        """Return the content at /owner/name/resolve/REVISION/PATH, None for a file that is not there."""
        name, _, rest = unquote(path).lstrip("/").partition("/resolve/")
        return self.repositories.get(name, {}).get(rest.partition("/")[2])

    def known(self, path: str) -> bool:
        return unquote(path).lstrip("/").partition("/resolve/")[0] in self.repositories


def _handler(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def note(self) -> str:
            path = urlparse(self.path).path
            hub.calls.append((self.command, path))
            return path

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = json.dumps(hub.post(self.note(), body)).encode()
            self.answer(200, found, Content_Type="application/json")

        def do_GET(self):
            path = self.note()
            if path.startswith("/api/whoami"):
                return self.answer(200, b'{"name": "me", "type": "user"}', Content_Type="application/json")
            content = hub.file(path)
            if content is None:
                code = "EntryNotFound" if hub.known(path) else "RepoNotFound"
                return self.answer(404, b"", X_Error_Code=code)
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self.answer(200, content, ETag=etag, X_Repo_Commit=COMMIT)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    return Handler
