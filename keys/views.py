"""A partner's own keys, for its administrators: what a key with `key:manage` may do to those of its mode.

No key grants more than it has: neither scopes, nor networks, nor a longer life, nor a higher rate.
"""

import datetime as dt
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.response import Response

from keys import bodies, key_cache, lifecycle
from keys.audit import Actor
from keys.authentication import PartnerRequest
from keys.models import ApiKey
from keys.models.api_key import network_of
from keys.scopes import lacking
from partner_api.http.pagination import page_of
from partner_api.http.problems import FieldError, Problem, invalid, not_found
from partner_api.http.reading import PageQuery, read_body, read_query, refused_by_model
from partner_api.http.view import ApiView

# drf-spectacular takes a pydantic model here as it takes a serializer; its types don't know.
_REVOCATION: list[Any] = [bodies.Revocation]
_PAGE: list[Any] = [PageQuery]
_LOCATION = OpenApiParameter(
    "Location",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="Where the new key can be read, without its text.",
    response=["201"],
)


class Keys(ApiView):
    scopes: ClassVar = {"GET": "key:manage", "POST": "key:manage"}
    idempotent: ClassVar = ("POST",)

    @extend_schema(
        operation_id="list_keys",
        summary="List keys",
        parameters=_PAGE,
        responses=bodies.KeyPage,
        tags=["Keys"],
    )
    def get(self, request: PartnerRequest) -> Response:
        read_query(PageQuery, request)
        return page_of(_own(request), request, partial(bodies.answer, now=timezone.now()))

    @extend_schema(
        operation_id="create_key",
        summary="Issue a key",
        description="Of the mode of the key that asks, and with no more than that one has. The answer is "
        "the only one that shows the key; with an `Idempotency-Key`, the key that asked gets it again.",
        parameters=[_LOCATION],
        request=bodies.NewKey,
        responses={201: OpenApiResponse(bodies.IssuedKeyAnswer, "Issued.")},
        tags=["Keys"],
    )
    def post(self, request: PartnerRequest) -> Response:
        wanted = read_body(bodies.NewKey, request.data)
        own = request.api_key
        fields: dict[str, Any] = {
            "rate_limit_per_minute": wanted.rate_limit_per_minute or own.rate_limit_per_minute,
            "rate_limit_burst": wanted.rate_limit_burst or own.rate_limit_burst,
            "allowed_cidrs": wanted.allowed_cidrs or own.allowed_cidrs,
            "not_before": wanted.not_before,
            "expires_at": wanted.expires_at or own.expires_at,
        }
        _refuse_more_than_own(own, scopes=wanted.scopes, **fields)
        try:
            key, text = lifecycle.issue(
                Actor.key(request, own),
                request.partner,
                name=wanted.name,
                environment=own.environment,
                scopes=wanted.scopes,
                **fields,
            )
        except ValidationError as error:
            raise refused_by_model(error) from error
        return _shown_once(key, text)

    def asker(self, request: PartnerRequest) -> str:
        return _asker(request)


class KeyDetail(ApiView):
    scopes: ClassVar = {"GET": "key:manage", "PATCH": "key:manage", "DELETE": "key:manage"}

    @extend_schema(operation_id="get_key", summary="Read a key", responses=bodies.KeyAnswer, tags=["Keys"])
    def get(self, request: PartnerRequest, key_id: UUID) -> Response:
        return Response(bodies.answer(_own_key(request, key_id), timezone.now()))

    @extend_schema(
        operation_id="update_key",
        summary="Change a key",
        description="Its name, scopes, limits, networks or expiry; never its secret.",
        request=bodies.KeyChange,
        responses=bodies.KeyAnswer,
        tags=["Keys"],
    )
    def patch(self, request: PartnerRequest, key_id: UUID) -> Response:
        key = _own_key(request, key_id)
        fields = read_body(bodies.KeyChange, request.data).given()
        nulls = [name for name, value in fields.items() if value is None and name != "expires_at"]
        if nulls:
            raise invalid([FieldError(f"/{name}", "invalid_type", "It can't be null.") for name in nulls])
        _refuse_more_than_own(request.api_key, **{**_held(key), **fields})
        try:
            lifecycle.change(Actor.key(request, request.api_key), key, **fields)
        except ValidationError as error:
            raise refused_by_model(error) from error
        return Response(bodies.answer(key, timezone.now()))

    @extend_schema(
        operation_id="revoke_key",
        summary="Revoke a key",
        description="From the next request on, for good. Revoking it again changes nothing, the reason "
        "neither.",
        parameters=_REVOCATION,
        responses={204: OpenApiResponse(None, "Revoked.")},
        tags=["Keys"],
    )
    def delete(self, request: PartnerRequest, key_id: UUID) -> Response:
        key = _own_key(request, key_id)
        own = request.api_key
        reason = read_query(bodies.Revocation, request).reason
        unsaid = f"Revoked by the partner with {own.prefix}"
        lifecycle.revoke(Actor.key(request, own), key, reason=reason or unsaid)
        return Response(status=204)


