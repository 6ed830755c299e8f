"""The Eng account on loopback: S3, STS, ECR's API, and the registry behind it.

SeaweedFS is the S3, moto_server answers for STS and ECR, Debian's docker-registry holds the images.
``eng_account`` starts all three and gives what a checkout and a process need to publish to them.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.registry.client import Registry
from adroit_publish.registry.docker_config import DockerCredentials
from adroit_publish.registry.image_reference import Tag
from adroit_publish.registry.repository import DOCKER_MANIFEST_MEDIA_TYPE, ImageRepository
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, running_moto, running_seaweed
from tests.servers.registry_servers import RegistryServer, docker_registry

ACCOUNT = "123456789012"  # the only one that moto knows
IMAGES = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/adroit"
BUCKET = "nextdoor-adroit"
BASE = "adroit-env/plain:2026.11"


@dataclass(frozen=True)
class EngAccount:
    """The servers of an Eng account that runs here.

    Attributes:
        s3_endpoint: SeaweedFS.
        aws_endpoint: moto_server.
        registry: docker-registry; it plays ECR's registry.
        environ: What a process needs: ``AWS_PROFILE=eng``, its credentials, the endpoints.
        target_lines: The target ``eng`` as TOML.
    """

    s3_endpoint: str
    aws_endpoint: str
    registry: RegistryServer
    environ: Mapping[str, str]
    target_lines: str


@contextmanager
def eng_account(directory: Path, tracking_uri: str) -> Iterator[EngAccount]:
    """Runs an Eng account while the context lasts.

    Args:
        directory: For the registry's blobs and the AWS configuration.
        tracking_uri: The tracking store of the target.
    """
    (directory / "aws").write_text(
        dedent(
            f"""\
            [profile eng]
            region = us-east-1
            aws_access_key_id = {ACCESS_KEY}
            aws_secret_access_key = {SECRET_KEY}
            """
        )
    )
    with running_seaweed() as s3, running_moto() as moto, docker_registry(directory) as registry:
        s3.client().create_bucket(Bucket=BUCKET)
        push_base(registry, BASE)
        environ = {
            "AWS_PROFILE": "eng",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(directory / "aws"),
            "AWS_ENDPOINT_URL": moto.endpoint,
            "AWS_ENDPOINT_URL_S3": s3.endpoint,
        }
        target = dedent(
            f"""
            [targets.eng]
            profiles = ["eng"]
            account = "{ACCOUNT}"
            tracking_uri = "{tracking_uri}"
            bundles = "s3://{BUCKET}/bundles"
            images = "{IMAGES}"
            images_endpoint = "{registry.url}"
            """
        )
        yield EngAccount(s3.endpoint, moto.endpoint, registry, environ, target)


def images(server: RegistryServer, name: str) -> ImageRepository:
    """Returns a repository of the registry, without credentials."""
    return ImageRepository(Registry(server.host, DockerCredentials({"HOME": "/nonexistent"})), name)


def push_base(server: RegistryServer, reference: str, *, marker: str = "1") -> Digest:
    """Pushes a small image of two Docker layers and returns its manifest's digest.

    Args:
        server: The registry.
        reference: ``repository:tag``.
        marker: Goes into a file, so that images differ.
    """
    name, _, tag = reference.rpartition(":")
    repository = images(server, name)
    tars = [_tar({"etc/os-release": "ID=tests\n"}), _tar({"opt/conda/marker": marker})]
    layers = []
    for data in (gzip.compress(tar, mtime=0) for tar in tars):
        media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        layer = Descriptor(media_type, Digest.of(data), len(data))
        repository.put_blob(layer, Inline(data))
        layers.append(layer)
    config_data = canonical_json(
        {
            "os": "linux",
            "architecture": "amd64",
            "config": {"Env": ["PATH=/opt/conda/bin:/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(tar)) for tar in tars]},
        }
    )
    config_type = "application/vnd.docker.container.image.v1+json"
    config = Descriptor(config_type, Digest.of(config_data), len(config_data))
    repository.put_blob(config, Inline(config_data))
    data = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST_MEDIA_TYPE,
            "config": config.as_dict(),
            "layers": [layer.as_dict() for layer in layers],
        }
    )
    manifest = Descriptor(DOCKER_MANIFEST_MEDIA_TYPE, Digest.of(data), len(data))
    repository.put_manifest(manifest, data)
    repository.replace_tag(Tag(tag), manifest, data)
    return manifest.digest


def _tar(files: Mapping[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return stream.getvalue()
