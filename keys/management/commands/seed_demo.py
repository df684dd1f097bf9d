"""Two partners with keys, a member of staff and an admin token, for the demo. Refused in production."""

import argparse
import datetime as dt
import json
import os
import secrets
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import jwt
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing import contracts
from keys import roles
from keys.audit import Actor
from keys.models import ApiKey, Authenticator, Partner
from keys.scopes import SCOPES
from keys.secret import KeyText
from webhooks.models import Source

LIMITS = {"rate_limit_per_minute": 6000, "rate_limit_burst": 600}


class Command(BaseCommand):
    help = "Seed the demo's partners, keys and staff, and print them as JSON. Safe to run again."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--state", type=Path, required=True, help="where the secrets are kept")
        parser.add_argument("--migrate", action="store_true", help="migrate the database first")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.IS_PRODUCTION:
            message = "This makes keys with known holders; it is refused in production."
            raise CommandError(message)
        if options["migrate"]:
            call_command("migrate", interactive=False, verbosity=0)
        path: Path = options["state"]
        known = json.loads(path.read_text()) if path.exists() else {}
        seeded = _seed(known)
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(seeded, file)
        self.stdout.write(json.dumps(seeded))


def _seed(known: dict[str, Any]) -> dict[str, Any]:
    acme, _ = Partner.objects.get_or_create(name="Acme Title")
    pacific, _ = Partner.objects.get_or_create(name="Pacific Escrow")
    _contract(acme, "hybrid", Decimal(99), [("deed", 0, Decimal(0)), ("deed", 5, Decimal("12.50"))])
    _contract(pacific, "per_deed", Decimal(0), [("deed", 0, Decimal("14.00")), ("reissue", 0, Decimal(0))])
    own, other = known.get("partner", {}), known.get("other_partner", {})
    everything = list(SCOPES)
    return {
        "partner": {
            "id": str(acme.pk),
            "name": acme.name,
            "api_key": _key(acme, own.get("api_key"), "live", everything),
            "test_api_key": _key(acme, own.get("test_api_key"), "test", everything),
            "read_only_key": _key(acme, own.get("read_only_key"), "live", ["deed:read"]),
        },
        "other_partner": {
            "id": str(pacific.pk),
            "name": pacific.name,
            "api_key": _key(pacific, other.get("api_key"), "live", everything),
        },
        "admin": _staff(known.get("admin", {})),
        "admin_api_token": _admin_token(),
        "webhook_sources": _sources(acme, known.get("webhook_sources", {})),
    }


def _key(partner: Partner, known: str | None, environment: str, scopes: list[str]) -> str:
    """The key of the last start while it still is one, else a new one."""
    text = KeyText.parse(known or "")
    kept = ApiKey.objects.filter(partner=partner, key_id=text.id, revoked_at=None).first() if text else None
    if text is not None and kept is not None and kept.matches(text):
        return text.text
    name = f"Demo, {'everything' if len(scopes) > 1 else scopes[0]}, {environment}"
    return ApiKey.issue(partner, name=name, environment=environment, scopes=scopes, **LIMITS)[1]


def _contract(partner: Partner, model: str, fee: Decimal, prices: list[contracts.PriceRow]) -> None:
    if not partner.contracts.exists():
        terms = {"model": model, "base_fee": fee, "starts_on": timezone.now().date()}
        contracts.agree(partner, terms, prices, Actor.command("seed_demo"))


def _sources(partner: Partner, known: dict[str, Any]) -> dict[str, Any]:
    """A strict source of each system, whose secret stays what it was at the last start."""
    seeded = {}
    for system in ("softpro", "qualia"):
        secret = known.get(system, {}).get("secret") or secrets.token_hex(32)
        source = Source.objects.filter(system=system, partner=partner, livemode=True).first()
        source = source or Source(system=system, partner=partner, livemode=True)
        now = timezone.now()
        if not source.secrets or secret not in source.secrets_at(now):
            source.give_secret(secret, now=now, overlap=timedelta(0))
            source.save()
        seeded[system] = {"secret": secret}
    return seeded


def _staff(known: dict[str, Any]) -> dict[str, Any]:
    password = known.get("password") or secrets.token_urlsafe(18)
    user, is_new = get_user_model().objects.get_or_create(
        username="demo", defaults={"is_staff": True, "is_superuser": True}
    )
    if is_new or not user.check_password(password):
        user.set_password(password)
        user.save(update_fields=["password"])
    user.groups.add(Group.objects.get(name=roles.TITLES["owner"]))
    secret = {"secret": known["totp_secret"]} if known.get("totp_secret") else {}
    device, _ = Authenticator.objects.update_or_create(
        user=user, defaults={**secret, "confirmed": True, "name": "demo"}
    )
    url = f"{settings.PUBLIC_BASE_URL}/admin/"
    return {"url": url, "username": "demo", "password": password, "totp_secret": device.secret}


def _admin_token() -> str:
    """An owner's token for the admin API, a new one at each start; empty where tokens are RS256."""
    if not settings.ADMIN_JWT_SECRET or settings.ADMIN_JWKS_URL:
        return ""
    now = timezone.now()
    claims = {
        "sub": "demo",
        settings.ADMIN_JWT_ROLE_CLAIM: "owner",
        "aud": settings.ADMIN_JWT_AUDIENCE,
        "iss": settings.ADMIN_JWT_ISSUER,
        "iat": now,
        "exp": now + dt.timedelta(days=30),
    }
    return jwt.encode(claims, settings.ADMIN_JWT_SECRET, algorithm="HS256")
