"""The admin API of partners, keys and the audit trail, and the bootstrap that comes before all."""

import datetime as dt
import hmac
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from keys import admin_bodies as bodies
from keys import audit, key_cache, lifecycle
from keys import bodies as of_partners
from keys.admin_auth import AdminApiView, actor_of, refuse_unless_on
from keys.audit import Actor
from keys.models import ApiKey, AuditEntry, Partner, Setup
from keys.permissions import PUBLIC
from keys.refusals import BACK_OFFICE, refuse
from partner_api.http.pagination import NewestFirst, page_of
from partner_api.http.problems import FieldError, Problem, invalid, not_found
from partner_api.http.reading import read_body, read_query, refused_by_model
from partner_api.http.times import rfc3339

# Of the answers that have a key's text: it is there once.
_NOT_KEPT: Final = {"Cache-Control": "no-store"}


class Partners(AdminApiView):
    roles: ClassVar = {"GET": "support", "POST": "key_staff"}
    idempotent: ClassVar = ("POST",)

    def get(self, request: Request) -> Response:
        query = read_query(bodies.PartnerQuery, request)
        wanted = {"status": query.status, "name": query.name}
        return page_of(Partner.objects.filter(**_given(wanted)), request, partner_answer)

    def post(self, request: Request) -> Response:
        given = read_body(bodies.NewPartner, request.data).given()
        reason = _reason_in(given, status=Partner.Status.ACTIVE)
        try:
            partner = lifecycle.create_partner(actor_of(request), reason=reason, **given)
        except ValidationError as error:
            raise refused_by_model(error) from error
        return Response(partner_answer(partner), status=201)


class PartnerDetail(AdminApiView):
    roles: ClassVar = {"GET": "support", "PATCH": "key_staff"}

    def get(self, request: Request, partner_id: UUID) -> Response:
        return Response(partner_answer(_partner(partner_id)))

    def patch(self, request: Request, partner_id: UUID) -> Response:
        """A suspension needs a `reason`."""
        partner = _partner(partner_id)
        given = read_body(bodies.PartnerChange, request.data).given()
        reason = _reason_in(given, status=partner.status)
        try:
            lifecycle.change_partner(actor_of(request), partner, reason=reason, **given)
        except ValidationError as error:
            raise refused_by_model(error) from error
        return Response(partner_answer(partner))


class Keys(AdminApiView):
    roles: ClassVar = {"GET": "support", "POST": "key_staff"}
    idempotent: ClassVar = ("POST",)

    def get(self, request: Request) -> Response:
        query = read_query(bodies.KeyQuery, request)
        is_active = {"true": False, "false": True}.get(query.revoked or "")
        wanted = {
            "partner": query.partner,
            "environment": query.environment,
            "revoked_at__isnull": is_active,
        }
        found = ApiKey.objects.select_related("partner").filter(**_given(wanted))
        return page_of(found, request, key_answer)

    def post(self, request: Request) -> Response:
        given = read_body(bodies.NewKey, request.data).given()
        partner = Partner.objects.filter(pk=given.pop("partner")).first()
        if partner is None:
            raise invalid([FieldError("/partner", "unknown_partner", "There is no partner with this id.")])
        try:
            key, text = lifecycle.issue(actor_of(request), partner, **given)
        except ValidationError as error:
            raise refused_by_model(error) from error
        return Response({**key_answer(key), "api_key": text}, status=201, headers=_NOT_KEPT)


class KeyDetail(AdminApiView):
    roles: ClassVar = {"GET": "support", "PATCH": "key_staff"}

    def get(self, request: Request, key_pk: UUID) -> Response:
        return Response(key_answer(_key(key_pk)))

    def patch(self, request: Request, key_pk: UUID) -> Response:
        key = _key(key_pk)
        given = read_body(bodies.KeyChange, request.data).given()
        try:
            lifecycle.change(actor_of(request), key, **given)
        except ValidationError as error:
            raise refused_by_model(error) from error
        return Response(key_answer(key))


class ActOnKey(AdminApiView):
    """Other processes are told of it around its transaction."""

    roles: ClassVar = {"POST": "key_staff"}
    idempotent: ClassVar = ("POST",)

    def prepare(self, request: Request) -> None:
        self.key = _key(self.kwargs["key_pk"])

    def around(self, request: Request) -> AbstractContextManager[object]:
        return key_cache.changing([self.key])


class KeyRevocation(ActOnKey):
    def post(self, request: Request, key_pk: UUID) -> Response:
        """Answers the same when the key was revoked before; the first reason stays."""
        reason = read_body(bodies.Revocation, request.data).reason
        lifecycle.revoke(actor_of(request), self.key, reason=reason)
        return Response(key_answer(self.key))


class KeyRotation(ActOnKey):
    def post(self, request: Request, key_pk: UUID) -> Response:
        key = self.key
        wanted = read_body(bodies.Rotation, {} if request.data is None else request.data)
        seconds = wanted.overlap_seconds
        overlap = None if seconds is None else dt.timedelta(seconds=seconds)
        try:
            new, text = lifecycle.rotate(actor_of(request), key, overlap=overlap, reason=wanted.reason)
        except ValidationError as error:
            if hasattr(error, "error_dict"):
                raise refused_by_model(error) from error
            # Nothing that was sent is wrong: it is the key's own state.
            raise Problem("key_not_rotatable", " ".join(error.messages)) from error
        body = {**key_answer(new), "api_key": text, "replaces": key_answer(key)}
        return Response(body, status=201, headers=_NOT_KEPT)


