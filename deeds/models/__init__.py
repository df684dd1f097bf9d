"""Where Django looks for this app's models; each stands in a module of its own."""

from deeds.models.attempt import DeedAttempt
from deeds.models.deed import Deed, first_entry
from deeds.models.download import DeedDownload
from deeds.models.finding import StorageFinding

__all__ = ["Deed", "DeedAttempt", "DeedDownload", "StorageFinding", "first_entry"]
