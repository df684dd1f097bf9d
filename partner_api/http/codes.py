"""Every error code that a client can meet: its status, what it says, and what to do about it.

The codes are part of the contract with partners; the page at /docs/errors is made from this table.
"""

from typing import Final, NamedTuple


class Code(NamedTuple):
    status: int
    title: str
    advice: str


CODES: Final = {
    "malformed_json": Code(
        400,
        "The body is not the JSON we read",
        "Send one JSON value in UTF-8: no key twice in an object, no NaN or Infinity, at most 24 levels.",
    ),
    "bad_request": Code(
        400, "The request can't be read", "Check the address, the Host header and the headers' length."
    ),
    "headers_too_large": Code(431, "A header is too large", "Send headers of at most 8,190 bytes each."),
    "uri_too_long": Code(414, "The address is too long", "Send addresses of at most 4,094 bytes."),
    "authentication_required": Code(
        401, "An API key is required", "Send your key as `Authorization: Bearer <key>` or `X-API-Key`."
    ),
    "invalid_api_key": Code(
        401,
        "The API key is not valid",
        "Check that the key is whole, is of this environment, and is the only one that is sent.",
    ),
    "api_key_expired": Code(401, "The API key has expired", "Ask us for a new key."),
    "api_key_revoked": Code(401, "The API key was revoked", "Ask us for a new key."),
    "partner_suspended": Code(401, "The partner is suspended", "Write to support."),
    "ip_not_allowed": Code(
        401, "The key may not be used from this address", "Call from a network that the key allows."
    ),
    "quota_exceeded": Code(
        402, "The period's quota is used up", "Wait for `resets_at`, or ask us for a larger quota."
    ),
    "budget_exceeded": Code(
        402, "The period's budget is used up", "Wait for `resets_at`, or ask us to raise the budget cap."
    ),
    "payment_required": Code(
        402, "An invoice is overdue", "Pay the open invoice; orders are accepted again at once."
    ),
    "insufficient_scope": Code(
        403, "The API key lacks a scope", "Use a key that has the scope in `required_scope`."
    ),
    "invalid_token": Code(
        401, "The admin token is not valid", "Send a token of the back office that has not expired."
    ),
    "insufficient_role": Code(
        403, "The admin token lacks a role", "Use a token that has the role in `required_role`."
    ),
    "invalid_signature": Code(
        401, "The signature does not fit the body", "Sign the raw bytes with the source's current secret."
    ),
    "stale_signature": Code(
        401, "The signature's time is missing or too far off", "Send `X-Webhook-Timestamp`, within 5 minutes."
    ),
    "forbidden": Code(403, "Not allowed", "This can't be done with what you sent."),
    "not_found": Code(
        404,
        "Not found",
        "Check the address and the key's mode: what another partner or mode has looks as if absent.",
    ),
    "method_not_allowed": Code(405, "Method not allowed", "Use a method that the `Allow` header names."),
    "not_acceptable": Code(
        406, "No representation fits the Accept header", "Accept `application/json`, or `*/*`."
    ),
    "request_timeout": Code(
        408,
        "The request came too slowly",
        "Send it again, and without a pause; an order is made once at most.",
    ),
    "order_conflict": Code(
        409,
        "Another order has this identity",
        "An order is your `order_id` with the deed type. To correct a deed, send its id as `reissue_of`.",
    ),
    "not_cancellable": Code(
        409, "The deed can't be cancelled any more", "Only a queued deed can be; read its status."
    ),
    "pdf_not_ready": Code(409, "The PDF is not ready", "Wait until the deed's status is `completed`."),
    "endpoint_disabled": Code(
        409, "The webhook endpoint is disabled", 'Enable it with `PATCH {"enabled": true}`, then try again.'
    ),
    "endpoint_disabled_by_staff": Code(
        409, "We have disabled the webhook endpoint", "Write to support; only we enable it again."
    ),
    "key_not_rotatable": Code(
        409, "The key can't be rotated", "`detail` says why: rotate its successor, or issue another key."
    ),
    "idempotency_in_progress": Code(
        409, "The first request with this key is still running", "Send it again after `Retry-After` seconds."
    ),
    "setup_completed": Code(409, "The first partner was set up before", "Use the admin, or an admin token."),
    "payments_not_set_up": Code(
        409,
        "No account for payments is set up",
        "Ask us to connect you; until then invoices are paid as agreed.",
    ),
    "pdf_deleted": Code(
        410, "The PDF was deleted", "It was kept as long as agreed; the deed's facts are still there."
    ),
    "payload_too_large": Code(
        413, "The body is too large", "An order has at most 1 MiB, a batch 8 MiB; split the batch."
    ),
    "unsupported_media_type": Code(
        415, "The body's media type is not read here", "Send `Content-Type: application/json`."
    ),
    "validation_error": Code(
        422,
        "The request has invalid values",
        "`errors` names each field by JSON Pointer, and says what it needs. Nothing was stored.",
    ),
    "idempotency_mismatch": Code(
        422, "This idempotency key was used for another request", "Use a new key for each new request."
    ),
    "queue_full": Code(
        429,
        "Too many of your deeds are queued",
        "Wait `Retry-After` seconds; orders are accepted again as soon as some of them are made.",
    ),
    "rate_limited": Code(429, "Too many requests", "Wait `Retry-After` seconds, then send it again."),
    "internal_error": Code(
        500,
        "Something broke on our side",
        "Send the same order again: it is made once at most. Quote `request_id` to support.",
    ),
    "deed_failed": Code(
        502,
        "The deed could not be made",
        "`detail` has the reason. Correct the order, or send it again if nothing is wrong with it.",
    ),
    "database_unavailable": Code(
        503,
        "The database can't be reached, or is too busy",
        "Send the same request again after `Retry-After` seconds; an order is made once at most.",
    ),
    "storage_unavailable": Code(
        503, "The storage of PDFs can't be reached", "Send it again after `Retry-After` seconds."
    ),
    "identity_provider_unavailable": Code(
        503, "Admin tokens can't be checked now", "Send it again after `Retry-After` seconds."
    ),
    "payments_unavailable": Code(
        503, "Stripe can't be reached", "Send it again after `Retry-After` seconds."
    ),
    "main_api_unavailable": Code(
        503, "The renderer can't be reached", "Send it again after `Retry-After` seconds."
    ),
}
