"""An S3 artifact root, read directly: one client, ranges side by side.

MLflow's own path makes a client for each file and is many times slower. Large files are read as
ranges; every request after the first names the version by its ETag, so that a file replaced in
between is an error and not a mixture.

Source: Amazon S3 API, ListObjectsV2 and GetObject.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

from adroit_publish.artifacts.cache import THREADS
from adroit_publish.artifacts.remote_root import (
    CHUNK_BYTES,
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    Body,
    CorruptBody,
    Patience,
    TransientFault,
    persist,
)
from adroit_publish.bundle.listing import MAX_FILES, RemoteFile
from adroit_publish.errors import RefusedError, SourceError

PIECE_BYTES = 64 << 20
_DENIED = {
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "401",
    "403",
}
_GONE = {"NoSuchBucket", "NoSuchKey", "404"}


class S3Root:
    """One model's files below a prefix of a bucket.

    Args:
        uri: ``s3://BUCKET/PREFIX``.
        profile: The AWS profile that may read it; None for boto3's default.

    Raises:
        RefusedError: The profile is not configured.
    """

    def __init__(self, uri: str, profile: str | None) -> None:
        self.uri = uri
        self.piece_bytes: int | None = PIECE_BYTES
        self._bucket = urlsplit(uri).netloc
        self._prefix = uri.removeprefix(f"s3://{self._bucket}/").strip("/") + "/"
        self._etags: dict[str, str] = {}
        self._client = _client(uri, profile)

    def list_files(self) -> tuple[RemoteFile, ...]:
        """Returns the objects below the prefix; empty "folder" objects are left out.

        Raises:
            SourceError: The bucket cannot be reached or does not exist.
            RefusedError: The credentials are missing, expired, or not allowed to list it.
        """
        found: list[RemoteFile] = []
        token: str | None = None
        while True:
            patience = Patience(f"The listing of {self.uri}")
            page = persist(lambda: self._list_page(token), patience)  # noqa: B023
            for entry in page.get("Contents", []):
                path = entry["Key"].removeprefix(self._prefix)
                if path and not (path.endswith("/") and entry["Size"] == 0):
                    found.append(RemoteFile(path, entry["Size"]))
            token = page.get("NextContinuationToken")
            if not token or len(found) > MAX_FILES:
                return tuple(found)

    def _list_page(self, token: str | None) -> dict[str, Any]:
        following = {"ContinuationToken": token} if token else {}
        with _translated(self.uri):
            page: dict[str, Any] = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix, **following
            )
        return page

    @contextmanager
    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[Body]:
        """Streams bytes ``[start, stop)`` of an object.

        Raises:
            TransientFault: The connection or the service failed.
            SourceError: The object is gone, was replaced, or is of another length than listed.
            RefusedError: The credentials are expired or not allowed to read it.
        """
        where = f"{self.uri}/{file.path}"
        request: dict[str, str] = {}
        if (start, stop) != (0, file.size_bytes):
            request["Range"] = f"bytes={start}-{stop - 1}"
        if etag := self._etags.get(file.path):
            request["IfMatch"] = etag
        with _translated(where):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._prefix + file.path, **request
            )
            with closing(answer["Body"]) as body:
                self._etags.setdefault(file.path, answer["ETag"])
                if answer["ContentLength"] != stop - start:
                    raise SourceError(
                        "The object has another length than listed.",
                        where=where,
                        got=f"{answer['ContentLength']} bytes",
                        wanted=f"{stop - start} bytes",
                        next_step="run the same command again once nothing writes there",
                    )
                yield Body(start, body.iter_chunks(CHUNK_BYTES))


def _client(uri: str, profile: str | None) -> Any:
    import boto3
    from botocore.config import Config

    # One attempt: `Patience` is the only place that retries, and it resumes where this restarts.
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=THREADS,
        retries={"total_max_attempts": 1},
    )
    with _translated(uri):
        return boto3.Session(profile_name=profile).client("s3", config=config)


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
        what = "A file of the model was replaced while it was read."
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
