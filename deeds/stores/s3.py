"""PDFs in a private S3 bucket, under django-storages: encrypted there, checked on their way in.

S3 compares the SHA-256 that goes along with what arrived, and keeps it. `If-None-Match: *` makes the
first PDF of a name stay. Links are S3's presigned ones, or CloudFront's where a key pair is given.
"""

import base64
import datetime as dt
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlencode

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.utils import timezone
from storages.backends.s3 import S3Storage

from deeds.stores import EXPIRE, RETENTION_TAG, StoredObject, StoreUnavailable

_CONNECTIONS: Final = 32
_ABSENT: Final = {"404", "NoSuchKey", "NotFound"}
_THERE_ALREADY: Final = {"412", "PreconditionFailed", "ConditionalRequestConflict"}


class S3Store(S3Storage):  # type: ignore[misc]  # django-storages has no types
    """`sse` is "AES256" or "aws:kms"; timeouts are in seconds, `attempts` counts the first one too."""

    def __init__(
        self,
        *,
        sse: str,
        kms_key_id: str,
        connect_timeout: float,
        read_timeout: float,
        attempts: int,
        **options: Any,
    ) -> None:
        self.sse = sse
        self.kms_key_id = kms_key_id
        config = Config(
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            signature_version="s3v4",
            # Another server than AWS' seldom has a host name for each bucket.
            s3={"addressing_style": "path" if options.get("endpoint_url") else "virtual"},
        )
        super().__init__(client_config=config, **options)

    def put(self, name: str, content: bytes, *, file_name: str, replace: bool = False) -> bool:
        """Keeps `content` under `name`. False when another content is there, unless it is to be replaced."""
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        encryption = {"ServerSideEncryption": self.sse}
        if self.sse == "aws:kms" and self.kms_key_id:
            encryption["SSEKMSKeyId"] = self.kms_key_id
        with _refusals():
            try:
                self._client.put_object(
                    **self._object(name),
                    Body=content,
                    ContentType="application/pdf",
                    ContentDisposition=_disposition(file_name),
                    CacheControl="private, no-store",
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=checksum,
                    Tagging=urlencode({RETENTION_TAG: EXPIRE}),
                    **encryption,
                    **({} if replace else {"IfNoneMatch": "*"}),
                )
            except ClientError as error:
                if _code(error) not in _THERE_ALREADY:
                    raise
                head = self._client.head_object(**self._object(name), ChecksumMode="ENABLED")
                return bool(head.get("ChecksumSHA256") == checksum)
        return True

    def get(self, name: str) -> bytes | None:
        """The whole content, or None when there is none."""
        with _refusals():
            try:
                content: bytes = self._client.get_object(**self._object(name))["Body"].read()
            except ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
        return content

    def remove(self, name: str) -> None:
        """Nothing happens when it is not there."""
        with _refusals():
            self._client.delete_object(**self._object(name))

    def tag(self, name: str, retention: str) -> None:
        """What the lifecycle rule goes by. Nothing happens when the object is not there."""
        tags = {"TagSet": [{"Key": RETENTION_TAG, "Value": retention}]}
        with _refusals():
            try:
                self._client.put_object_tagging(**self._object(name), Tagging=tags)
            except ClientError as error:
                if _code(error) not in _ABSENT:
                    raise

    def walk(self, folder: str = "") -> Iterator[StoredObject]:
        """Every object below the folder, beneath the bucket's part that is ours."""
        prefix = f"{self.location}/" if self.location else ""
        below = f"{prefix}{folder}/" if folder else prefix
        pages = self._client.get_paginator("list_objects_v2")
        with _refusals():
            for page in pages.paginate(Bucket=self.bucket_name, Prefix=below):
                for found in page.get("Contents", []):
                    name = found["Key"].removeprefix(prefix)
                    yield StoredObject(name, found["Size"], found["LastModified"])

    def address(self, name: str, *, file_name: str, expires_at: dt.datetime) -> str | None:
        """A link that needs no key of ours, until `expires_at`. Made here, without asking S3."""
        key = self._object(name)["Key"]
        if self.cloudfront_signer:
            # The headers are the object's own: CloudFront need not pass a query on to S3.
            url = f"{self.url_protocol}//{self.custom_domain}/{key}"
            signed: str = self.cloudfront_signer.generate_presigned_url(url, date_less_than=expires_at)
            return signed
        parameters = {
            **self._object(name),
            "ResponseContentType": "application/pdf",
            "ResponseContentDisposition": _disposition(file_name),
            "ResponseCacheControl": "private, no-store",
        }
        seconds = max(1, round((expires_at - timezone.now()).total_seconds()))
        with _refusals():
            presigned: str = self._client.generate_presigned_url("get_object", parameters, ExpiresIn=seconds)
        return presigned

    def ping(self) -> None:
        """Raises StoreUnavailable when the bucket does not answer us."""
        with _refusals():
            self._client.head_bucket(Bucket=self.bucket_name)

    def put_lifecycle(self, rules: dict[str, Any]) -> None:
        """Replaces the bucket's lifecycle rules."""
        with _refusals():
            self._client.put_bucket_lifecycle_configuration(
                Bucket=self.bucket_name, LifecycleConfiguration=rules
            )

    def lifecycle(self) -> list[dict[str, Any]]:
        """The rules that the bucket has."""
        with _refusals():
            try:
                answer = self._client.get_bucket_lifecycle_configuration(Bucket=self.bucket_name)
            except ClientError as error:
                if _code(error) == "NoSuchLifecycleConfiguration":
                    return []
                raise
        rules: list[dict[str, Any]] = answer["Rules"]
        return rules

    @cached_property
    def _client(self) -> Any:
        """One for all threads, which boto's clients allow; a session each would cost each its time."""
        return self._create_session().client(
            "s3", region_name=self.region_name, endpoint_url=self.endpoint_url, config=self.client_config
        )

    def _object(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket_name, "Key": self._normalize_name(name)}


def _disposition(file_name: str) -> str:
    return f'attachment; filename="{file_name}"'


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _refusals() -> Iterator[None]:
    """S3's own answers by their code, everything else (network, credentials) by its class."""
    try:
        yield
    except ClientError as error:
        raise StoreUnavailable(f"S3 answered {_code(error)} to {error.operation_name}") from error
    except (BotoCoreError, OSError) as error:
        raise StoreUnavailable(type(error).__name__) from error
