"""All partners' deeds, for the company's back office."""

from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.response import Response

from deeds import answers
from deeds.models import Deed
from deeds.queries import AllDeedsQuery
from keys.admin_auth import AdminApiView
from partner_api.http.pagination import page_of
from partner_api.http.reading import read_query


class AllDeeds(AdminApiView):
    roles: ClassVar = {"GET": "support"}

    def get(self, request: Request) -> Response:
        query = read_query(AllDeedsQuery, request)
        return page_of(query.narrow(Deed.objects.all()), request, _with_partner)


def _with_partner(deed: Deed) -> dict[str, Any]:
    return {"partner": str(deed.partner_id), **answers.v2(deed)}
