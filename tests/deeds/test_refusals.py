"""What the Main API says against an order, in the partner's terms; what is kept of it, and what is not."""

import datetime as dt
import gzip
import io
import re
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone
from PIL import Image
from pypdf import PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NumberObject, StreamObject
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from deeds import circuit, pdf, refusals, retry_after, storage, tasks
from deeds.checks import calls_fit_into_a_task
from deeds.main_api import renderer_for
from deeds.models import Deed, DeedAttempt
from deeds.sandbox.drawing import draw
from tests.api import Api
from tests.conftest import MainApi

Orders = Callable[..., dict[str, Any]]
Place = Callable[..., Deed]
# As observed on a running Main API.
OBSERVED = (
    "Validation failed: Grantor information is required; Grantee information is required; Legal "
    "description is required; County is required; APN (Assessor's Parcel Number) is recommended"
)


@pytest.fixture
def place(api: Api, order: Orders) -> Place:
    def make(order_id: str = "ORD-1") -> Deed:
        return Deed.objects.get(pk=api.post("/v2/deeds", order(order_id=order_id)).json()["id"])

    return make


def run(deed: Deed) -> Deed:
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    return deed


def test_it_works() -> None:
    assert [(one["pointer"], one["message"]) for one in refusals.errors_of(OBSERVED)] == [
        ("/grantors", "Grantor information is required"),
        ("/grantees", "Grantee information is required"),
        ("/property/legal_description", "Legal description is required"),
        ("/property/county", "County is required"),
        ("/property/apn", "APN (Assessor's Parcel Number) is recommended"),
    ]


@pytest.mark.parametrize(
    ("detail", "pointers"),
    [
        ("Validation failed: Documentary transfer tax amount is required", ["/transfer_tax/amount"]),
        ("City name is required when the property is in a city", ["/transfer_tax/city_name"]),
        ("The moon is full", [""]),
        ([{"loc": ["body", "execution_date"], "msg": "x", "type": "y"}], ["/execution_date"]),
        ([{"loc": ["body", "dtt", "amount"], "msg": "x"}], ["/transfer_tax/amount"]),
        ([{"loc": ["body", "dtt", "is_exempt"], "msg": "x"}], ["/transfer_tax/exempt"]),
        ([{"loc": ["body", "return_to", "zip"], "msg": "x"}], ["/recording/return_to/zip"]),
        ([{"loc": ["body", "page"], "msg": "x"}, "odd", {}], ["", ""]),
        ([{"loc": None, "msg": "x"}, {"loc": 7, "msg": None}], ["", ""]),
        (None, []),
        (7, []),
    ],
)
def test_each_reason_points_at_a_field_of_ours(detail: Any, pointers: list[str]) -> None:
    assert [one["pointer"] for one in refusals.errors_of(detail)] == pointers


def test_a_refused_deed_names_its_fields(place: Place, main_api: MainApi, api: Api) -> None:
    failure = api.get(f"/v2/deeds/{run(place('sandbox-400')).pk}").json()["failure"]
    assert failure["code"] == "main_api_rejected"
    assert failure["retryable"] is False
    assert failure["errors"] == [
        {
            "pointer": "/grantors",
            "code": "refused_by_renderer",
            "message": "Grantor information is required",
        }
    ]


