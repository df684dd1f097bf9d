"""An S3 server from PyPI (moto), for a stack that keeps its PDFs as production does."""

import sys
from pathlib import Path
from typing import Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from partner_api.local.ports import free_port
from partner_api.local.processes import Child

_BUCKET: Final = "partner-api-deeds"
_START_SECONDS: Final = 30.0


def start(*, log: Path) -> tuple[Child, dict[str, str]]:
    """An S3 server that keeps all in memory, and the settings that lead to its one bucket.

    Raises Failed.
    """
    port = free_port()
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    child = Child("s3", argv, log=log)
    settings = {
        "STORAGE_BACKEND": "s3",
        "S3_BUCKET": _BUCKET,
        "S3_REGION": "us-west-2",
        "S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        # Any will do: it asks for credentials and does not check them.
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    try:
        child.wait_until(lambda: _has_bucket(settings), seconds=_START_SECONDS)
    except BaseException:
        child.kill()
        raise
    return child, settings


def _has_bucket(settings: dict[str, str]) -> bool:
    client = boto3.client(
        "s3",
        endpoint_url=settings["S3_ENDPOINT_URL"],
        region_name=settings["S3_REGION"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        config=Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}),
    )
    try:
        client.create_bucket(
            Bucket=_BUCKET, CreateBucketConfiguration={"LocationConstraint": settings["S3_REGION"]}
        )
    except (BotoCoreError, ClientError):
        return False
    return True
