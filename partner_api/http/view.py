"""What every API view says of itself."""

from typing import ClassVar

from rest_framework.views import APIView


class ApiView(APIView):
    """`scopes` names one scope a method; `problems` the codes it can answer beyond the usual ones.

    OPTIONS is not offered: DRF would answer it with a description of the view.
    """

    http_method_names = ["get", "head", "post", "patch", "delete"]
    scopes: ClassVar[dict[str, str]]
    problems: ClassVar[dict[str, tuple[str, ...]]] = {}
