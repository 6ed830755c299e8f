"""A Databricks workspace on loopback, and the cloud storage behind it.

It answers as Databricks does where MLflow asks: runs, logged models, their artifacts page by page,
signed addresses, the Files API of volumes; and where a training asks: whom the token is of, folders
of the workspace, experiments and runs. That MLflow's own client works with it is tested.
``FakeDatabricks`` is one workspace with one run that holds a model in one of three places; what it
is asked and what the storage is asked is kept. ``spoil`` breaks single answers.

    with FakeDatabricks(kind="model").running() as workspace:
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        resolve_model("databricks", RUN_ID, None)
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.servers.mlflow_servers import MODEL_ID, RUN_ID, send

TOKEN = "dapi-canary-of-the-workspace"
SIGNATURE = "canary-signature"
PAGE = 3
"""Entries in a page: few, so that every listing has several."""
ROOTS = {
    "run": f"dbfs:/databricks/mlflow-tracking/7/{RUN_ID}/artifacts",
    "model": f"dbfs:/databricks/mlflow-tracking/7/logged_models/{MODEL_ID}/artifacts",
    "volume": "dbfs:/Volumes/main/ml/models/7/a b",
}


@dataclass(frozen=True)
class Asked:
    """A request: its method, path, query, headers by lower-case name, and JSON."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


Spoil = Callable[[Asked, BaseHTTPRequestHandler], bool]


