"""Where one request ends and the next begins: a proxy and we must see it alike, or one smuggles another in.

gunicorn has two parsers. Ours, in C, must see no request where the other sees none, and else the same ones.
"""

from typing import Any, Final

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.parser import RequestParser

from partner_api import gunicorn_conf

_HEAD: Final = b"POST /v2/deeds HTTP/1.1\r\nHost: a\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_NONE: Final = b"0\r\n\r\n"

REFUSED: Final = {
    "two lengths": _HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "one length twice": _HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "a list of lengths": _HEAD + b"Content-Length: 1, 1\r\n\r\na",
    "a length with a sign": _HEAD + b"Content-Length: +1\r\n\r\na",
    "a negative length": _HEAD + b"Content-Length: -1\r\n\r\na",
    "a hexadecimal length": _HEAD + b"Content-Length: 0x1\r\n\r\na",
    "a length of two words": _HEAD + b"Content-Length: 1 1\r\n\r\na",
    "a length in superscript": _HEAD + b"Content-Length: \xb2\r\n\r\na",
    "no length": _HEAD + b"Content-Length: \r\n\r\n",
    "a length and chunks": _HEAD + b"Content-Length: 5\r\n" + _CHUNKED + b"\r\n" + _NONE,
    "chunks twice": _HEAD + _CHUNKED + _CHUNKED + b"\r\n" + _NONE,
    "chunks in chunks": _HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + _NONE,
    "almost chunks": _HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + _NONE,
    "chunks behind a control character": _HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + _NONE,
    "chunks in quotes": _HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n' + _NONE,
    "chunks with a parameter": _HEAD + b"Transfer-Encoding: chunked;x=1\r\n\r\n" + _NONE,
    "chunks of HTTP/1.0": b"POST / HTTP/1.0\r\n" + _CHUNKED + b"\r\n" + _NONE,
    "a name with a space behind": _HEAD + b"Content-Length : 1\r\n\r\na",
    "a name with a space before": _HEAD + b" Content-Length: 1\r\n\r\na",
    "a folded value": _HEAD + b"X: a\r\n Content-Length: 1\r\n\r\na",
    "no name": _HEAD + b": a\r\n\r\n",
    "no colon": _HEAD + b"Content-Length\r\n\r\n",
    "lines without carriage returns": b"GET / HTTP/1.1\nHost: a\n\n",
    "one line without": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "an end without": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "a carriage return in a value": _HEAD + b"X: a\rContent-Length: 1\r\n\r\na",
    "a zero in a value": _HEAD + b"X: a\0\r\n\r\n",
    "a control character in a name": _HEAD + b"X\x01: a\r\n\r\n",
    "two requests' first lines": b"GET / HTTP/1.1 GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/01.1": b"GET / HTTP/01.1\r\nHost: a\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "a chunk's length in no number": _HEAD + _CHUNKED + b"\r\nxyz\r\na\r\n0\r\n\r\n",
    "a chunk's length with a sign": _HEAD + _CHUNKED + b"\r\n+1\r\na\r\n0\r\n\r\n",
}
TAKEN: Final = {
    "nothing": _HEAD + b"\r\n",
    "a length, and another request": _HEAD + b"Content-Length: 1\r\n\r\naGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
    "chunks, and another request": _HEAD
    + _CHUNKED
    + b"\r\n1\r\na\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
    "names that only look like it": _HEAD + b"Content_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n",
    "an empty line before": b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "letters beyond ASCII": _HEAD + b"X: \xe9\r\n\r\n",
}


def _requests(parser: str, data: bytes) -> list[Any]:
    config = Config()
    for name in ("limit_request_line", "limit_request_field_size"):
        config.set(name, getattr(gunicorn_conf, name))
    config.set("http_parser", parser)
    return [
        (request.method, request.uri, request.headers, request.body.read())
        for request in RequestParser(config, [data], ("192.0.2.1", 1))
    ]


@pytest.mark.parametrize("parser", ["fast", "python"])
@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_could_be_framed_in_two_ways_is_refused(parser: str, data: bytes) -> None:
    with pytest.raises((ParseException, OSError)):
        _requests(parser, data)


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_both_parsers_see_the_same_requests(data: bytes) -> None:
    seen = _requests("fast", data)
    assert seen == _requests("python", data)
    assert len(seen) == 1 + data.count(b"GET /2")


def test_heads_are_parsed_in_c() -> None:
    assert gunicorn_conf.http_parser == "fast"