def test_a_refusal_that_repeats_the_order_tells_it_to_the_partner_alone(
    place: Place, main_api: MainApi, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    def quotes(environ: Any, start_response: Any) -> list[bytes]:
        start_response("400 Bad Request", [("Content-Type", "application/json")])
        return [b'{"detail": "Validation failed: County is wrong for ALICE SMITH, an unmarried woman"}']

    main_api.answer = quotes
    deed = run(place())
    assert "ALICE SMITH" in deed.failure_message
    assert "ALICE" not in caplog.text
    assert deed.attempt_log.get().reason == "Validation failed: County is wrong for …"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"detail": [{"loc": null, "msg": "no county"}]}', "no county"),
        (b'{"detail": [{"loc": 7, "msg": ["no county"]}]}', "no county"),
        (b'{"detail": "no \\u0000county"}', "no \ufffdcounty"),
        (b'{"detail": "no \\ud83d county"}', "no \ufffd county"),
        (b'{"detail": [{"loc": ["body", "return_to", "\\u0000"], "msg": "no county"}]}', "no county"),
        (b'{"detail": {"county": ["missing"]}}', "county"),
        (b'{"detail": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "status 400"),
        (b'["no county"]', "status 400"),
        (b"\xff\xfe", "status 400"),
    ],
)
def test_a_refusal_in_any_words_fails_the_order_at_once(
    place: Place, main_api: MainApi, body: bytes, message: str
) -> None:
    """What can't be stored as text would else count as a crash of ours, five times."""

    def odd(environ: Any, start_response: Any) -> list[bytes]:
        start_response("400 Bad Request", [("X-Request-ID", "r\x01-\xe9")])
        return [body]

    main_api.answer = odd
    deed = run(place())
    assert (deed.status, deed.failure_code) == ("failed", "main_api_rejected")
    assert message in deed.failure_message
    assert len(main_api.calls) == 1


@pytest.mark.parametrize("status", ["202 Accepted", "204 No Content", "206 Partial Content"])
def test_a_success_that_is_not_the_whole_pdf_refuses_no_order(
    place: Place, main_api: MainApi, status: str
) -> None:
    def other(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, [("Content-Length", "0")])
        return []

    main_api.answer = other
    deed = run(place())
    assert (deed.status, deed.put_back_for) == ("queued", "invalid_pdf")
    assert deed.attempt_log.get().http_status == int(status[:3])


# --- the log of attempts ------------------------------------------------------------------------


def test_an_attempt_is_noted_with_what_the_main_api_said(place: Place, main_api: MainApi) -> None:
    deed = run(place("sandbox-503-2"))
    note = deed.attempt_log.get()
    assert (note.number, note.outcome, note.calls, note.http_status) == (1, "completed", 3, 200)
    assert note.main_api_request_id == deed.request_id
    assert note.generation_seconds is not None
    assert note.started_at == deed.claimed_at
    assert note.ended_at == deed.completed_at


def test_a_failed_attempt_is_noted_too(place: Place, main_api: MainApi, settings: Any) -> None:
    settings.DEED_RETRY_SCHEDULE_SECONDS = [3600]
    deed = run(place("sandbox-503-9"))
    Deed.objects.update(next_attempt_at=timezone.now())
    deed = run(deed)
    notes = list(deed.attempt_log.order_by("id"))
    assert [(note.number, note.outcome, note.http_status) for note in notes] == [
        (1, "main_api_unavailable", 503),
        (2, "main_api_unavailable", 503),
    ]
    assert notes[0].reason == "status 503"


def test_staff_see_the_attempts_of_a_deed(place: Place, main_api: MainApi, staff: Client) -> None:
    deed = run(place("sandbox-503-9"))
    page = staff.get(f"/admin/deeds/deed/{deed.pk}/change/").content.decode()
    assert "status 503" in page
    assert "main_api_unavailable" in page


def test_attempts_are_forgotten_after_a_while(place: Place, main_api: MainApi) -> None:
    run(place())
    with time_machine.travel(dt.timedelta(days=89)):
        tasks.purge_attempts()
        assert DeedAttempt.objects.count() == 1
    with time_machine.travel(dt.timedelta(days=91)):
        tasks.purge_attempts()
    assert not DeedAttempt.objects.exists()
    assert Deed.objects.get().status == "completed"


# --- a network that is out of order, and answers made to harm ------------------------------------


def test_tls_that_fails_puts_the_deed_back_at_once(place: Place, main_api: MainApi, settings: Any) -> None:
    settings.MAIN_API_BASE_URL = main_api.url.replace("http://", "https://")
    deed = run(place())
    assert (deed.status, deed.put_back_for) == ("queued", "main_api_unavailable")
    note = deed.attempt_log.get()
    assert (note.calls, note.reason) == (1, "TLS failed")
    assert main_api.calls == [], "nothing was sent in the clear"


