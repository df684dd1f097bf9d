"""What may stand in a list's query and around a batch, read as strictly as an order."""

from typing import Annotated, Any, ClassVar, Final, Literal
from uuid import UUID

from django.db.models import QuerySet
from pydantic import BeforeValidator, ConfigDict, Field

from deeds.fields import Text100
from deeds.models import Deed
from partner_api.http.problems import FieldError, invalid
from partner_api.http.reading import Moment, PageQuery, Says, Strict, read_body

MAX_BATCH: Final = 500
_SEND: Final = 'Send {{"orders": [order, …]}}.'
_SIZE: Final = f"It has {{actual_length}} orders; a batch has 1 to {MAX_BATCH}."

DeedTypeName = Literal["grant", "quitclaim", "interspousal", "warranty", "tax"]


def _boolean(value: Any) -> Any:
    return {"true": True, "false": False}.get(value, value)


class DeedQuery(PageQuery):
    """The filters of a list of deeds."""

    # Why no order can have such an id has codes in the order's own body only.
    says: ClassVar[Says] = dict.fromkeys(("blank", "invalid_characters"), ("invalid_value", "{message}"))

    status: Literal["queued", "rendering", "completed", "failed", "cancelled"] | None = None
    deed_type: DeedTypeName | None = None
    order_id: Text100 | None = None
    created_after: Moment | None = Field(None, description="RFC 3339; this moment excluded.")
    created_before: Moment | None = Field(None, description="RFC 3339; this moment excluded.")
    livemode: Annotated[bool, BeforeValidator(_boolean)] | None = Field(
        None, description="A key sees its own mode only; the other one's list is empty."
    )

    def narrow(self, deeds: QuerySet[Deed]) -> QuerySet[Deed]:
        """The deeds that fit all filters given."""
        wanted = {
            "status": self.status,
            "deed_type": self.deed_type,
            "order_id": self.order_id,
            "created_at__gt": self.created_after,
            "created_at__lt": self.created_before,
            "livemode": self.livemode,
        }
        return deeds.filter(**{name: value for name, value in wanted.items() if value is not None})


class AllDeedsQuery(DeedQuery):
    """The same for the back office, over all partners."""

    partner: UUID | None = None

    def narrow(self, deeds: QuerySet[Deed]) -> QuerySet[Deed]:
        found = super().narrow(deeds)
        return found if self.partner is None else found.filter(partner=self.partner)


class BatchBody(Strict):
    """Orders, each as `POST /v2/deeds` takes it."""

    model_config = ConfigDict(strict=True)
    says: ClassVar[Says] = {
        "missing": ("required", _SEND),
        "list_type": ("invalid_type", "It must be a list of orders."),
        "too_short": ("required", _SIZE),
        "too_long": ("too_many", _SIZE),
    }

    orders: list[Any] = Field(min_length=1, max_length=MAX_BATCH)


def parse_batch(body: Any) -> list[Any]:
    """The orders, unread. Raises Problem `validation_error`."""
    if not isinstance(body, dict):
        # A list of orders, most likely.
        raise invalid([FieldError("/orders", "required", _SEND.format())])
    return read_body(BatchBody, body).orders
