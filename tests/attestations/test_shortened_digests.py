"""A version's name has 48 bits of its digest: two bundles that share them, and a signature."""

from __future__ import annotations

from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from adroit_publish.attestations.demand import Demand
from adroit_publish.attestations.envelope import ENVELOPE_MEDIA_TYPE, sign
from adroit_publish.attestations.statement import provenance
from adroit_publish.bundle.content import Inline, InlineFile
from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.layer import LayerRecipe, PackedFile, hash_layer
from adroit_publish.bundle.manifest import MANIFEST_MEDIA_TYPE, RECORD_MEDIA_TYPE, index_bytes
from adroit_publish.custody.signature import NotSigned
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.versions.pull import pull

GOOD, EVIL = (b"good", "0000000000d1b36c"), (b"evil", "000000000079dc08")
"""The text of a model, and what makes its manifest's digest begin as the other's: 2^25 tries."""
PATH = "model/MLmodel"


def layer_of(text):
    return hash_layer(LayerRecipe("model", (PackedFile(f"opt/adroit/{PATH}", InlineFile(text)),)))


def manifest_of(text, nonce):
    config = Descriptor.of("application/vnd.oci.empty.v1+json", b"{}")
    facts = {
        "config": config.as_dict(),
        "layers": [layer_of(text).descriptor.as_dict()],
        "mediaType": MANIFEST_MEDIA_TYPE,
        "schemaVersion": 2,
        "title": nonce,
    }
    return canonical_json(facts)


def put(store, text, nonce):
    """Stores a bundle, without a name, and returns its manifest."""
    layer, data = layer_of(text), manifest_of(text, nonce)
    manifest = Descriptor.of(MANIFEST_MEDIA_TYPE, data)
    for descriptor, content in (
        (layer.descriptor, layer.content),
        (Descriptor.of("application/vnd.oci.empty.v1+json", b"{}"), Inline(b"{}")),
        (manifest, Inline(data)),
    ):
        store.put_blob(descriptor, content)
    return manifest


@pytest.fixture
def store(tmp_path):
    """A store that demands a signature, with the good bundle, which is signed."""
    signer = CryptoSigner.generate_ed25519()
    key = tmp_path / "key.pem"
    key.write_bytes(signer.private_bytes)
    store = BundleStore(DirectoryObjects(tmp_path / "store"), Demand("prod", (f"file:{key}",)))
    manifest = put(store, *GOOD)
    version = f"v01234567-{manifest.digest.hex[:12]}"
    record = canonical_json(
        {
            "schema": 1,
            "created_utc": "2026-11-28T04:00:00+00:00",
            "commit": "0" * 40,
            "model_name": "m",
            "version": version,
            "manifest_digest": str(manifest.digest),
        }
    )
    store.attach("m", version, manifest, RECORD_MEDIA_TYPE, record)
    store.attach("m", version, manifest, ENVELOPE_MEDIA_TYPE, sign(provenance(record), signer))
    store.commit("m", version, manifest)
    return store


def test_the_bundle_that_was_signed_is_pulled(store, tmp_path):
    (version,) = store.version_names("m")
    pull(store, store.get(version), tmp_path / "out")
    assert (tmp_path / "out" / PATH).read_bytes() == b"good"


def test_a_bundle_swapped_under_the_same_shortened_digest_is_refused(store, tmp_path):
    (version,) = store.version_names("m")
    signed = store.get(version)
    kinds = (RECORD_MEDIA_TYPE, ENVELOPE_MEDIA_TYPE)
    documents = [(kind, data) for kind in kinds for data in store.attached(signed, kind)]
    evil = put(store, *EVIL)
    assert evil.digest != signed.manifest.digest
    index = Path(store.objects.root, "m", version, "index.json")
    index.chmod(0o644)
    index.write_bytes(index_bytes(evil, version))
    for entry in list((index.parent / "referrers").iterdir()):
        entry.unlink()
    for kind, data in documents:
        store.attach("m", version, evil, kind, data)
    published = store.get(version)  # by its name, it is the version
    assert published.manifest.digest == evil.digest
    with pytest.raises(NotSigned, match="of another manifest"):
        pull(store, published, tmp_path / "out")
    pull(BundleStore(store.objects), published, tmp_path / "out")  # 48 bits are all that is asked
    assert (tmp_path / "out" / PATH).read_bytes() == b"evil"


def test_a_signed_bundle_under_another_models_name_is_refused(store, tmp_path):
    (version,) = store.version_names("m")
    signed = store.get(version)
    for kind in (RECORD_MEDIA_TYPE, ENVELOPE_MEDIA_TYPE):
        for data in list(store.attached(signed, kind)):
            store.attach("other", version, signed.manifest, kind, data)
    store.commit("other", version, signed.manifest)
    with pytest.raises(NotSigned, match=f"of m/{version}"):
        pull(store, store.find("other", version), tmp_path / "out")
