"""What HTTP needs to remember: answers to idempotent requests."""

from django.apps import AppConfig


class HttpConfig(AppConfig):
    name = "partner_api.http"
    label = "http"
