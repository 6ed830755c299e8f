"""Where a service reads the sitevar from: a file, an S3 object, or parameters in SSM.

``fetch`` gives the entries of all models, unchecked. The AWS sources need ``s3:GetObject``, or
``ssm:GetParametersByPath``; credentials, region and endpoint are boto3's usual ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from adroit.sitevars.document import MAX_BYTES, read_object

CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 5.0


def source_of(address: str) -> Callable[[], dict[str, Any]]:
    """Returns what reads the entries at an address, each time anew.

    What it raises where the source is away is the source's own (OSError, botocore's errors); what
    is no sitevar is a ValueError.

    Args:
        address: ``file:PATH``, ``s3://BUCKET/KEY``, ``ssm:/PREFIX`` or ``ssm:REGION/PREFIX``.

    Raises:
        ValueError: It is none of these.
    """
    client = cache(_new_client)  # made by the first read, and kept as long as the reader
    scheme, _, rest = address.partition(":")
    if scheme == "file" and rest:
        return lambda: _from_file(Path(rest))
    if scheme == "s3" and rest.startswith("//"):
        bucket, _, key = rest[2:].partition("/")
        if bucket and key:
            return lambda: _from_s3(client("s3"), bucket, key)
    region, slash, prefix = rest.partition("/")
    if scheme == "ssm" and prefix:
        return lambda: _from_ssm(client("ssm", region or None), slash + prefix)
    raise ValueError("a sitevar's address is file:PATH, s3://BUCKET/KEY or ssm:/PREFIX")


def _from_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return read_object(stream.read(MAX_BYTES + 1))  # one more than the format allows


def _from_s3(client: Any, bucket: str, key: str) -> dict[str, Any]:
    answer = client.get_object(Bucket=bucket, Key=key)
    with answer["Body"] as body:
        return read_object(body.read(MAX_BYTES + 1))


def _from_ssm(client: Any, prefix: str) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for page in client.get_paginator("get_parameters_by_path").paginate(Path=prefix):
        for parameter in page["Parameters"]:
            model = parameter["Name"].rpartition("/")[2]
            own = read_object(parameter["Value"].encode())
            if own.keys() != {model}:
                raise ValueError(f"has another model than {model} in {parameter['Name']}")
            entries |= own
    return entries


def _new_client(service: str, region: str | None = None) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    return boto3.Session(region_name=region).client(service, config=config)
