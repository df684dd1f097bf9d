"""What the address of a staff page may ask for: nonsense is told so, and wakes nobody as an error would.

Django's lists pass on to the database whatever a filter's name allows, regular expressions and NULs included.
"""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest
from django.db import DataError
from django.http import HttpRequest

_View = Callable[..., Any]


def sensibly(view: _View) -> _View:
    """The view, which answers 400 where what it is asked for can't be."""

    def asked(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if request.method != "GET" and "%00" in request.META.get("QUERY_STRING", ""):
            raise BadRequest("a NUL in the query")
        try:
            return view(request, *args, **kwargs)
        except IncorrectLookupParameters as error:
            # Of a download: a list has shown itself whole before.
            raise BadRequest("no such filter") from error
        except DataError as error:
            if request.method != "GET":
                raise  # of a form: that one has to be told by its field
            raise BadRequest("the database can't be asked that") from error

    # Partials have no name of their own to take over.
    return update_wrapper(asked, view)
