"""PDFs in S3, over HTTP: how they lie there, how they are handed out, and S3 being away."""

import base64
import datetime as dt
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import time_machine
from botocore.config import Config
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from deeds import outcomes, storage, tasks, verifying
from deeds.models import Deed, DeedDownload
from deeds.stores import StoreUnavailable
from deeds.stores.s3 import S3Store
from tests.api import Api
from tests.conftest import MainApi, use_store

Orders = Callable[..., dict[str, Any]]
Change = Callable[..., S3Store]
BUCKET = "deeds-of-tests"


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(settings: Any, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Change]:
    """Keeps PDFs in an empty bucket. Call it to change the store's options."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")

    def change(**options: Any) -> S3Store:
        given: dict[str, Any] = {
            "bucket_name": BUCKET,
            "region_name": "us-west-2",
            "endpoint_url": s3_url,
            "location": "kept",
            "sse": "AES256",
            "kms_key_id": "",
            "connect_timeout": 1,
            "read_timeout": 5,
            "attempts": 1,
        }
        use_store(settings, "s3.S3Store", **(given | options))
        made = storage._store()
        assert isinstance(made, S3Store)
        return made

    settings.STORAGE_BACKEND, settings.S3_PREFIX = "s3", "kept"
    made = change()
    made._client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    yield change
    requests.post(f"{s3_url}/moto-api/reset", timeout=10)


@pytest.fixture
def place(api: Api, order: Orders) -> Callable[[str], Deed]:
    def make(order_id: str = "ORD-123") -> Deed:
        return Deed.objects.get(pk=api.post("/v2/deeds", order(order_id=order_id)).json()["id"])

    return make


@pytest.fixture
def completed(store: Change, place: Callable[..., Deed], main_api: MainApi) -> Deed:
    return run(place())


def run(deed: Deed) -> Deed:
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    return deed


def head(deed: Deed) -> dict[str, Any]:
    s3 = storage._store()
    assert isinstance(s3, S3Store)
    facts: dict[str, Any] = s3._client.head_object(
        Bucket=BUCKET, Key=f"kept/{storage.name_of(deed)}", ChecksumMode="ENABLED"
    )
    return facts


def follow(client: Client, deed: Deed) -> str:
    """Where the deed's link leads."""
    url = storage.link_to(deed, now=timezone.now()).url
    answer = client.get(url.removeprefix("http://testserver"))
    assert answer.status_code == 302
    assert answer["Cache-Control"] == "private, no-store"
    return str(answer["Location"])


def test_a_deed_goes_to_s3_and_comes_back_by_its_link(completed: Deed, api: Api, client: Client) -> None:
    assert completed.status == "completed"
    link = api.get(f"/v2/deeds/{completed.pk}").json()["pdf"]["url"]
    assert link.startswith("http://testserver/files/deeds/"), "links are ours, so that their use is logged"
    answer = requests.get(follow(client, completed), timeout=10)
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == completed.pdf_sha256
    assert answer.headers["Content-Type"] == "application/pdf"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="grant-deed-ORD-123.pdf"'
    assert answer.headers["Cache-Control"] == "private, no-store"


def test_it_lies_there_encrypted_private_and_with_its_checksum(completed: Deed, s3_url: str) -> None:
    facts = head(completed)
    assert facts["ServerSideEncryption"] == "AES256"
    assert facts["ChecksumSHA256"] == base64.b64encode(bytes.fromhex(completed.pdf_sha256)).decode()
    assert facts["ContentType"] == "application/pdf"
    assert requests.get(f"{s3_url}/{BUCKET}/kept/{completed.pdf_name}", timeout=10).status_code == 403
    s3 = storage._store()
    assert isinstance(s3, S3Store)
    grants = s3._client.get_object_acl(Bucket=BUCKET, Key=f"kept/{completed.pdf_name}")["Grants"]
    assert [grant["Grantee"]["Type"] for grant in grants] == ["CanonicalUser"], "its owner only"


def test_a_key_of_kms_encrypts(store: Change, place: Callable[..., Deed], main_api: MainApi) -> None:
    store(sse="aws:kms", kms_key_id="alias/deeds")
    facts = head(run(place()))
    assert (facts["ServerSideEncryption"], facts["SSEKMSKeyId"]) == ("aws:kms", "alias/deeds")


def test_the_address_works_for_a_day_at_most_and_no_longer_than_the_link(
    completed: Deed, client: Client, settings: Any
) -> None:
    url = storage.link_to(completed, now=timezone.now()).url.removeprefix("http://testserver")

    def lifetime() -> int:
        return int(parse_qs(urlsplit(client.get(url)["Location"]).query)["X-Amz-Expires"][0])

    assert 86_390 <= lifetime() <= 86_400
    with time_machine.travel(timezone.now() + dt.timedelta(hours=23), tick=True):
        assert 3_590 <= lifetime() <= 3_600
    settings.STORAGE_LINK_SECONDS = 60
    assert 50 <= lifetime() <= 60


