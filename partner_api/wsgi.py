"""The WSGI entry point that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

from partner_api.ops.checks import refuse_insecure_start

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "partner_api.settings")

application = get_wsgi_application()
refuse_insecure_start()
