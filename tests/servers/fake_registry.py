"""A registry in this process, for what ``docker-registry`` cannot be made to do.

It implements the distribution API whole (and passes the contract tests that the real one passes);
``Behaviour`` says how it differs: tokens, immutable tags, refused mounts, the referrers API, blobs
by redirect. ``Fault`` breaks single requests. Every request is kept in ``requests``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class Behaviour:
    """How this registry differs from a plain one."""

    mounts: bool = True
    immutable_tags: bool = False
    referrers_api: bool = False
    bearer: str = ""  # login "user:password" that the token server wants; "anonymous" for none
    basic: str = ""
    realm: str = ""  # where tokens are issued; by default here
    blobs_at: str = ""  # base URL that blob reads are redirected to
    absolute_location_host: str = ""  # what uploads are said to be at
    token_uses: int = 10**9  # how many requests a token is good for


@dataclass
class Fault:
    """What happens to the next ``times`` requests of ``method`` whose path has ``part`` in it.

    ``status`` answers (with ``headers`` and ``body``) without doing it; ``cut_after`` closes the
    connection after so many bytes of the body; ``lost`` does it and closes without an answer;
    ``early`` answers ``status`` before the body was read, and closes;
    ``stall_s`` is silent for so long, then closes; ``truncate`` sends that much of the answer's
    body; ``flip`` changes a bit of it.
    """

    method: str
    part: str = ""
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    lost: bool = False
    early: bool = False
    stall_s: float = 0
    truncate: int | None = None
    flip: bool = False


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    authorization: str
    body_bytes: int
    headers: dict[str, str]


class FakeRegistry(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{self.host}"
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.blobs: dict[str, bytes] = {}
        self.links: set[tuple[str, str]] = set()  # (repository, digest)
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.sessions: set[str] = set()
        self.tokens: dict[str, int] = {}
        self.lock = threading.RLock()

    def handle_error(self, request, client_address):  # a cut connection is no news here
        pass

    def sent_bytes(self, method="PUT", part="/blobs/") -> int:
        return sum(r.body_bytes for r in self.requests if r.method == method and part in r.path)

    def count(self, method: str, part: str = "") -> int:
        return sum(r.method == method and part in r.path for r in self.requests)


@contextmanager
def fake_registry(**behaviour) -> Iterator[FakeRegistry]:
    server = FakeRegistry(Behaviour(**behaviour))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeRegistry

    def log_message(self, *_):
        pass

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.scopes = parse_qs(parts.query).get("scope", [])
        fault = self._fault(parts.path)
        self.fault = fault
        if fault and fault.stall_s:
            time.sleep(fault.stall_s)
            return self._close()
        if fault and fault.early:
            self.reply(fault.status, fault.body, **fault.headers)
            self.connection.shutdown(socket.SHUT_WR)
            self.close_connection = True
            time.sleep(0.1)
            return None
        body = self._read_body(fault.cut_after if fault else None)
        self._note(len(body))
        if fault and fault.cut_after is not None:
            return self._close()
        if fault and fault.status:
            return self.reply(fault.status, fault.body, **fault.headers)
        with self.server.lock:
            if parts.path == "/token":
                return self._token(body)
            if self._authorized(parts.path):
                self._route(parts.path, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _fault(self, path: str) -> Fault | None:
        with self.server.lock:
            for fault in self.server.faults:
                if fault.method == self.command and fault.part in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def _note(self, body_bytes: int) -> None:
        headers = dict(self.headers.items())
        authorization = headers.get("Authorization", "")
        self.server.requests.append(
            Request(self.command, self.path, authorization, body_bytes, headers)
        )

    def _read_body(self, limit: int | None) -> bytes:
        left = int(self.headers.get("Content-Length") or 0)
        left = left if limit is None else min(left, limit)
        pieces = []
        while left:
            piece = self.rfile.read(min(left, 1 << 16))
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _close(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _authorized(self, path: str) -> bool:
        behaviour, given = self.server.behaviour, self.headers.get("Authorization", "")
        if behaviour.basic:
            wanted = "Basic " + base64.b64encode(behaviour.basic.encode()).decode()
            if given == wanted:
                return True
            self.error(401, "UNAUTHORIZED", "log in", **{"WWW-Authenticate": 'Basic realm="x"'})
            return False
        if not behaviour.bearer:
            return True
        uses = self.server.tokens.get(given.removeprefix("Bearer "), 0)
        if uses:
            self.server.tokens[given.removeprefix("Bearer ")] -= 1
            granted = json.loads(base64.b64decode(given.removeprefix("Bearer ").split(".")[0]))
            name = path.removeprefix("/v2/").split("/blobs/")[0].split("/manifests/")[0]
            need = "push" if self.command in ("POST", "PUT") else "pull"
            wanted = [(name, need)]
            if "from" in self.query:
                wanted.append((self.query["from"], "pull"))
            scopes = [scope.split(":") for scope in granted]
            if all(any(s[1] == n and w in s[2].split(",") for s in scopes) for n, w in wanted):
                return True
            self.error(403, "DENIED", "the token is not good for this")
            return False
        realm = behaviour.realm or f"{self.server.url}/token"
        challenge = f'Bearer realm="{realm}",service="fake",scope="repository:x:pull"'
        self.error(401, "UNAUTHORIZED", "get a token", **{"WWW-Authenticate": challenge})
        return False

    def _token(self, body: bytes) -> None:
        wanted = self.server.behaviour.bearer
        form = parse_qs(body.decode())
        scopes = form["scope"][0].split() if form else self.scopes
        given = self.headers.get("Authorization", "")
        basic = "Basic " + base64.b64encode(wanted.encode()).decode()
        if wanted != "anonymous" and given != basic and form.get("refresh_token") != [wanted]:
            return self.error(401, "UNAUTHORIZED", "wrong password")
        encoded = base64.b64encode(json.dumps(scopes).encode()).decode()
        token = f"{encoded}.{len(self.server.tokens)}"
        self.server.tokens[token] = self.server.behaviour.token_uses
        self.reply(200, json.dumps({"token": token, "expires_in": 300}).encode())

    def _route(self, path: str, body: bytes) -> None:
        name, _, rest = path.removeprefix("/v2/").rpartition("/blobs/uploads/")
        if name:
            return self._upload(name, rest, body)
        for kind, handle in (
            ("/blobs/", self._blob),
            ("/manifests/", self._manifest),
            ("/referrers/", self._referrers),
        ):
            name, found, rest = path.removeprefix("/v2/").partition(kind)
            if found:
                return handle(name, rest, body)
        if path == "/v2/":
            return self.reply(200, b"{}")
        self.error(404, "UNSUPPORTED", "no such thing")

    def _upload(self, name: str, session: str, body: bytes) -> None:
        server = self.server
        if self.command == "POST":
            digest, source = self.query.get("mount", ""), self.query.get("from", "")
            if server.behaviour.mounts and (source, digest) in server.links:
                server.links.add((name, digest))
                return self.reply(201, b"", Location=f"/v2/{name}/blobs/{digest}")
            session = f"s{len(server.requests)}"
            server.sessions.add(session)
            host = server.behaviour.absolute_location_host
            location = f"/v2/{name}/blobs/uploads/{session}?state=a%2Fb"
            return self.reply(202, b"", Location=(f"http://{host}" if host else "") + location)
        if session not in server.sessions or self.query.get("state") != "a/b":
            return self.error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        server.sessions.discard(session)
        digest = self.query["digest"]
        if self.fault and self.fault.flip:
            body = bytes([body[0] ^ 1]) + body[1:]
        if "sha256:" + hashlib.sha256(body).hexdigest() != digest:
            return self.error(400, "DIGEST_INVALID", "provided digest did not match")
        server.blobs[digest] = body
        server.links.add((name, digest))
        self.reply(201, b"", **{"Docker-Content-Digest": digest})

    def _blob(self, name: str, digest: str, _body: bytes) -> None:
        if (name, digest) not in self.server.links:
            return self.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if self.server.behaviour.blobs_at and self.command == "GET":
            return self.reply(307, b"", Location=f"{self.server.behaviour.blobs_at}/{digest}?sig=1")
        data, start = self.server.blobs[digest], 0
        if ranged := self.headers.get("Range"):
            start = int(ranged.removeprefix("bytes=").rstrip("-"))
        self.reply(206 if ranged else 200, data[start:], **{"Docker-Content-Digest": digest})

    def _manifest(self, name: str, reference: str, body: bytes) -> None:
        server = self.server
        if self.command == "PUT":
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            if reference.startswith("sha256:"):
                if reference != digest:
                    return self.error(400, "DIGEST_INVALID", "provided digest did not match")
            else:
                there = server.tags.get((name, reference))
                if there and server.behaviour.immutable_tags:
                    message = f"The image tag '{reference}' already exists and is immutable."
                    return self.error(400, "TAG_INVALID", message)
                server.tags[name, reference] = digest
            server.manifests[name, digest] = (self.headers["Content-Type"], body)
            return self.reply(201, b"", **{"Docker-Content-Digest": digest})
        digest = server.tags.get((name, reference), reference)
        if (name, digest) not in server.manifests:
            return self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, data = server.manifests[name, digest]
        told = {"Docker-Content-Digest": digest, "Content-Type": media_type}
        self.reply(200, data, **told)

    def _referrers(self, name: str, digest: str, _body: bytes) -> None:
        if not self.server.behaviour.referrers_api:
            return self.error(404, "UNSUPPORTED", "no such thing")
        entries = []
        for (owner, found), (media_type, data) in self.server.manifests.items():
            value = json.loads(data)
            if owner == name and (value.get("subject") or {}).get("digest") == digest:
                entry = {"mediaType": media_type, "digest": found, "size": len(data)}
                entries.append(entry | {"artifactType": value.get("artifactType")})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        self.reply(200, json.dumps(index).encode(), **{"Content-Type": INDEX})

    def error(self, status: int, code: str, message: str, **headers: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self.reply(status, body, **headers)

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        if self.fault and self.fault.lost:
            return self._close()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.fault.flip and self.command == "GET":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if self.fault and self.fault.truncate is not None:
            self.wfile.write(body[: self.fault.truncate])
            return self._close()
        self.wfile.write(body)
