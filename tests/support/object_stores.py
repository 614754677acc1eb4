"""Real servers from which a log is fetched: S3 (moto), HTTP with ETags, and a part of Google's JSON API."""

import hashlib
import json
import logging
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer


@dataclass
class Files:
    """The files of a server by path."""

    address: str = ""
    contents: dict[str, bytes] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    unversioned: set[str] = field(default_factory=set)
    during: Callable[[], None] | None = None
    """Called once in the middle of the next file that is sent."""

    def generation(self, path: str) -> str:
        return str(int(hashlib.md5(self.contents[path]).hexdigest()[:12], 16))


class _Handler(BaseHTTPRequestHandler):
    files: Files

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2])
            happen, self.files.during = self.files.during, None
            if happen and body:
                happen()
            self.wfile.write(body[len(body) // 2 :])


class _Web(_Handler):
    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in self.files.forbidden:
            self.answer(403)
        elif path not in self.files.contents:
            self.answer(404)
        else:
            body = self.files.contents[path]
            tag = {} if path in self.files.unversioned else {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
            wanted = self.headers.get("If-Match")
            self.answer(*((412,) if wanted and wanted != tag.get("ETag") else (200, body)), **tag)

    do_HEAD = do_GET


class _Google(_Handler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        bucket, _, name = parts.path.partition("/b/")[2].partition("/o/")
        path = f"/{bucket}/{unquote(name)}"
        if path in self.files.forbidden:
            self.answer(403)
        elif path not in self.files.contents:
            self.answer(404)
        elif query.get("ifGenerationMatch", self.files.generation(path)) != self.files.generation(path):
            self.answer(412)
        elif query.get("alt") == "media":
            self.answer(200, self.files.contents[path])
        else:
            body = {"name": path[1:].partition("/")[2], "generation": self.files.generation(path)}
            self.answer(200, json.dumps(body).encode(), Content_Type="application/json")


@contextmanager
def _serving(kind: type[_Handler], tls: ssl.SSLContext | None = None) -> Iterator[Files]:
    files = Files()
    handler: Any = type("Handler", (kind,), {"files": files})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        files.address = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        yield files
        server.shutdown()
        thread.join()


@contextmanager
def web_server(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Files]:
    """Serve https with a certificate that this process trusts for as long as `patch` lasts."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-keyout", key, "-out", certificate, *names]
    subprocess.run(made, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    patch.setenv("SSL_CERT_FILE", str(certificate))
    with _serving(_Web, tls) as files:
        yield files


@contextmanager
def google_server(patch: pytest.MonkeyPatch) -> Iterator[Files]:
    with _serving(_Google) as files:
        patch.setenv("STORAGE_EMULATOR_HOST", files.address)
        yield files


@contextmanager
def s3_server(patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a client of an S3 server that the environment names."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (names | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
        patch.setenv(name, value)
    client = boto3.client("s3")
    yield client
    client.close()
    server.stop()
