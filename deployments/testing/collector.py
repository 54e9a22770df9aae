"""A collector of traces in this process: OTLP over HTTP, as well or as badly as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """``spans``: what it has taken. ``status``: what it answers; ``wait_s``: after so long, unless
    ``released`` is set before. ``asked``: exports that have come; ``taken_bytes``: of those that
    were taken. ``keep``: spans are read and kept, not only counted in bytes."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    wait_s: float = 0.0
    asked: int = 0
    taken_bytes: int = 0
    keep: bool = True
    released: threading.Event = field(default_factory=threading.Event)

    def take(self, body: bytes) -> None:
        """An export."""
        self.taken_bytes += len(body)
        if not self.keep:
            return
        request = ExportTraceServiceRequest.FromString(body)
        for each in request.resource_spans:
            attributes = each.resource.attributes
            self.resources.append({a.key: a.value.string_value for a in attributes})
            self.spans += [span for scope in each.scope_spans for span in scope.spans]


@contextmanager
def collecting(keep: bool = True) -> Iterator[Collector]:
    """A collector at ``url``, on a free port of the loopback interface."""
    collector = Collector(keep=keep)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.asked += 1
            collector.released.wait(collector.wait_s)
            if collector.status == 200:
                collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(collector.status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing to say."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5.0)
