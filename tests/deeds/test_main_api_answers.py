"""Answers of the Main API, and of what stands before it, that the sandbox does not give."""

import datetime as dt
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DictionaryObject, NameObject
from reportlab.pdfgen.canvas import Canvas

from deeds import circuit, pdf
from deeds.main_api import renderer_for
from deeds.models import Deed, DeedAttempt
from tests.conftest import MainApi
from tests.deeds.kept import run

Place = Callable[..., Deed]


def answering(status: str, content: bytes = b"", **headers: str) -> Callable[..., Any]:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, [(name.replace("_", "-"), value) for name, value in headers.items()])
        return [content]

    return app


def refusing(detail: Any) -> Callable[..., Any]:
    return answering("422 Unprocessable Content", json.dumps({"detail": detail}).encode())


def test_it_works(place: Place, main_api: MainApi) -> None:
    main_api.answer = refusing(
        [{"loc": ["body", "execution_date"], "msg": "invalid date format", "type": "value_error.date"}]
    )
    deed = run(place())
    assert deed.failure_message == "The renderer refused the order: body.execution_date: invalid date format"
    assert [error["pointer"] for error in deed.failure_errors] == ["/execution_date"]


@pytest.mark.parametrize(
    ("detail", "message"),
    [
        ([{"loc": None, "msg": "no date", "type": "date"}], "no date"),
        ([{"loc": "body", "msg": "no date"}], "body: no date"),
        ([{"msg": "no date"}, {"loc": ["body", 3], "msg": None}], "no date; body.3"),
        (["no date", 7, None], "no date"),
        ({"date": "is none"}, "{'date': 'is none'}"),
        ([], "status 422"),
    ],
)
def test_a_refusal_of_another_shape_is_a_refusal(
    place: Place, main_api: MainApi, detail: Any, message: str
) -> None:
    main_api.answer = refusing(detail)
    deed = run(place())
    assert (deed.status, deed.attempts, deed.crashes) == ("failed", 1, 0)
    assert deed.failure_message == f"The renderer refused the order: {message}"


@pytest.mark.parametrize("status", ["202 Accepted", "204 No Content", "206 Partial Content"])
def test_a_success_without_a_deed_is_no_refusal(place: Place, main_api: MainApi, status: str) -> None:
    main_api.answer = answering(status)
    deed = run(place())
    assert (deed.status, deed.put_back_for) == ("queued", "invalid_pdf")


@pytest.mark.parametrize(("asked", "seconds"), [("45", 45), ("3600", 60)])
def test_a_503_that_says_for_how_long_is_believed_for_a_minute(
    place: Place, main_api: MainApi, asked: str, seconds: int
) -> None:
    main_api.answer = answering("503 Service Unavailable", b"<h1>Maintenance</h1>", Retry_After=asked)
    deed = run(place())
    assert (deed.status, deed.put_back_for) == ("queued", "main_api_unavailable")
    assert len(main_api.calls) == 1, "it asked to be left alone"
    pause = deed.next_attempt_at - timezone.now()
    assert dt.timedelta(seconds=seconds - 2) < pause <= dt.timedelta(seconds=seconds)
    assert circuit.state(renderer_for(livemode=True)) == "open"


def test_a_503_for_less_than_a_moment_is_asked_again_at_once(place: Place, main_api: MainApi) -> None:
    sandbox = main_api.answer

    def once(environ: Any, start_response: Any) -> Any:
        main_api.answer = sandbox
        return answering("503 Service Unavailable", Retry_After="0")(environ, start_response)

    main_api.answer = once
    assert run(place()).status == "completed"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0.452", 0.452), ("0.452s", 0.452), ("452ms", 0.452), ("452.0 ms", 0.452), ("soon", None), ("", None)],
)
def test_the_generation_time_is_read_with_its_unit(
    place: Place, main_api: MainApi, header: str, seconds: float | None
) -> None:
    sandbox = main_api.answer

    def told(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: Any) -> Any:
            others = [(name, value) for name, value in headers if name != "X-Generation-Time"]
            return start_response(status, [*others, ("X-Generation-Time", header)])

        return sandbox(environ, start)

    main_api.answer = told
    run(place())
    assert DeedAttempt.objects.get().generation_seconds == seconds


def form(value: str, *, in_two_places: bool = False) -> bytes:
    """A deed whose facts are filled into the fields of a form: they are in no page's own text."""
    canvas = Canvas(output := io.BytesIO())
    canvas.drawString(72, 700, "GRANT DEED")
    canvas.acroForm.textfield(name="grantors", x=72, y=650, width=400, height=20)
    canvas.save()
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(output.getvalue())))
    writer.update_page_form_field_values(writer.pages[0], {"grantors": value}, auto_regenerate=False)
    if in_two_places:
        field = writer.pages[0].annotations[0].get_object()  # type: ignore[index]
        shared = DictionaryObject({NameObject("/T"): field.pop("/T"), NameObject("/V"): field.pop("/V")})
        field[NameObject("/Parent")] = writer._add_object(shared)
    writer.write(filled := io.BytesIO())
    return filled.getvalue()


@pytest.mark.parametrize("in_two_places", [False, True])
def test_facts_in_the_fields_of_a_form_are_found(in_two_places: bool) -> None:
    filled = form("ALICE SMITH", in_two_places=in_two_places)
    assert pdf.check(filled, grantors=["Alice Smith"], apn="8381-021-001").pages == 1


@pytest.mark.parametrize("value", ["", "SOMEBODY ELSE"])
def test_a_form_that_names_another_is_no_deed(value: str) -> None:
    with pytest.raises(pdf.NotADeed, match="names neither"):
        pdf.check(form(value), grantors=["Alice Smith"], apn="8381-021-001")
