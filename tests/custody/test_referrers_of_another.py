"""What a registry lists as attached to an image counts where it says so itself."""

from __future__ import annotations

import pytest

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.manifest import CONFIG_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, parse_manifest
from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.custody.image import ImageCheck
from adroit_publish.custody.report import VerifyReport
from adroit_publish.errors import VerificationError
from adroit_publish.places import Places
from adroit_publish.registry.image_reference import Tag
from adroit_publish.registry.referrers import attach, attached
from adroit_publish.stores.bundle_store import BundleStore, Published
from adroit_publish.stores.contract import unheard
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.versions.copying import read_referrers
from tests.servers.eng_account import images
from tests.servers.registry_servers import docker_registry

RECORD = "application/vnd.tests.record+json"


def described(data, media_type):
    return Descriptor(media_type, Digest.of(data), len(data))


def push(repository, config):
    """Pushes an image without layers under its version's tag."""
    blob = described(config, CONFIG_MEDIA_TYPE)
    facts = {"mediaType": MANIFEST_MEDIA_TYPE, "config": blob.as_dict(), "layers": []}
    data = canonical_json({"schemaVersion": 2, **facts})
    manifest = described(data, MANIFEST_MEDIA_TYPE)
    repository.put_blob(blob, Inline(config))
    repository.put_manifest(manifest, data)
    version = PublishedVersion(f"v01234567-{manifest.digest.hex[:12]}")
    repository.tag(Tag(version), manifest, data)
    return Published("m", version, manifest), parse_manifest(data, "here")


def test_a_record_of_another_version_in_a_registrys_list_is_told_and_never_taken_over(tmp_path):
    """As a stale answer has it, or somebody who moved the tag that is the list."""
    with docker_registry(tmp_path) as server:
        repository = images(server, "m")
        theirs, _ = push(repository, b'{"os":"linux"}')
        ours, manifest = push(repository, b'{"os":"plan9"}')
        attach(repository, theirs.manifest, RECORD, b'{"predicted":true}')
        listed = repository.resolve(Tag(f"sha256-{theirs.manifest.digest.hex}"))
        our_list = Tag(f"sha256-{ours.manifest.digest.hex}")
        repository.replace_tag(our_list, listed.descriptor, listed.data)

        with pytest.raises(VerificationError, match="made for another version"):
            list(attached(repository, ours.manifest.digest, RECORD))
        report = VerifyReport(ours.version)
        ImageCheck(repository, report, unheard).check(ours, manifest, shallow=False)
        assert ["made for another version" in str(problem) for problem in report.problems] == [True]
        places = Places(BundleStore(DirectoryObjects(tmp_path / "store")), repository)
        with pytest.raises(VerificationError, match="made for another version"):
            read_referrers(places, ours)
        assert len(read_referrers(places, theirs)) == 1
