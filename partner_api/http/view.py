"""What every API view says of itself."""

from typing import ClassVar

from rest_framework.views import APIView


class ApiView(APIView):
    # No docstring: the OpenAPI document would repeat it as the description of each operation.
    # OPTIONS is not offered: DRF would answer it with a description of the view.
    http_method_names = ["get", "head", "post", "patch", "delete"]
    # One scope a method.
    scopes: ClassVar[dict[str, str]]
    # Whether requests without a key count against their address' limit, where the scope is "public".
    is_limited: ClassVar[bool] = True
    # The codes that a method can answer beyond those that follow from its form.
    problems: ClassVar[dict[str, tuple[str, ...]]] = {}
