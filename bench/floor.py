"""What the product is measured against, on the same server with the same settings and middlewares.

The floor is a DRF view that does nothing but the least that an answer needs. The packages are what one
would install instead of `keys`: djangorestframework-api-key, DRF's throttle on Redis, a usage row.
"""

from typing import Any
from uuid import UUID

from django_redis import get_redis_connection
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView
from rest_framework_api_key.models import APIKey
from rest_framework_api_key.permissions import HasAPIKey

from bench.models import Row
from deeds import answers
from deeds.models import Deed


class Read(APIView):
    """One Redis GET, one Postgres SELECT."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request, deed_id: UUID) -> Response:
        get_redis_connection("default").get("bench")
        deed = Deed.objects.filter(pk=deed_id).first()
        return Response({"id": str(deed_id), "status": deed.status if deed else None})


class Insert(APIView):
    """One INSERT."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def post(self, request: Request) -> Response:
        row = Row.objects.create(body=request.data)
        return Response({"id": row.pk}, status=202)


class PerKey(SimpleRateThrottle):
    rate = "1000000/min"

    def get_cache_key(self, request: Any, view: Any) -> str:
        return f"bench:{request.META.get('HTTP_X_BENCH_KEY', '')[:8]}"


class Packages(APIView):
    """What a partner's read costs with the packages one would take."""

    authentication_classes = ()
    permission_classes = (HasAPIKey,)
    throttle_classes = (PerKey,)

    def get(self, request: Request, deed_id: UUID) -> Response:
        key = APIKey.objects.get_from_key(request.META["HTTP_AUTHORIZATION"].split()[1])
        deed = Deed.objects.filter(pk=deed_id).first()
        Row.objects.create(partner=key.name)
        return Response(answers.v2(deed) if deed else {})
