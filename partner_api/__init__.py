"""The project: composition, and what every app stands on.

The Celery application is imported here so that `shared_task` finds it in every process.
"""

from partner_api.celery import app as celery_app

__all__ = ["celery_app"]