def test_a_name_that_is_not_known_is_asked_for_again(place: Place, settings: Any) -> None:
    settings.MAIN_API_BASE_URL = "http://main-api.invalid"
    deed = run(place())
    assert (deed.status, deed.put_back_for) == ("queued", "main_api_unavailable")
    assert deed.attempt_log.get().calls == 3


def test_a_redirect_to_another_host_gets_no_token(place: Place, main_api: MainApi) -> None:
    seen: list[str] = []
    here = main_api.url.rpartition(":")[2]

    def redirects(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(environ["PATH_INFO"])
        start_response("307 Temporary Redirect", [("Location", f"http://localhost:{here}/elsewhere")])
        return [b""]

    main_api.answer = redirects
    deed = run(place())
    assert (deed.status, deed.put_back_for) == ("queued", "main_api_unavailable")
    assert seen == ["/api/generate/grant-deed-ca"]


def test_a_pdf_of_60_mb_is_not_read_to_its_end(place: Place, main_api: MainApi) -> None:
    sent = 0

    def huge(environ: Any, start_response: Any) -> Iterator[bytes]:
        nonlocal sent
        start_response("200 OK", [("Content-Type", "application/pdf"), ("Content-Length", str(60 << 20))])
        for _ in range(60):
            sent += 1
            yield b"%PDF-1.7\n" + b"x" * ((1 << 20) - 9)

    main_api.answer = huge
    deed = run(place())
    assert (deed.status, deed.failure_code, deed.failure_retryable) == ("failed", "pdf_too_large", False)
    assert sent < 40, "the connection was closed"


def test_a_body_that_drips_ends_with_its_time(place: Place, main_api: MainApi, settings: Any) -> None:
    settings.MAIN_API_READ_TIMEOUT_SECONDS = 0.3
    settings.MAIN_API_ATTEMPTS = 1
    sent = 0
    drips = threading.Event()

    def dripping(environ: Any, start_response: Any) -> Iterator[bytes]:
        nonlocal sent
        start_response("200 OK", [("Content-Type", "application/pdf"), ("Content-Length", "200")])
        for _ in range(200):
            sent += 1
            yield b"%"
            drips.wait(0.05)

    main_api.answer = dripping
    deed = run(place())
    assert (deed.status, deed.put_back_for) == ("queued", "main_api_timeout")
    assert sent < 100, "less than a few read timeouts, though each packet came in time"


def test_a_body_that_stops_in_the_middle_is_no_deed(place: Place, main_api: MainApi, settings: Any) -> None:
    settings.MAIN_API_READ_TIMEOUT_SECONDS = 0.2
    settings.MAIN_API_ATTEMPTS = 1
    goes_on = threading.Event()

    def stops(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "application/pdf"), ("Content-Length", "200")])
        yield b"%PDF-"
        goes_on.wait(2)

    main_api.answer = stops
    first = run(place("STOPS"))
    goes_on.set()
    assert first.put_back_for == "main_api_timeout"
    second = run(place("ENDS"))
    assert second.put_back_for == "main_api_unavailable"
    assert second.attempt_log.get().reason == "ProtocolError"


def test_calls_that_outlast_a_task_stop_the_process(settings: Any) -> None:
    assert calls_fit_into_a_task(None) == []
    settings.MAIN_API_READ_TIMEOUT_SECONDS = 60.0
    assert [error.id for error in calls_fit_into_a_task(None)] == ["partner_api.E058"]
    settings.MAIN_API_ATTEMPTS = 1
    assert calls_fit_into_a_task(None) == []


