"""Bodies that do not all come: the client is told, and it is no fault of ours."""

from typing import Any

import pytest
from django.http import HttpRequest, UnreadablePostError
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from partner_api.http.chunks import gather
from partner_api.http.parsing import read_bounded
from partner_api.http.problems import Problem, handle


class Broken:
    def __init__(self, error: OSError) -> None:
        self.error = error

    def read(self, *_: Any) -> bytes:
        raise self.error

    def close(self) -> None: ...


ENDS = pytest.mark.parametrize(
    ("error", "code"), [(TimeoutError(), "request_timeout"), (ConnectionResetError(), "bad_request")]
)


def sent(error: OSError, **headers: str) -> HttpRequest:
    request = APIRequestFactory().post("/v2/deeds", **headers)
    body: Any = Broken(error)
    request.META["wsgi.input"] = request._stream = body
    return request


@ENDS
def test_json(error: OSError, code: str) -> None:
    with pytest.raises(Problem) as told:
        read_bounded(sent(error), 10)  # type: ignore[arg-type]  # what DRF hands over
    assert told.value.code == code


@ENDS
def test_chunks(error: OSError, code: str) -> None:
    request = sent(error, HTTP_TRANSFER_ENCODING="chunked")
    request.META.pop("CONTENT_LENGTH", None)
    request.META["wsgi.input_terminated"] = True
    with pytest.raises(Problem) as told:
        gather(request, 10)
    assert told.value.code == code


@ENDS
def test_raw_bytes(error: OSError, code: str) -> None:
    request = sent(error)
    with pytest.raises(UnreadablePostError) as raised:
        _ = request.body
    answer = handle(raised.value, {"request": Request(request)})
    assert answer is not None
    assert answer.data["code"] == code
