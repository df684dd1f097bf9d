"""Who was given a PDF, when and where."""

from typing import Any

from django.test import Client

from deeds.models import DeedDownload
from tests.api import Api
from tests.deeds.kept import Complete, get, link_of


def test_each_download_is_logged_with_who_when_and_from_where(
    complete: Complete, api: Api, client: Client, staff: Client
) -> None:
    deed = complete()
    asked = api.get(f"/v2/deeds/{deed.pk}/pdf", X_Request_ID="asked-1")
    get(client, asked["Location"].removeprefix("http://testserver"), X_Request_ID="used-1", Range="bytes=0-9")
    staff.get(f"/admin/deeds/deed/{deed.pk}/pdf/")
    rows = [
        (one.kind, one.who, one.address, one.status, one.asked_range)
        for one in DeedDownload.objects.filter(deed=deed, partner=deed.partner).order_by("id")
    ]
    assert rows == [
        ("key", api.key.prefix, "127.0.0.1", 302, ""),
        ("link", "", "127.0.0.1", 200, "bytes=0-9"),
        ("staff", "root", "127.0.0.1", 302, ""),
    ]
    ids = DeedDownload.objects.order_by("id").values_list("request_id", flat=True)
    assert list(ids)[:2] == ["asked-1", "used-1"]
    page = staff.get(f"/admin/deeds/deed/{deed.pk}/change/").content.decode()
    assert api.key.prefix in page
    assert str(deed) in staff.get(f"/admin/deeds/deeddownload/?q={deed.pk}").content.decode()


def test_a_range_of_any_length_is_answered_and_logged_in_part(
    complete: Complete, api: Api, client: Client
) -> None:
    asked = "bytes=" + ",".join(f"{start}-{start}" for start in range(100))
    assert get(client, link_of(api, complete()), Range=asked).status_code == 200
    assert DeedDownload.objects.get().asked_range == asked[:100]


def test_reading_a_deed_logs_nothing_and_costs_no_more(
    nothing_is_due: None, complete: Complete, api: Api, client: Client, django_assert_num_queries: Any
) -> None:
    deed = complete()
    with django_assert_num_queries(1):
        url = link_of(api, deed)
    assert client.head(url).status_code == 200
    assert client.get(f"{url}x").status_code == 404
    assert not DeedDownload.objects.exists()


def test_the_log_can_not_be_edited_by_staff(complete: Complete, api: Api, staff: Client) -> None:
    api.get(f"/v2/deeds/{complete().pk}/pdf")
    one = DeedDownload.objects.get()
    assert staff.get("/admin/deeds/deeddownload/add/").status_code == 403
    assert staff.post(f"/admin/deeds/deeddownload/{one.pk}/delete/", {"post": "yes"}).status_code == 403
    staff.post(f"/admin/deeds/deeddownload/{one.pk}/change/", {"who": "someone"})
    one.refresh_from_db()
    assert one.who == api.key.prefix
