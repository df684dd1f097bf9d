"""The project: composition, and what every app stands on.

The Celery application is imported here so that `shared_task` finds it in every process.
"""

from partner_api.celery import app as celery_app
from partner_api.environment import say_in_one_line

say_in_one_line()

__all__ = ["celery_app"]
