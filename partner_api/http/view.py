"""What every API view says of itself."""

from functools import partial
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured
from rest_framework.request import Request
from rest_framework.views import APIView

from partner_api.http import idempotency


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
    # The methods that honour an Idempotency-Key.
    idempotent: ClassVar[tuple[str, ...]] = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """After authentication: has the handler of an idempotent method run once for each key."""
        super().initial(request, *args, **kwargs)
        if request.method in self.idempotent:
            self.prepare(request)
            name = request.method.lower()
            handler = getattr(self, name)
            setattr(self, name, partial(_run_once, self, handler))

    def prepare(self, request: Request) -> None:
        """Before the transaction of an idempotent method: what asks other hosts is done here."""

    def idempotency_scope(self, request: Request) -> str:
        """Whose key it is: the same key of another scope is another. Authentication sets it."""
        scope = getattr(request, "idempotency_scope", None)
        if not scope:
            message = f"{type(self).__name__} is idempotent, but nothing says whose key it is"
            raise ImproperlyConfigured(message)
        return str(scope)


def _run_once(view: ApiView, handler: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
    return idempotency.run(request, view.idempotency_scope(request), handler, *args, **kwargs)
