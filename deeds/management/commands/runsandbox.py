"""Serves the sandbox Main API, in its own process, with no database."""

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from gunicorn.app.base import BaseApplication

from deeds.sandbox.app import SandboxApp
from partner_api import gunicorn_conf


class Command(BaseCommand):
    help = "Serve the sandbox Main API, where test-mode deeds are rendered."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8100)
        parser.add_argument("--threads", type=int, default=16)
        parser.add_argument(
            "--render-seconds",
            type=float,
            default=settings.SANDBOX_RENDER_SECONDS,
            help="the least time a render takes; the Main API takes about 0.45",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        app = SandboxApp(settings.SANDBOX_TOKEN, render_seconds=options["render_seconds"])
        _Server(
            app,
            {
                "bind": f"{options['host']}:{options['port']}",
                "worker_class": "gthread",
                # One process, because it counts how often a deed has failed already.
                "workers": 1,
                "threads": options["threads"],
                "timeout": 0,
                "graceful_timeout": 5,
                "keepalive": 60,
                "logconfig_dict": gunicorn_conf.logconfig_dict,
            },
        ).run()


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, app: SandboxApp, options: dict[str, Any]) -> None:
        self.app = app
        self.options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self.options.items():
            self.cfg.set(name, value)

    def load(self) -> SandboxApp:
        return self.app
