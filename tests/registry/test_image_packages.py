from __future__ import annotations

import gzip
import io
import os
import tarfile

import pytest

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.manifest import BaseImage
from adroit_publish.errors import VerificationError
from adroit_publish.registry.image_packages import installed_packages
from tests.registry.test_registry import blob_of, connect
from tests.servers.fake_registry import fake_registry

PYTHON = "/opt/conda/envs/adroit/bin/python"
SITE = "opt/conda/envs/adroit/lib/python3.11/site-packages"
OCI = "application/vnd.oci.image.layer.v1.tar"
DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def tar_of(names):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            data = os.urandom(3000)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def image(repository, layers):
    descriptors = []
    for data, media_type in layers:
        repository.put_blob(blob_of(data), Inline(data))
        descriptors.append(Descriptor(media_type, Digest.of(data), len(data)))
    return BaseImage("env", Digest.of(b"manifest"), tuple(descriptors), {})


@pytest.fixture
def server():
    with fake_registry() as server:
        yield server


@pytest.fixture
def repository(server):
    return connect(server)


def test_packages_are_read_from_the_names_of_files(repository):
    below = [
        "opt/conda/envs/adroit/conda-meta/python-3.11.7-h955ad1f_0.json",
        f"./{SITE}/scikit_learn-1.5.0.dist-info/METADATA",
        f"{SITE}/Gone-1.0.dist-info/METADATA",
        f"{SITE}/numpy-1.26.4.dist-info/METADATA",
        "opt/conda/lib/python3.12/site-packages/conda-24.1.dist-info/METADATA",
        f"{SITE}/numpy/tests/fake-9.dist-info/METADATA",
        f"{SITE}/hollow-1.dist-info/METADATA",
    ]
    above = [
        f"{SITE}/.wh.Gone-1.0.dist-info",
        f"{SITE}/.wh.numpy-1.26.4.dist-info",
        f"{SITE}/hollow-1.dist-info/.wh.METADATA",
        f"{SITE}/numpy-2.1.0.dist-info/METADATA",
    ]
    base = image(repository, [(gzip.compress(tar_of(below)), DOCKER_GZIP), (tar_of(above), OCI)])
    found = installed_packages(repository, base, PYTHON)
    assert found.python == "3.11.7"
    assert found.versions == {"scikit-learn": "1.5.0", "numpy": "2.1.0"}


def test_an_opaque_directory_hides_all_that_was_below_it(repository):
    below = [f"{SITE}/numpy-1.0.dist-info/METADATA"]
    above = [f"{SITE}/.wh..wh..opq", f"{SITE}/pandas-2.2.dist-info/METADATA"]
    base = image(repository, [(tar_of(below), OCI), (tar_of(above), OCI)])
    found = installed_packages(repository, base, PYTHON)
    assert (found.python, found.versions) == ("3.11", {"pandas": "2.2"})


def test_a_layer_that_cannot_be_read_here_is_no_answer_and_no_error(repository):
    base = image(repository, [(b"zstd", OCI + "+zstd")])
    assert installed_packages(repository, base, PYTHON) is None


def test_a_layer_that_is_no_tar_is_found(repository):
    for data, media_type in ((b"no tar" * 200, OCI), (b"no gzip" * 200, OCI + "+gzip")):
        with pytest.raises(VerificationError, match="no tar"):
            installed_packages(repository, image(repository, [(data, media_type)]), PYTHON)
    cut = gzip.compress(tar_of([f"{SITE}/a-1.dist-info/METADATA"] * 50))[:-500]
    with pytest.raises(VerificationError, match="no tar"):
        installed_packages(repository, image(repository, [(cut, OCI + "+gzip")]), PYTHON)


def test_a_layer_is_verified_to_its_last_byte(server, repository):
    data = tar_of([f"{SITE}/a-1.dist-info/METADATA"])
    base = image(repository, [(data, OCI)])
    server.blobs[Digest.of(data)] = data[:-1] + b"x"  # in the padding, where no tar reader looks
    with pytest.raises(VerificationError, match="not what its digest says"):
        installed_packages(repository, base, PYTHON)