class KeyRotation(ApiView):
    scopes: ClassVar = {"POST": "key:manage"}
    idempotent: ClassVar = ("POST",)
    problems: ClassVar = {"POST": ("key_not_rotatable",)}

    @extend_schema(
        operation_id="rotate_key",
        summary="Rotate a key",
        description="A new key in this one's place, shown this once; with an `Idempotency-Key`, the key that "
        "asked gets the answer again. The old one stays valid for the overlap, never beyond its own expiry; "
        "answers to it carry `Deprecation` and `Sunset`.",
        parameters=[_LOCATION],
        request=bodies.Rotation,
        responses={201: OpenApiResponse(bodies.IssuedKeyAnswer, "The new key.")},
        tags=["Keys"],
    )
    def post(self, request: PartnerRequest, key_id: UUID) -> Response:
        key = self.key
        seconds = read_body(bodies.Rotation, request.data).overlap_seconds
        _refuse_more_than_own(request.api_key, **_held(key))
        overlap = None if seconds is None else dt.timedelta(seconds=seconds)
        try:
            new, text = lifecycle.rotate(Actor.key(request, request.api_key), key, overlap=overlap)
        except ValidationError as error:
            # The overlap was read before: what is left is the key's own state.
            raise Problem("key_not_rotatable", " ".join(error.messages)) from error
        return _shown_once(new, text)

    def prepare(self, request: PartnerRequest) -> None:
        self.key = _own_key(request, self.kwargs["key_id"])

    def around(self, request: PartnerRequest) -> AbstractContextManager[object]:
        return key_cache.changing([self.key])

    def asker(self, request: PartnerRequest) -> str:
        return _asker(request)


def _asker(request: PartnerRequest) -> str:
    """The key that asks: an answer with a new key's text is given again to that one alone.

    To another, which may have less, it would grant what that one has not.
    """
    return request.api_key.key_id


def _own(request: PartnerRequest) -> QuerySet[ApiKey]:
    return request.partner.api_keys.select_related("partner").filter(environment=request.api_key.environment)


def _own_key(request: PartnerRequest, key_id: UUID) -> ApiKey:
    """Raises Problem `not_found` for a key of another partner or mode, as for none."""
    key = _own(request).filter(pk=key_id).first()
    if key is None:
        raise not_found()
    return key


def _held(key: ApiKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in lifecycle.EDITABLE}


def _refuse_more_than_own(own: ApiKey, **wanted: Any) -> None:
    """Raises Problem `insufficient_scope` for scopes, `validation_error` for the rest."""
    missing = lacking(own.scopes, wanted["scopes"])
    if missing:
        detail = f"A key can't grant what it has not: {own.prefix} lacks {', '.join(missing)}."
        raise Problem("insufficient_scope", detail, extra={"required_scope": missing[0]})
    errors = []
    if own.allowed_cidrs and not _is_within(wanted["allowed_cidrs"], own):
        errors.append(_too_much("allowed_cidrs", f"within {', '.join(own.allowed_cidrs)}"))
    # Of one that was rotated too, whose end is that of its overlap: whoever else has it would stay for ever.
    own_end = own.expires_at
    if own_end and (wanted["expires_at"] is None or wanted["expires_at"] > own_end):
        errors.append(_too_much("expires_at", f"no later than {own_end.isoformat()}"))
    errors.extend(
        _too_much(name, f"{getattr(own, name)} at the most")
        for name in ("rate_limit_per_minute", "rate_limit_burst")
        if wanted[name] > getattr(own, name)
    )
    if errors:
        raise invalid(errors)


def _is_within(cidrs: list[str], own: ApiKey) -> bool:
    ours = own.networks
    try:
        wanted = [network_of(cidr) for cidr in cidrs]
    except ValueError:
        return True  # the model says what is wrong with it
    return bool(wanted) and all(
        any(one.version == net.version and one.subnet_of(net) for net in ours)  # type: ignore[arg-type]  # of one version
        for one in wanted
    )


def _too_much(name: str, bound: str) -> FieldError:
    return FieldError(f"/{name}", "more_than_own", f"A key can't grant more than it has: {bound}.")


def _shown_once(key: ApiKey, text: str) -> Response:
    url = f"{settings.PUBLIC_BASE_URL}{reverse('key', kwargs={'key_id': key.pk})}"
    headers = {"Cache-Control": "no-store", "Location": url}
    return Response(bodies.answer(key, timezone.now(), text=text), status=201, headers=headers)
