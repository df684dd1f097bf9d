"""Serves a twin over HTTP/1.1 with kept-alive connections, a thread for each."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from partner_api.local.stripe_twin.app import Dropped, TwinApp
from partner_api.local.stripe_twin.deliveries import Deliveries
from partner_api.local.stripe_twin.world import World


class Twin:
    """A world, the application that shows it, and its webhooks."""

    def __init__(self, world: World, *, webhook_secret: str = "whsec_twin") -> None:  # noqa: S107 - a twin's
        self.world = world
        self.app = TwinApp(world)
        self.webhooks = Deliveries(world, webhook_secret)
        self.url = ""

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[str]:
        """Serves in threads of this process while the context lasts; gives the address."""
        server = server_of(self.app, port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self.url
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news; tests make many."""


def server_of(app: Any, port: int = 0) -> ThreadingHTTPServer:
    """A WSGI application on 127.0.0.1, on any free port unless one is given."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def _serve(self) -> None:
            path, _, query = self.path.partition("?")
            environ = {
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_LENGTH": self.headers.get("Content-Length", ""),
                "wsgi.input": self.rfile,
                **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()},
            }
            try:
                body = b"".join(app(environ, self._start))
            except Dropped:
                self.close_connection = True
                return
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

        def _start(self, status: str, headers: list[tuple[str, str]]) -> None:
            self.send_response_only(int(status[:3]))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    return _Server(("127.0.0.1", port), Handler)
