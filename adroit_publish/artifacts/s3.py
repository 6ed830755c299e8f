"""An S3 artifact root, read directly: one client, ranges side by side.

MLflow's own path makes a client for each file and is many times slower. Large files are read as
ranges; every request names the bytes by their ETag of the listing, so that a file replaced in
between is an error and not a mixture. Where an object was uploaded in parts, S3 says how long they
are: with that its ETag tells whether the bytes are right. Where the bucket is, and how it is
reached, is read from the settings that MLflow reads (``MLFLOW_S3_ENDPOINT_URL``, ...).

Source: Amazon S3 API, ListObjectsV2, GetObject and HeadObject (``partNumber``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from adroit_publish.artifacts import remote_root
from adroit_publish.artifacts.arrival.stated import Stated, stated_by
from adroit_publish.artifacts.cache import THREADS
from adroit_publish.artifacts.remote_root import Body, CorruptBody, TransientFault, persist
from adroit_publish.aws.errors import EXPIRED_CODES, WRONG_CREDENTIAL_CODES
from adroit_publish.bundle.listing import MAX_FILES, RemoteFile
from adroit_publish.errors import RefusedError, SourceError

PIECE_BYTES = 64 << 20
_DENIED = EXPIRED_CODES | WRONG_CREDENTIAL_CODES | {"AccessDenied", "401", "403"}
_GONE = {"NoSuchBucket", "NoSuchKey", "404"}


class S3Root:
    """One model's files in ``s3://BUCKET/PREFIX``; RefusedError where the profile is unknown."""

    def __init__(self, uri: str, profile: str | None) -> None:
        self.uri = uri
        self.piece_bytes: int | None = PIECE_BYTES
        bucket = urlsplit(uri).netloc
        self._bucket = {"Bucket": bucket}
        if owner := os.environ.get("MLFLOW_S3_EXPECTED_BUCKET_OWNER"):
            self._bucket["ExpectedBucketOwner"] = owner
        self._prefix = uri.removeprefix(f"s3://{bucket}/").strip("/") + "/"
        self._part_bytes: dict[str, int | None] = {}
        self._whole: dict[str, Stated] = {}
        self._client = _client(uri, profile)

    def list_files(self) -> tuple[RemoteFile, ...]:
        """Returns the objects below the prefix; empty "folder" objects are left out."""
        files: list[RemoteFile] = []
        token: str | None = None
        while True:
            page = persist(partial(self._list_page, token), f"The listing of {self.uri}")
            for entry in page.get("Contents", []):
                path = entry["Key"].removeprefix(self._prefix)
                if path and not (path.endswith("/") and entry["Size"] == 0):
                    files.append(RemoteFile(path, entry["Size"], entry.get("ETag")))
            token = page.get("NextContinuationToken")
            if not token or len(files) > MAX_FILES:
                return tuple(files)

    def _list_page(self, token: str | None) -> dict[str, Any]:
        following = {"ContinuationToken": token} if token else {}
        with _translated(self.uri):
            page: dict[str, Any] = self._client.list_objects_v2(
                **self._bucket, Prefix=self._prefix, **following
            )
        return page

    @contextmanager
    def read(self, file: RemoteFile, start: int, stop: int, tag: str | None) -> Iterator[Body]:
        """Streams bytes ``[start, stop)`` of an object."""
        where = f"{self.uri}/{file.path}"
        whole = (start, stop) == (0, file.size_bytes)
        request = {} if whole else {"Range": f"bytes={start}-{stop - 1}"}
        if tag:
            request["IfMatch"] = tag
        with _translated(where):
            answer = self._client.get_object(
                **self._bucket, Key=self._prefix + file.path, **request
            )
            with closing(answer["Body"]) as body:
                if answer.get("ContentLength") != stop - start:
                    raise SourceError(
                        "The object has another length than listed.",
                        where=where,
                        got=f"{answer.get('ContentLength', 'no number of')} bytes",
                        wanted=f"{stop - start} bytes",
                        next_step="run the same command again once nothing writes there",
                    )
                stated = self._stated_by(answer, file, whole=whole)
                yield Body(start, body.iter_chunks(remote_root.CHUNK_BYTES), stated)

    def stated(self, file: RemoteFile, tag: str) -> Stated:
        """Returns what S3 says of an object now."""
        with _translated(f"{self.uri}/{file.path}"):
            answer = self._head(file, ChecksumMode="ENABLED")
        return self._stated_by(answer, file, whole=True)

    def _head(self, file: RemoteFile, **request: Any) -> Any:
        key = self._prefix + file.path
        return self._client.head_object(**self._bucket, Key=key, **request)

    def _stated_by(self, answer: Any, file: RemoteFile, *, whole: bool) -> Stated:
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        stated = stated_by(headers, whole=whole, etag_is_md5=True)
        if not (stated.md5 or stated.parts_md5 or whole):
            return self._checksummed(file, stated)
        if not stated.parts_md5:
            return stated
        if file.path not in self._part_bytes:
            self._part_bytes[file.path] = self._first_part_bytes(file, stated)
        return replace(stated, part_bytes=self._part_bytes[file.path])

    def _checksummed(self, file: RemoteFile, stated: Stated) -> Stated:
        """Adds the checksum of an object whose ETag is not a digest: encrypted with a key, say."""
        from botocore.exceptions import BotoCoreError, ClientError

        if file.path not in self._whole:
            self._whole[file.path] = stated
            with suppress(BotoCoreError, ClientError):
                answer = self._head(file, ChecksumMode="ENABLED")
                headers = answer["ResponseMetadata"]["HTTPHeaders"]
                whole = stated_by(headers, whole=True, etag_is_md5=True)
                if whole.tag == stated.tag:
                    self._whole[file.path] = whole
        return self._whole[file.path]

    def _first_part_bytes(self, file: RemoteFile, stated: Stated) -> int | None:
        """Returns how long an object's first part is; None where the store does not tell."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            part = self._head(file, PartNumber=1, IfMatch=stated.tag)
        except (BotoCoreError, ClientError):
            return None
        length = int(part.get("ContentLength", 0))
        tells = part.get("PartsCount") == stated.part_count and length > 0
        return length if tells else None


def _client(uri: str, profile: str | None) -> Any:
    import boto3
    from botocore.config import Config

    # One attempt: `edge.patience` alone retries, and it resumes where this restarts.
    config = Config(
        connect_timeout=remote_root.CONNECT_TIMEOUT_S,
        read_timeout=remote_root.READ_TIMEOUT_S,
        max_pool_connections=THREADS,
        s3={"addressing_style": os.environ.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE") or "auto"},
        retries={"total_max_attempts": 1},
    )
    with _translated(uri):
        session = boto3.Session(profile_name=profile)
        ignore_tls = os.environ.get("MLFLOW_S3_IGNORE_TLS", "").lower() in ("true", "1")
        return session.client(
            "s3",
            config=config,
            endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None,
            verify=False if ignore_tls else None,
        )


@contextmanager
def _translated(where: str) -> Iterator[None]:
    from botocore import exceptions as aws
    from urllib3.exceptions import HTTPError

    try:
        yield
    except aws.ClientError as error:
        raise _from_client_error(error, where) from error
    except (aws.NoCredentialsError, aws.ProfileNotFound, aws.CredentialRetrievalError) as error:
        raise _refused(where, str(error)) from error
    except aws.FlexibleChecksumError as error:
        raise CorruptBody(f"a body of another checksum at {where}") from error
    except (aws.HTTPClientError, aws.IncompleteReadError, HTTPError) as error:
        raise TransientFault(f"{type(error).__name__} at {where}") from error
    except aws.BotoCoreError as error:
        raise SourceError(
            "The artifact bucket cannot be read.",
            where=where,
            got=type(error).__name__,
            next_step="check the region, the endpoint and the profile",
        ) from error


def _from_client_error(error: Any, where: str) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _DENIED:
        return _refused(where, code)
    if status in (408, 429) or status >= 500 or code in ("SlowDown", "RequestTimeout"):
        return TransientFault(f"{status} {code} at {where}")
    what = "The artifact bucket does not give the files."
    if code in _GONE:
        what = "The model's files are gone."
    elif status == 412:
        what = "A file of the model was replaced; it has other bytes, or another length, "
        what += "than listed."
    return SourceError(
        what,
        where=where,
        got=f"{status} {code}",
        next_step="check that the run's artifacts are still there, then run it again",
    )


def _refused(where: str, got: str) -> RefusedError:
    return RefusedError(
        "The credentials may not read the artifact bucket.",
        where=where,
        got=got,
        next_step="log in again, or set the target's source_profile in adroit.toml to a profile "
        "of the account that holds the bucket",
    )