@dataclass
class FakeDatabricks:
    """A workspace with one finished run and its model.

    Attributes:
        kind: Where the model is: ``run`` (as MLflow 2 has it), ``model`` (MLflow 3) or ``volume``.
        files: The model's files.
        token: The only one that is let in.
        uses: How often one signed address is answered; None for always.
        storage: What it names in place of its own storage.
        spoil: Called first with each request to the workspace; True where it has answered.
        spoil_storage: The same for the storage.
        user: Whose token it is.
        folders: Of the workspace; an experiment is only made in one of them.
        experiments: Id by name.
        asked: All requests to the workspace.
        fetched: All requests to the storage.
        url: The workspace's address while it runs.
    """

    kind: str = "model"
    files: dict[str, bytes] = field(default_factory=lambda: {"MLmodel": b"flavors: {}\n"})
    token: str = TOKEN
    uses: int | None = None
    storage: str = ""
    spoil: Spoil = lambda asked, handler: False
    spoil_storage: Spoil = lambda asked, handler: False
    user: str = "jane@nextdoor.com"
    folders: set[str] = field(default_factory=lambda: {"/Shared"})
    experiments: dict[str, str] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    fetched: list[Asked] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self._spent: dict[str, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[FakeDatabricks]:
        """Serves on two free ports of loopback for as long as the block runs."""
        with ExitStack() as stack:
            self.url = stack.enter_context(serving(self._workspace))
            storage = stack.enter_context(serving(self._storage))
            self.storage = self.storage or storage
            yield self

    def count(self, end: str) -> int:
        """Returns how many requests to the workspace had a path of this end."""
        return sum(asked.path.endswith(end) for asked in self.asked)

    def _workspace(self, asked: Asked, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(asked)
        if self.spoil(asked, handler):
            return
        if asked.path.startswith("/.well-known/"):
            return send(handler, 404, b"{}")
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            said = {"error_code": 403, "message": "Invalid access token. <x?sig=oops>"}
            return send(handler, 403, json.dumps(said).encode())
        if asked.path.startswith("/api/2.0/fs/files/Volumes/"):
            return self._send_file(asked, handler, self._of_volume(asked.path))
        if "/WorkspaceInternal/" in asked.path:  # what MLflow tries first, and not everyone may
            return send(handler, 403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}')
        if (found := self._answer(asked)) is None:
            found = self._training(asked)
        if found is None:
            said = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"no {asked.path}"}
            return send(handler, 404, json.dumps(said).encode())
        send(handler, 200, json.dumps(found).encode())

    def _answer(self, asked: Asked) -> dict[str, Any] | None:
        api = asked.path.removeprefix("/api/2.0")
        if api == "/mlflow/runs/get" and asked.query["run_id"] == RUN_ID:
            return {"run": self._run()}
        if api == f"/mlflow/logged-models/{MODEL_ID}" and self.kind != "run":
            return {"model": self._model()}
        if api == "/mlflow/artifacts/list" and self.kind == "run":
            return self._listing(asked.query.get("path", ""), "model", asked)
        if api == f"/mlflow/logged-models/{MODEL_ID}/artifacts/directories":
            return self._listing(asked.query.get("artifact_directory_path", ""), "", asked)
        if api == "/mlflow/artifacts/credentials-for-read" and asked.body["run_id"] == RUN_ID:
            return {"credential_infos": [self._signed(path) for path in asked.body["path"]]}
        if api == f"/mlflow/logged-models/{MODEL_ID}/artifacts/credentials-for-download":
            signed = [self._signed(path) for path in asked.body["paths"]]
            return {"credentials": [{"credential_info": one} for one in signed]}
        if api.startswith("/fs/directories/Volumes/"):
            return self._volume_listing(self._of_volume(asked.path), asked)
        return None

    def _training(self, asked: Asked) -> dict[str, Any] | None:
        api, body = asked.path.removeprefix("/api/2.0"), asked.body
        if api == "/preview/scim/v2/Me":
            return {"userName": self.user, "active": True}
        if api == "/workspace/mkdirs":
            parts = body["path"].split("/")
            self.folders |= {"/".join(parts[:count]) for count in range(2, len(parts) + 1)}
            return {}
        if api == "/mlflow/experiments/get-by-name":
            name = asked.query["experiment_name"]
            return self._experiment(name) if name in self.experiments else None
        if api == "/mlflow/experiments/create" and body["name"].rpartition("/")[0] in self.folders:
            number = self.experiments.setdefault(body["name"], str(len(self.experiments) + 7))
            return {"experiment_id": number}
        if api == "/mlflow/runs/create" and body["experiment_id"] in self.experiments.values():
            return {"run": self._run()}
        if api in ("/mlflow/runs/log-batch", "/mlflow/runs/update"):
            return {"run_info": self._run()["info"]} if api.endswith("update") else {}
        return None

    def _experiment(self, name: str) -> dict[str, Any]:
        found = {"name": name, "experiment_id": self.experiments[name]}
        return {"experiment": found | {"lifecycle_stage": "active"}}

    def _run(self) -> dict[str, Any]:
        info = {"run_id": RUN_ID, "experiment_id": "7", "run_name": "quiet-owl"}
        info |= {"status": "FINISHED", "lifecycle_stage": "active", "artifact_uri": ROOTS["run"]}
        history = [{"run_id": RUN_ID, "artifact_path": "model", "utc_time_created": "2026"}]
        tag = {"key": "mlflow.log-model.history", "value": json.dumps(history)}
        if self.kind == "run":
            return {"info": info, "data": {"tags": [tag]}}
        outputs = {"model_outputs": [{"model_id": MODEL_ID, "step": "0"}]}
        return {"info": info, "data": {}, "outputs": outputs}

    def _model(self) -> dict[str, Any]:
        info = {"model_id": MODEL_ID, "name": "model", "status": "LOGGED_MODEL_READY"}
        info |= {"artifact_uri": ROOTS[self.kind], "experiment_id": "7"}
        info |= {"creation_timestamp_ms": "1700000000000", "last_updated_timestamp_ms": "1"}
        return {"info": info, "data": {}}

    def _listing(self, folder: str, root: str, asked: Asked) -> dict[str, Any]:
        """Lists a folder as the tracking API does: paths from the artifacts' root, 64 bit text."""
        rows = []
        for name, size in self._children(root, folder):
            path = f"{folder}/{name}".lstrip("/")
            row = {"path": path, "is_dir": size is None}
            rows.append(row if size is None else row | {"file_size": str(size)})
        return _paged("files", rows, asked)

    def _volume_listing(self, folder: str, asked: Asked) -> dict[str, Any]:
        root = ROOTS["volume"].removeprefix("dbfs:")
        rows = []
        for name, size in self._children(root, folder):
            row = {"path": f"{folder}/{name}", "name": name, "is_directory": size is None}
            rows.append(row if size is None else row | {"file_size": size})
        return _paged("contents", rows, asked)

    def _children(self, root: str, folder: str) -> list[tuple[str, int | None]]:
        """Returns name and size of what is in a folder; None is a folder's size."""
        found: dict[str, int | None] = {}
        for path, data in self.files.items():
            whole = f"{root}/{path}" if root else path
            if folder and not whole.startswith(folder + "/"):
                continue
            name, slash, _ = whole.removeprefix(folder).lstrip("/").partition("/")
            found[name] = None if slash else len(data)
        return list(found.items())

    def _of_volume(self, path: str) -> str:
        return unquote(re.sub(r"/api/2\.0/fs/(files|directories)", "", path))

    def _signed(self, path: str) -> dict[str, Any]:
        with self._lock:
            number = next(self._numbers)
        url = f"{self.storage}/{quote(path)}?X-Amz-Signature={SIGNATURE}-{number}"
        headers = [{"name": "x-storage-key", "value": "needed"}]
        return {"path": path, "signed_uri": url, "headers": headers, "type": "AWS_PRESIGNED_URL"}

    def _storage(self, asked: Asked, handler: BaseHTTPRequestHandler) -> None:
        self.fetched.append(asked)
        if self.spoil_storage(asked, handler):
            return
        signature = asked.query.get("X-Amz-Signature", "")
        with self._lock:
            self._spent[signature] = spent = self._spent.get(signature, 0) + 1
        is_signed = signature.startswith(SIGNATURE) and "authorization" not in asked.headers
        if not is_signed or asked.headers.get("x-storage-key") != "needed":
            return send(handler, 403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        if self.uses is not None and spent > self.uses:
            return send(handler, 403, b"<Error><Code>AccessDenied</Code>expired</Error>")
        self._send_file(asked, handler, unquote(asked.path).lstrip("/"))

    def _send_file(self, asked: Asked, handler: BaseHTTPRequestHandler, path: str) -> None:
        prefix = {"run": "model/", "model": "", "volume": ROOTS["volume"][5:] + "/"}[self.kind]
        data = self.files.get(path.removeprefix(prefix))
        if data is None:
            return send(handler, 404, b"<Error><Code>NoSuchKey</Code></Error>")
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'  # as S3 has it
        if asked.headers.get("if-match", etag) != etag:
            return send(handler, 412, b"<Error><Code>PreconditionFailed</Code></Error>")
        if asked.headers.get("if-none-match") == etag:
            return send(handler, 304, b"", ETag=etag)
        if not (ranged := re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))):
            return send(handler, 200, data, "application/octet-stream", ETag=etag)
        start, stop = int(ranged[1]), int(ranged[2] or len(data) - 1) + 1
        placed = f"bytes {start}-{stop - 1}/{len(data)}"
        send(handler, 206, data[start:stop], "x/y", ETag=etag, Content_Range=placed)


def _paged(field_name: str, rows: list[dict[str, Any]], asked: Asked) -> dict[str, Any]:
    start = int(asked.query.get("page_token", 0))
    page: dict[str, Any] = {field_name: rows[start : start + PAGE]}
    if start + PAGE < len(rows):
        page["next_page_token"] = str(start + PAGE)
    return page if rows else {}


@contextmanager
def serving(answer: Callable[[Asked, BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: else each answer costs 40 ms

        def _any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(length)
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            body = json.loads(data) if data else None
            answer(Asked(self.command, address.path, query, headers, body), self)

        do_GET = do_POST = do_HEAD = _any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
