"""What every API view says of itself."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured
from rest_framework.request import Request
from rest_framework.views import APIView

from partner_api.http import chunks, idempotency
from partner_api.http.parsing import limit_of


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
    # The member of a body that is a list of entries, each refused by itself where its text is not Unicode.
    read_apart: ClassVar[str | None] = None
    # The methods that honour an Idempotency-Key.
    idempotent: ClassVar[tuple[str, ...]] = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """After authentication: has the handler of an idempotent method run once for each key."""
        super().initial(request, *args, **kwargs)
        chunks.gather(request._request, limit_of(self))  # noqa: SLF001 - DRF wraps Django's request
        if request.method in self.idempotent:
            self.prepare(request)
            name = request.method.lower()
            handler = getattr(self, name)
            setattr(self, name, partial(_run_once, self, handler))

    def prepare(self, request: Any) -> None:
        """Before an idempotent method, repetitions included: whose asking is refused in any case."""

    def around(self, request: Any) -> AbstractContextManager[object] | None:
        """Around the transaction of an idempotent method: what speaks to other hosts, before it or after.

        It is not entered for a request whose answer is kept.
        """
        return None

    def asker(self, request: Any) -> str:
        """Who alone is given an answer again. Unless a view says more, all who have the scope are."""
        return ""

    def idempotency_scope(self, request: Request) -> str:
        """Whose key it is: the same key of another scope is another. Authentication sets it."""
        scope = getattr(request, "idempotency_scope", None)
        if not scope:
            message = f"{type(self).__name__} is idempotent, but nothing says whose key it is"
            raise ImproperlyConfigured(message)
        return str(scope)


def _run_once(view: ApiView, handler: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
    scope, asker = view.idempotency_scope(request), view.asker(request)
    act = partial(handler, request, *args, **kwargs)
    around = view.around(request)
    if around is None:
        return idempotency.run(request, scope, act, asker=asker)
    kept = idempotency.kept_answer(request, scope, asker=asker)
    if kept is not None:
        return kept
    with around:
        return idempotency.run(request, scope, act, asker=asker)
