"""How the OpenAPI document is made: pydantic models as they are, and each operation with its errors."""

from typing import Any

from drf_spectacular.contrib.pydantic import PydanticExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import OpenApiParameter
from pydantic import BaseModel, Field

from partner_api.http.answer_headers import COMPONENTS, reference, shared_headers
from partner_api.http.codes import CODES
from partner_api.http.idempotency import BARE, QUOTED
from partner_api.http.parsing import StrictJSONParser
from partner_api.http.problems import CONTENT_TYPE

_WITH_KEY = (
    "authentication_required",
    "invalid_api_key",
    "api_key_expired",
    "api_key_revoked",
    "partner_suspended",
    "ip_not_allowed",
    "insufficient_scope",
)
_GROUPS = (
    "Deeds",
    "Deed types",
    "Webhooks",
    "Events",
    "Usage",
    "Billing",
    "Keys",
    "Inbound webhooks",
    "First version",
)
_IDEMPOTENT = ("idempotency_in_progress", "idempotency_mismatch", "validation_error")
_IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": f"^(?:{QUOTED}|{BARE})$"},
    OpenApiParameter.HEADER,
    description="1 to 255 characters of your own, such as a UUID, in quotes or not. The same "
    "request with the same key within 24 hours is done once: it gets the first answer again, with "
    "`Idempotent-Replayed: true`.",
)
_WITH_BODY = (
    "malformed_json",
    "request_timeout",
    "payload_too_large",
    "unsupported_media_type",
    "validation_error",
)


class ProblemError(BaseModel):
    """One thing wrong with the request."""

    pointer: str = Field(description="JSON Pointer into the body, or into what `in` names.")
    code: str = Field(
        description="Stable. Of an order: `required`, `blank`, `unknown_field`, `invalid_type`, "
        "`invalid_choice`, `invalid_characters`, `invalid_money`, `invalid_date`, `invalid_format`, "
        "`invalid_id`, `too_long`, `too_many`, `contradiction`, `unknown_county`, `unknown_deed_type`, "
        "`unknown_deed`. Of other bodies also `invalid_value`, `unknown_partner`, `unknown_scope`, "
        "`more_than_own`, `unknown_event_type`, `url_refused`. Of a query `invalid_value`, `invalid_cursor`, "
        "`unknown_parameter`, `repeated`. Of a header `invalid_idempotency_key`."
    )
    message: str
    in_: str | None = Field(None, alias="in", description="`query`, `path` or `header`; the body without it.")


class ProblemAnswer(BaseModel):
    """An error, as RFC 9457 shapes it."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; made for programs.")
    request_id: str
    errors: list[ProblemError] | None = None
    deed: str | None = Field(None, description="With `order_conflict`: the deed that stands for the order.")
    required_scope: str | None = Field(None, description="With `insufficient_scope`.")
    quota: str | None = Field(None, description="With `quota_exceeded`: `requests`, if it is not of deeds.")
    limit: int | str | None = Field(None, description="With `quota_exceeded`; money with `budget_exceeded`.")
    used: int | str | None = Field(None, description="The same, of what is used.")
    currency: str | None = Field(None, description="With `budget_exceeded`.")
    resets_at: str | None = Field(None, description="With both: when the next period starts, RFC 3339.")
    invoice: str | None = Field(None, description="With `payment_required`: the id of the overdue invoice.")
    pay_at: str | None = Field(None, description="With `payment_required`: the page to pay it at, if any.")
    external_deed_id: str | None = Field(None, description="With `deed_failed`.")
    order_id: str | None = Field(None, description="With `deed_failed`.")


class OurPydanticExtension(PydanticExtension):
    """Requests by what is accepted, answers by what is sent."""

    priority = 1

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        schema: dict[str, Any] = self.target.model_json_schema(
            ref_template="#/components/schemas/{model}",
            mode="validation" if direction == "request" else "serialization",
        )
        for name, part in schema.pop("$defs", {}).items():
            auto_schema.registry.register_on_missing(
                ResolvedComponent(name=name, type=ResolvedComponent.SCHEMA, object=name, schema=part)
            )
        return schema


class ProblemAwareSchema(AutoSchema):
    """Adds to each operation the problems it can give, from what the view is and says of itself."""

    def get_override_parameters(self) -> list[Any]:
        parameters: list[Any] = super().get_override_parameters()
        return [*parameters, _IDEMPOTENCY_KEY] if self._is_idempotent() else parameters

    def _is_idempotent(self) -> bool:
        return self.method in getattr(self.view, "idempotent", ())

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        for status, codes in self._problems().items():
            bodies[str(status)] = self._problem(str(status), codes)
        for status_text, body in bodies.items():
            for name in self._shared_headers(status_text):
                body.setdefault("headers", {}).setdefault(name, reference(name))
        return dict(sorted(bodies.items()))

    def _shared_headers(self, status: str) -> list[str]:
        return shared_headers(
            int(status),
            self._problems().get(int(status), []),
            has_key=self._has_key(),
            is_idempotent=self._is_idempotent(),
        )

    def _has_key(self) -> bool:
        needed: str = getattr(self.view, "scopes", {})[self.method]
        return needed != "public"

    def _problems(self) -> dict[int, list[str]]:
        """By status, the codes that the operation can answer."""
        codes: list[str] = list(getattr(self.view, "problems", {}).get(self.method, ()))
        is_file = self.view.content_negotiation_class.__name__ == "AnyAccept"
        codes += [] if is_file else ["not_acceptable"]
        codes += ["bad_request", "internal_error", "database_unavailable"]
        if self._has_key():
            codes += (*_WITH_KEY, "quota_exceeded")
        codes.append("rate_limited")
        if "{" in self.path:
            codes.append("not_found")
        if self._reads_json():
            codes += _WITH_BODY
        if self._is_idempotent():
            codes += _IDEMPOTENT
        if any(parameter["in"] == "query" for parameter in self._get_parameters()):
            codes.append("validation_error")
        by_status: dict[int, list[str]] = {}
        for code in dict.fromkeys(codes):
            by_status.setdefault(CODES[code].status, []).append(code)
        return by_status

    def _reads_json(self) -> bool:
        """Not a body whose bytes were signed, which is taken as it comes."""
        has_body = self.method in {"POST", "PATCH"} and self.get_request_serializer() is not None
        return has_body and StrictJSONParser in self.view.parser_classes

    def _problem(self, status: str, codes: list[str]) -> dict[str, Any]:
        answer: dict[str, Any] = self._get_response_for_code(ProblemAnswer, status, [CONTENT_TYPE])
        answer["description"] = "; ".join(f"`{code}`: {CODES[code].title}" for code in codes)
        # A signature of one's own has no scheme that a challenge could name.
        if status == "401" and self.view.authentication_classes:
            answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        return answer


def tidy(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """What drf-spectacular can't say: headers of all answers, either key header, no null in a query.

    And in which order the groups stand: the product first, what is kept for earlier clients last.
    """
    result["components"]["headers"] = COMPONENTS
    result["tags"] = [{"name": name} for name in _GROUPS]
    for path in result["paths"].values():
        for operation in path.values():
            _tidy_operation(operation)
    return result


def _tidy_operation(operation: dict[str, Any]) -> None:
    for answer in operation["responses"].values():
        headers = answer.setdefault("headers", {})
        headers["X-Request-ID"] = reference("X-Request-ID")
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        if "anyOf" in schema:
            parameter["schema"] = next(part for part in schema["anyOf"] if part["type"] != "null")
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
    if "security" in operation:
        operation["security"] = [
            {name: scopes} for one in operation["security"] for name, scopes in one.items()
        ]