def test_cloudfront_signs_with_the_key_pair_and_a_canned_policy(
    completed: Deed, store: Change, client: Client
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()
    store(custom_domain="cdn.example.com", cloudfront_key_id="K123", cloudfront_key=pem)
    url = follow(client, completed)
    address, _, text = url.partition("?")
    query = {name: values[0] for name, values in parse_qs(text).items()}
    assert address == f"https://cdn.example.com/kept/{completed.pdf_name}"
    assert set(query) == {"Expires", "Signature", "Key-Pair-Id"}, "a canned policy is not in the URL"
    assert query["Key-Pair-Id"] == "K123"
    assert 86_390 <= int(query["Expires"]) - timezone.now().timestamp() <= 86_400
    condition = {"DateLessThan": {"AWS:EpochTime": int(query["Expires"])}}
    policy = {"Statement": [{"Resource": address, "Condition": condition}]}
    signed = json.dumps(policy, separators=(",", ":")).encode()
    signature = base64.b64decode(query["Signature"].translate(str.maketrans("-_~", "+=/")))
    verify = key.public_key().verify
    verify(signature, signed, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - what CloudFront asks for
    with pytest.raises(InvalidSignature):
        verify(signature, signed.replace(b"kept", b"else"), padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the same


def test_a_repeated_store_leaves_one_object_and_the_first(
    store: Change, place: Callable[..., Deed], main_api: MainApi
) -> None:
    """A worker dies between the store and the commit; the next one's PDF differs in a byte."""
    first = run(place("OTHER"))
    deed = place()
    s3 = store()
    content = storage.read(first)
    assert content is not None
    earlier = content.replace(b"%PDF-1.4", b"%PDF-1.5")
    assert earlier != content
    assert storage.keep(deed, earlier)
    assert storage.keep(deed, earlier), "the same again is no conflict"
    assert not storage.keep(deed, content), "another one does not replace it"
    run(deed)
    assert deed.status == "completed"
    assert deed.pdf_sha256 == hashlib.sha256(earlier).hexdigest()
    assert storage.read(deed) == earlier
    assert len(list(s3.walk())) == 2


def test_what_lies_there_and_is_no_deed_is_replaced(
    store: Change, place: Callable[..., Deed], main_api: MainApi
) -> None:
    deed = place()
    assert storage.keep(deed, b"half a PDF")
    run(deed)
    assert deed.status == "completed"
    assert hashlib.sha256(storage.read(deed) or b"").hexdigest() == deed.pdf_sha256


@pytest.fixture
def hanging() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("how", ["away", "hangs", "no bucket", "no credentials"])
def test_a_deed_waits_for_an_s3_that_does_not_take_it(
    store: Change,
    place: Callable[..., Deed],
    main_api: MainApi,
    hanging: str,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways: dict[str, dict[str, Any]] = {
        "away": {"endpoint_url": "http://127.0.0.1:9"},
        "hangs": {"endpoint_url": hanging, "read_timeout": 0.2},
        "no bucket": {"bucket_name": "another-bucket"},
        "no credentials": {},
    }
    if how == "no credentials":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store(**ways[how])
    deed = run(place())
    assert (deed.status, deed.timeline[-1]["detail"]) == ("queued", "storage_unavailable")
    with pytest.raises(StoreUnavailable):
        storage.check()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    store()
    Deed.objects.update(next_attempt_at=timezone.now())
    assert run(deed).status == "completed"
    storage.check()


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (503, "SlowDown"), (500, "")])
def test_a_deed_waits_for_an_s3_that_refuses(
    store: Change, place: Callable[..., Deed], main_api: MainApi, status: int, code: str, caplog: Any
) -> None:
    from wsgiref.simple_server import make_server

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(f"{status} X", [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()]

    with make_server("127.0.0.1", 0, app) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        store(endpoint_url=f"http://127.0.0.1:{server.server_port}", attempts=1)
        deed = run(place())
        server.shutdown()
        thread.join()
    assert (deed.status, deed.timeline[-1]["detail"]) == ("queued", "storage_unavailable")
    assert len(main_api.calls) == 1
    assert code in caplog.text


def test_the_settings_bound_time_and_attempts(store: Change) -> None:
    config: Config = store(connect_timeout=2, read_timeout=7, attempts=4)._client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (2, 7)
    assert config.retries["total_max_attempts"] == 4
    assert config.signature_version == "s3v4"


def test_a_hold_is_a_tag_that_the_lifecycle_rule_passes_by(
    completed: Deed, store: Change, settings: Any, acme: Any
) -> None:
    from deeds import keeping
    from keys.audit import Actor

    s3 = store()

    def tag() -> str:
        tags = s3._client.get_object_tagging(Bucket=BUCKET, Key=f"kept/{completed.pdf_name}")["TagSet"]
        return str({one["Key"]: one["Value"] for one in tags}["retention"])

    assert tag() == "expire"
    assert keeping.hold(completed, Actor.system("test"), "lawsuit")
    assert tag() == "hold"
    assert keeping.release(completed, Actor.system("test"), "settled")
    assert tag() == "expire"
    store(endpoint_url="http://127.0.0.1:9")
    assert keeping.hold(completed, Actor.system("test"), "while S3 is away")
    store()
    assert tag() == "expire"
    keeping.delete_outdated()
    assert tag() == "hold", "the next run of the retention makes up for it"


def test_a_pdf_that_was_held_before_it_was_made_is_stored_as_held(
    api: Api, order: Any, main_api: MainApi, store: Change
) -> None:
    from deeds import keeping
    from keys.audit import Actor

    s3 = store()
    deed = Deed.objects.get(pk=api.post("/v2/deeds", order()).json()["id"])
    assert keeping.hold(deed, Actor.system("test"), "lawsuit")
    tasks.serve(str(deed.pk))
    deed.refresh_from_db()
    assert deed.status == "completed"
    tags = s3._client.get_object_tagging(Bucket=BUCKET, Key=f"kept/{deed.pdf_name}")["TagSet"]
    assert {one["Key"]: one["Value"] for one in tags}["retention"] == "hold"


def test_the_lifecycle_rule_is_put_beside_others(store: Change, settings: Any, capsys: Any) -> None:
    with pytest.raises(CommandError, match="PDF_RETENTION_DAYS"):
        call_command("storage_lifecycle")
    settings.PDF_RETENTION_DAYS = 30
    call_command("storage_lifecycle")
    rule = json.loads(capsys.readouterr().out)["Rules"][0]
    assert rule["Filter"]["And"] == {
        "Prefix": "kept/deeds/",
        "Tags": [{"Key": "retention", "Value": "expire"}],
    }
    assert rule["Expiration"] == {"Days": 31}
    s3 = store()
    other = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 7}}
    s3.put_lifecycle({"Rules": [other]})
    for _ in range(2):
        call_command("storage_lifecycle", "--apply")
    assert [one["ID"] for one in s3.lifecycle()] == ["logs", "delete-pdfs-after-retention"]


def test_retention_deletes_the_object(completed: Deed, store: Change, settings: Any) -> None:
    settings.PDF_RETENTION_DAYS = 1
    Deed.objects.update(completed_at=timezone.now() - dt.timedelta(days=2))
    tasks.delete_old_pdfs()
    assert list(store().walk()) == []
    completed.refresh_from_db()
    assert completed.pdf_deleted_at is not None


def test_handing_out_an_address_is_logged(completed: Deed, client: Client) -> None:
    follow(client, completed)
    logged = DeedDownload.objects.get()
    assert (logged.kind, logged.status, logged.address) == ("link", 302, "127.0.0.1")


def test_so_is_one_that_was_asked_for_by_head(completed: Deed, client: Client) -> None:
    url = storage.link_to(completed, now=timezone.now()).url.removeprefix("http://testserver")
    assert requests.get(client.head(url)["Location"], timeout=10).status_code == 200
    assert DeedDownload.objects.get().status == 302


def test_orphans_are_looked_for_among_pdfs_only(completed: Deed, store: Change) -> None:
    bucket = store(location="")
    for name in ("backups/2020.tar", "deeds-of-others/1.pdf"):
        bucket._client.put_object(Bucket=BUCKET, Key=name, Body=b"not ours")
    bucket._client.put_object(Bucket=BUCKET, Key="deeds/00/stray.pdf", Body=b"%PDF-stray")
    with time_machine.travel(timezone.now() + dt.timedelta(days=2)):
        found = [one.name for one in verifying.orphans(older_than=dt.timedelta(days=1))]
    assert found == ["deeds/00/stray.pdf"]


def test_a_crash_after_the_store_is_made_good(
    store: Change, place: Callable[..., Deed], main_api: MainApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    deed = place()

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(outcomes, "completed", die)
        with pytest.raises(Killed):
            tasks.serve(str(deed.pk))
    (kept,) = store().walk()
    deed.refresh_from_db()
    assert deed.status == "rendering"
    Deed.objects.update(lease_expires_at=timezone.now() - dt.timedelta(seconds=1))
    tasks.sweep()
    assert run(deed).status == "completed"
    (same,) = store().walk()
    assert (same.name, same.modified_at) == (kept.name, kept.modified_at), "it was not stored again"
