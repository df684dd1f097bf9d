"""Where Django looks for this app's models; each stands in a module of its own."""

from deeds.models.attempt import DeedAttempt
from deeds.models.deed import Deed, first_entry

__all__ = ["Deed", "DeedAttempt", "first_entry"]
