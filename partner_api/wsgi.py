"""The WSGI entry point that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from partner_api.ops.checks import refuse_insecure_start

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "partner_api.settings")

application = get_wsgi_application()
refuse_insecure_start()
# Loads every view, which Django would leave to the first request. Were many threads to do that at once, some
# could meet a module that another has not finished.
get_resolver().reverse_dict  # noqa: B018 - looking is what loads it
