"""The event catalog, written from the one definition: for the OpenAPI document and for docs/events.md."""

import json
from typing import Any
from uuid import UUID

from webhooks.event_types import EVENT_TYPES, EventType

_ID = UUID("019abcde-0000-7000-8000-00000000000f")
_HEADERS = {
    "webhook-id": "The event's id. The same for each attempt: do nothing twice for one id.",
    "webhook-timestamp": "When this attempt was made, Unix seconds.",
    "webhook-signature": "`v1,` and the signature, base64; several by space while secrets overlap.",
}


# As the first version's clients send it.
INBOUND_EXAMPLE: dict[str, Any] = {
    "order_id": "SP-2026-1",
    "deed_type": "grant",
    "property_address": "123 Main St, La Verne, CA 91750",
    "parties": {"grantor": "ALICE SMITH, an unmarried woman", "grantee": ["BOB JONES"]},
    "metadata": {
        "county": "Los Angeles",
        "apn": "8381-021-001",
        "legal_description": "LOT 1 OF TRACT NO. 6654, IN THE CITY OF LA VERNE",
        "vesting": "a single man",
        "dtt": {
            "amount": "825.00",
            "basis": "full_value",
            "area_type": "city",
            "city_name": "La Verne",
            "is_exempt": False,
        },
        "branch": "Pomona",
    },
}


def example_of(event_type: EventType) -> dict[str, Any]:
    """A whole message of this type."""
    return {
        "id": str(_ID),
        "object": "event",
        "type": event_type.name,
        "livemode": True,
        "created_at": "2026-11-24T08:00:00Z",
        "data": event_type.example.model_dump(mode="json"),
    }


def add_webhooks(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's hook: OpenAPI 3.1's `webhooks`, an entry for each type."""
    result["webhooks"] = {event_type.name: _path(event_type) for event_type in EVENT_TYPES.values()}
    return result


def catalog_page() -> str:
    """docs/events.md."""
    parts = [
        "# Events",
        "",
        "Written by `manage.py event_catalog` from the definitions that events are made from.",
        "How messages are signed and sent stands in [webhooks.md](webhooks.md).",
        "",
        "| type | when |",
        "|---|---|",
        *(f"| [`{name}`](#{_anchor(name)}) | {kind.happens} |" for name, kind in EVENT_TYPES.items()),
    ]
    for event_type in EVENT_TYPES.values():
        parts += ["", f"## {event_type.name}", "", f"{event_type.happens} `data`:", ""]
        parts += ["| member | type | |", "|---|---|---|", *_rows(event_type)]
        example = json.dumps(example_of(event_type), indent=2)
        parts += ["", "```json", example, "```"]
    return "\n".join(parts) + "\n"


def _path(event_type: EventType) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["id", "object", "type", "livemode", "created_at", "data"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "object": {"type": "string", "const": "event"},
            "type": {"type": "string", "const": event_type.name},
            "livemode": {"type": "boolean"},
            "created_at": {"type": "string", "format": "date-time"},
            "data": event_type.data.model_json_schema(mode="serialization"),
        },
    }
    content = {"application/json": {"schema": schema, "example": example_of(event_type)}}
    return {
        "post": {
            "operationId": f"on_{event_type.name.replace('.', '_')}",
            "summary": event_type.name,
            "description": event_type.happens,
            "tags": ["Events"],
            "parameters": [
                {
                    "name": name,
                    "in": "header",
                    "required": True,
                    "description": description,
                    "schema": {"type": "string"},
                }
                for name, description in _HEADERS.items()
            ],
            "requestBody": {"required": True, "content": content},
            "responses": {
                "2XX": {"description": "Received."},
                "410": {"description": "Nothing is sent to this endpoint any more."},
            },
        }
    }


def _rows(event_type: EventType) -> list[str]:
    members = event_type.data.model_json_schema(mode="serialization")["properties"]
    return [f"| `{name}` | {_kind(part)} | {part.get('description', '')} |" for name, part in members.items()]


def _kind(part: dict[str, Any]) -> str:
    if "anyOf" in part:
        return " or ".join(_kind(one) for one in part["anyOf"])
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    return str(part.get("format", part.get("type", "")))


def _anchor(name: str) -> str:
    return name.replace(".", "")