def test_a_packed_body_is_unpacked(place: Place, main_api: MainApi) -> None:
    content = draw("GRANT DEED", {"grantors_text": "ALICE SMITH", "apn": "8381-021-001"})

    def packs(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/pdf"), ("Content-Encoding", "gzip")])
        return [gzip.compress(content)]

    main_api.answer = packs
    assert storage.read(run(place())) == content


def test_a_refusal_of_any_length_is_a_refusal(place: Place, main_api: MainApi) -> None:
    def chatty(environ: Any, start_response: Any) -> list[bytes]:
        start_response("422 Unprocessable", [("Content-Type", "application/json")])
        return [b'{"detail": "', b"x" * 200_000, b'"}']

    main_api.answer = chatty
    deed = run(place())
    assert (deed.status, deed.failure_code) == ("failed", "main_api_rejected")


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "421 Misdirected Request"])
def test_a_proxy_that_knows_no_such_call_fails_no_order(place: Place, main_api: MainApi, status: str) -> None:
    def lost(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, [("Content-Type", "text/html")])
        return [b"<h1>nginx</h1>"]

    main_api.answer = lost
    for number in range(5):
        deed = run(place(f"LOST-{number}"))
        assert (deed.status, deed.put_back_for) == ("queued", "main_api_unavailable")
    assert len(main_api.calls) == 5, "it is not asked again within seconds"
    assert circuit.state(renderer_for(livemode=True)) == "open"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 1.0),
        ("", 1.0),
        ("soon", 1.0),
        ("0", 0.0),
        ("7.5", 7.5),
        ("300", 300.0),
        ("31536000", 3600.0),
        ("999999999999", 3600.0),
        ("-5", 1.0),
        ("inf", 1.0),
        ("-inf", 1.0),
        ("nan", 1.0),
        ("1e400", 1.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3600.0),
        ("Fri, 01 Jan 2100 00:00:00 -0000", 1.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_a_wish_to_be_left_alone_is_kept_within_reason(header: str | None, seconds: float) -> None:
    assert retry_after.seconds(header) == seconds


@pytest.mark.parametrize("asked", ["999999999999", "inf", "nan", "31536000"])
def test_an_absurd_wish_keeps_no_deed_for_long(place: Place, main_api: MainApi, asked: str) -> None:
    def busy(environ: Any, start_response: Any) -> list[bytes]:
        start_response("429 Too Many Requests", [("Retry-After", asked)])
        return [b""]

    main_api.answer = busy
    deed = run(place())
    assert (deed.status, deed.crashes) == ("queued", 0)
    assert deed.next_attempt_at - timezone.now() <= dt.timedelta(seconds=3600)


def with_content(unpacked: Iterable[bytes]) -> bytes:
    """A PDF of one page whose content is this, packed."""
    packer = zlib.compressobj(9)
    stream = StreamObject()
    stream._data = b"".join(packer.compress(part) for part in unpacked) + packer.flush()
    stream[NameObject("/Filter")] = NameObject("/FlateDecode")
    writer = PdfWriter()
    page = writer.add_blank_page(600, 800)
    page[NameObject("/Contents")] = writer._add_object(stream)
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    fonts = DictionaryObject({NameObject(name): NameObject(value) for name, value in font.items()})
    page[NameObject("/Resources")] = DictionaryObject(
        {NameObject("/Font"): DictionaryObject({NameObject("/F1"): fonts})}
    )
    return written(writer)


def written(writer: PdfWriter) -> bytes:
    output = io.BytesIO()
    writer.write(output)
    return output.getvalue()


def forms_within_forms() -> bytes:
    """Ten forms that draw ten forms that draw …: ten billion words, in a kilobyte."""
    writer = PdfWriter()
    page = writer.add_blank_page(600, 800)
    inner: Any = None
    for _ in range(11):
        form = StreamObject()
        form._data = b"/X Do " * 10 if inner is not None else b"BT (word) Tj ET"
        form[NameObject("/Type")] = NameObject("/XObject")
        form[NameObject("/Subtype")] = NameObject("/Form")
        form[NameObject("/BBox")] = ArrayObject([NumberObject(0)] * 4)
        if inner is not None:
            form[NameObject("/Resources")] = DictionaryObject(
                {NameObject("/XObject"): DictionaryObject({NameObject("/X"): inner})}
            )
        inner = writer._add_object(form)
    content = StreamObject()
    content._data = b"/X Do"
    page[NameObject("/Contents")] = writer._add_object(content)
    page[NameObject("/Resources")] = DictionaryObject(
        {NameObject("/XObject"): DictionaryObject({NameObject("/X"): inner})}
    )
    return written(writer)


@pytest.mark.parametrize(
    "shown",
    [
        b"(ALICE) Tj ( SMITH) Tj",
        b"[(AL) -20 (ICE SM) 5 (ITH)] TJ",
        rb"(\101LICE \123MITH) Tj",
        b"<414C49434520534D495448> Tj",
        rb"(\(APN\) 8381-021-001) Tj",
        rb"(\83\81\9 8381-021-001) Tj",
    ],
)
def test_a_fact_is_found_however_its_text_is_written(shown: bytes) -> None:
    content = with_content([b"BT /F1 12 Tf (DEED) Tj " + shown + b" ET"])
    assert pdf.check(content, grantors=["Alice Smith"], apn="8381-021-001").pages == 1
    with pytest.raises(pdf.NotADeed, match="names neither"):
        pdf.check(content, grantors=["Carol Lee"], apn="1111-222-333")


@pytest.mark.parametrize(
    "content", [b"(" + b"a" * 2_000_000, b"(" + rb"\(" * 1_000_000, b"(\\(" * 500_000, b"%(" * 1_000_000]
)
def test_strings_that_never_end_are_read_at_once(content: bytes) -> None:
    started = time.process_time()
    with pytest.raises(pdf.NotADeed):
        pdf.check(with_content([content]), grantors=["B"], apn="1")
    assert time.process_time() - started < 5


def test_a_fact_in_a_comment_is_not_shown() -> None:
    content = with_content([b"BT /F1 12 Tf (DEED) Tj % (ALICE SMITH)\n ET"])
    with pytest.raises(pdf.NotADeed, match="names neither"):
        pdf.check(content, grantors=["Alice Smith"], apn="8381-021-001")


@pytest.mark.parametrize("content", [b"", b"q Q", b"0 0 600 800 re S", b"% (ALICE SMITH)"])
def test_a_page_that_shows_nothing_is_no_deed(content: bytes) -> None:
    with pytest.raises(pdf.NotADeed, match="blank"):
        pdf.check(with_content([content]), grantors=["Alice Smith"], apn="8381-021-001")


def test_a_page_without_content_is_no_deed() -> None:
    writer = PdfWriter()
    writer.add_blank_page(600, 800)
    with pytest.raises(pdf.NotADeed, match="blank"):
        pdf.check(written(writer), grantors=["Alice Smith"], apn="8381-021-001")


def test_a_scanned_page_is_let_pass() -> None:
    canvas = Canvas(output := io.BytesIO())
    canvas.drawImage(ImageReader(Image.new("RGB", (8, 8))), 0, 0, 600, 800)
    canvas.save()
    assert pdf.check(output.getvalue(), grantors=["Alice Smith"], apn="8381-021-001").pages == 1


def test_facts_without_letters_are_found_nowhere() -> None:
    content = with_content([b"BT /F1 12 Tf (SOMEBODY ELSE 999) Tj ET"])
    with pytest.raises(pdf.NotADeed, match="names neither"):
        pdf.check(content, grantors=["."], apn="---")


def test_a_zip_bomb_is_not_unpacked() -> None:
    bomb = with_content(b"(A) Tj " * 150_000 for _ in range(200))
    assert len(bomb) < 1 << 20, "210 MB of content in it"
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(pdf.NotADeed):
            pdf.check(bomb, grantors=["A"], apn="1")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20
    assert time.process_time() - started < 5


def test_what_breaks_the_reader_in_any_way_is_no_deed() -> None:
    whole = with_content([b"BT /F1 12 Tf (DEED) Tj ET"])
    broken = {
        "a place beyond any file": re.sub(rb"startxref\n\d+", b"startxref\n" + b"9" * 30, whole),
        "a packing that is not installed": whole.replace(b"/FlateDecode", b"/BrotliDecode"),
        "a picture packed as no page is": whole.replace(b"/FlateDecode", b"/JBIG2Decode"),
    }
    for name, content in broken.items():
        assert content != whole, name
        with pytest.raises(pdf.NotADeed):
            pdf.check(content, grantors=["Alice Smith"], apn="8381-021-001")


def test_forms_drawn_within_forms_take_a_bounded_time() -> None:
    started = time.process_time()
    try:
        pdf.check(forms_within_forms(), grantors=["A"], apn="1")
    except pdf.NotADeed:
        pass
    assert time.process_time() - started < 2 * pdf._PATIENCE_SECONDS
