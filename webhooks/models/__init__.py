"""Where Django looks for this app's models; each stands in a module of its own."""

from webhooks.models.delivery import Attempt, Delivery
from webhooks.models.endpoint import Endpoint
from webhooks.models.event import Event
from webhooks.models.inbound_event import InboundEvent
from webhooks.models.source import Source

__all__ = ["Attempt", "Delivery", "Endpoint", "Event", "InboundEvent", "Source"]
