"""The project: composition, and what every app stands on.

The Celery application is imported here so that `shared_task` finds it in every process.
"""

import atexit
import gc

# Loading makes some hundred thousand objects, which stay. To look for garbage among them as often as Python
# does by itself, and once more at the end, would be 40 % of what starting and ending a process takes.
gc.set_threshold(10_000, 20, 20)
atexit.register(gc.freeze)

from partner_api.celery import app as celery_app  # noqa: E402 - the most of it is loaded from here on
from partner_api.environment import say_in_one_line  # noqa: E402 - the same

say_in_one_line()

__all__ = ["celery_app"]