class Audit(AdminApiView):
    roles: ClassVar = {"GET": "support"}

    def get(self, request: Request) -> Response:
        query = read_query(bodies.AuditQuery, request)
        wanted = {
            "partner": query.partner,
            "actor_kind": query.actor_kind,
            "actor": query.actor,
            "action": query.action,
            "target_id": query.target_id,
            "at__gt": query.created_after,
            "at__lt": query.created_before,
        }
        return page_of(AuditEntry.objects.filter(**_given(wanted)), request, entry_answer, _EntriesFirst)


class SetupSecret(BaseAuthentication):
    """`Authorization: Bearer <SETUP_SECRET>`, compared in constant time."""

    def authenticate(self, request: Request) -> None:
        """Raises Problem: `not_found` where no secret is set, `authentication_required`, `invalid_token`, and
        `rate_limited` for too many of those from one address."""
        refuse_unless_on(request, is_on=bool(settings.SETUP_SECRET))
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            detail = "Send the setup secret as `Authorization: Bearer <secret>`."
            refuse(request, "authentication_required", detail, challenge=BACK_OFFICE)
        is_secret = hmac.compare_digest(text.strip().encode(), settings.SETUP_SECRET.encode())
        if scheme.lower() != "bearer" or not is_secret:
            refuse(request, "invalid_token", "This is not the setup secret.", challenge=BACK_OFFICE)

    def authenticate_header(self, request: Request) -> str:
        return BACK_OFFICE


class Bootstrap(AdminApiView):
    authentication_classes = [SetupSecret]
    roles: ClassVar = {"POST": PUBLIC}

    def post(self, request: Request) -> Response:
        """The first partner and a key with all scopes. Of many at once one gets them."""
        wanted = read_body(bodies.Bootstrap, request.data)
        actor = Actor.token(request, "setup secret")
        try:
            with transaction.atomic():
                # First, so that the others wait here; and whoever makes a partner too.
                setup = _take_setup()
                audit.lock()
                if Partner.objects.exists():
                    raise _completed()
                partner = lifecycle.create_partner(
                    actor, name=wanted.name, contact_email=wanted.contact_email
                )
                key, text = lifecycle.issue(
                    actor, partner, name=wanted.key_name, environment=wanted.environment, scopes=["*"]
                )
                setup.partner = partner
                setup.save(update_fields=["partner"])
        except ValidationError as error:
            raise refused_by_model(error) from error
        body = {"partner": partner_answer(partner), "key": key_answer(key), "api_key": text}
        return Response(body, status=201, headers=_NOT_KEPT)


def partner_answer(partner: Partner) -> dict[str, Any]:
    cap = partner.budget_cap
    return {
        "id": str(partner.pk),
        "object": "partner",
        "name": partner.name,
        "contact_email": partner.contact_email,
        "status": partner.status,
        "monthly_deed_quota": partner.monthly_deed_quota,
        "monthly_request_quota": partner.monthly_request_quota,
        "budget_cap": None if cap is None else f"{cap:.2f}",
        "key_max_age_days": partner.key_max_age_days,
        "created_at": rfc3339(partner.created_at),
    }


def key_answer(key: ApiKey) -> dict[str, Any]:
    """A key as its partner sees it, and whose it is."""
    return {**of_partners.answer(key, timezone.now()), "partner": str(key.partner_id)}


def entry_answer(entry: AuditEntry) -> dict[str, Any]:
    return {
        "id": entry.pk,
        "object": "audit_entry",
        "at": rfc3339(entry.at),
        "actor": {"kind": entry.actor_kind, "name": entry.actor},
        "action": entry.action,
        "target": {"kind": entry.target_kind, "id": entry.target_id},
        "partner": str(entry.partner_id) if entry.partner_id else None,
        "before": entry.before,
        "after": entry.after,
        "reason": entry.reason,
        "address": entry.address,
        "request_id": entry.request_id,
        "hash": entry.hash,
    }


class _EntriesFirst(NewestFirst):
    """Entries are numbered."""

    def is_position(self, position: str) -> bool:
        return position.isascii() and position.isdigit() and len(position) < 19  # noqa: PLR2004 - a bigint


def _take_setup() -> Setup:
    """Raises Problem `setup_completed` when it was taken."""
    try:
        with transaction.atomic():
            setup = Setup(completed_at=timezone.now())
            setup.save(force_insert=True)
    except IntegrityError as error:
        raise _completed() from error
    return setup


def _completed() -> Problem:
    return Problem("setup_completed", "The first partner was made before; this works once.")


def _reason_in(given: dict[str, Any], *, status: str) -> str:
    """Takes it out of what a partner of this status is given. Raises Problem for a suspension without one."""
    reason: str = given.pop("reason", "").strip()
    if given.get("status") == Partner.Status.SUSPENDED != status and not reason:
        raise invalid([FieldError("/reason", "required", "Say why the partner is suspended.")])
    return reason


def _partner(partner_id: UUID) -> Partner:
    if (partner := Partner.objects.filter(pk=partner_id).first()) is None:
        raise not_found()
    return partner


def _key(key_pk: UUID) -> ApiKey:
    key = ApiKey.objects.select_related("partner").filter(pk=key_pk).first()
    if key is None:
        raise not_found()
    return key


def _given(wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if value is not None}
