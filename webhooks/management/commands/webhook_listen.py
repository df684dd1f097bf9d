"""A small receiver for local trials: prints each message, and whether its signature holds."""

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError

from webhooks import signing
from webhooks.signing import BadSignature

_MAX_BYTES = 1024 * 1024


class Listener(ThreadingHTTPServer):
    """Answers `status` to what is signed by one of the secrets, 401 to all else."""

    def __init__(self, port: int, secrets: list[str], *, status: int, out: TextIO) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.secrets, self.status, self.out = secrets, status, out

    def say(self, text: str) -> None:
        self.out.write(f"{text}\n")
        self.out.flush()


class _Handler(BaseHTTPRequestHandler):
    server: Listener
    timeout = 10

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _MAX_BYTES:
            self._answer(413)
            return
        body = self.rfile.read(int(length))
        reason = self._fault(body)
        verdict = f"NOT VERIFIED: {reason}" if reason else "verified"
        self.server.say(f"{self.headers.get('webhook-id', '(no id)')}  {verdict}\n{_readable(body)}")
        self._answer(401 if reason else self.server.status)

    def log_message(self, *args: Any) -> None:
        """Each message is printed already."""

    def _fault(self, body: bytes) -> str:
        """Why no secret fits; empty when one does."""
        reason = "no secret was given"
        for secret in self.server.secrets:
            try:
                signing.verify(secret, dict(self.headers.items()), body)
            except BadSignature as error:
                reason = str(error)
            else:
                return ""
        return reason

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Command(BaseCommand):
    help = "Receive webhooks on 127.0.0.1, verify and print them. Ends with Ctrl-C."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=9000, help="default 9000; 0 takes a free one")
        parser.add_argument("--secret", action="append", default=[], help="whsec_…; may be repeated")
        parser.add_argument("--status", type=int, default=204, help="what to answer, to try failures")

    def handle(self, *args: Any, **options: Any) -> None:
        for secret in options["secret"]:
            try:
                signing.check_secret(secret)
            except BadSignature as error:
                raise CommandError(f"--secret: {error}") from error
        out = getattr(self.stdout, "_out", sys.stdout)
        try:
            server = Listener(options["port"], options["secret"], status=options["status"], out=out)
        except OSError as error:
            raise CommandError(f"port {options['port']}: {error.strerror}") from error
        with server:
            server.say(f"listening on http://127.0.0.1:{server.server_port}/")
            try:
                server.serve_forever(poll_interval=0.2)
            except KeyboardInterrupt:
                server.say("ended")


def _readable(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return repr(body)
