"""A publish to S3 and a registry that is signed by a key of AWS KMS, and demanded there."""

from __future__ import annotations

import boto3
import pytest

from adroit_publish import publish
from adroit_publish.attestations.demand import Demand
from adroit_publish.attestations.envelope import ENVELOPE_MEDIA_TYPE
from adroit_publish.attestations.statement import PROVENANCE, VERIFICATION
from adroit_publish.checkout import open_checkout
from adroit_publish.custody.check import verify
from adroit_publish.custody.signature import NotSigned, admit_signed
from adroit_publish.places import open_places
from adroit_publish.registry.referrers import attached
from tests.attestations.test_keys import sign_digest
from tests.servers.eng_account import BASE, eng_account
from tests.support.checkouts import commit, make_checkout


def test_what_kms_signed_hangs_in_both_places_and_is_demanded(tmp_path, trained, monkeypatch):
    monkeypatch.setattr("moto.kms.utils.ECDSAPrivateKey.sign", sign_digest)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    (tmp_path / "eng").mkdir()
    with eng_account(tmp_path / "eng", trained.tracking_uri) as eng:
        for name, value in eng.environ.items():
            monkeypatch.setenv(name, value)
        made = boto3.client("kms").create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")
        key = f"awskms:{made['KeyMetadata']['Arn']}"
        lines = f'\nsigning_key = "{key}"\nrequire_signature = ["{key}"]\n'
        root = make_checkout(
            tmp_path / "repo",
            trained.tracking_uri,
            {"a": trained.good[0]},
            target_lines=eng.target_lines + lines,
        )
        envs = f"plain:\n  image: {BASE}\n  environment: environment.yml\n"
        (root / "conda_envs.yaml").write_text(envs)
        commit(root, "its env is an image")
        release = publish("a", root=root, target="eng", verify="none")

        places = open_places(open_checkout(root, {}).target("eng"), "doubler")
        published = places.store.get(release.version)
        assert admit_signed(places.store, published, "a").key == key
        assert verify(places.store, published, places.images).problems == []
        digest = published.manifest.digest
        in_registry = list(attached(places.images, digest, ENVELOPE_MEDIA_TYPE))
        assert set(in_registry) == set(places.store.attached(published, ENVELOPE_MEDIA_TYPE))
        read = Demand("eng", (key,)).read(in_registry, "here")
        assert {(one.key, one.statement.kind) for one in read} == {
            (key, PROVENANCE),
            (key, VERIFICATION),
        }
        with pytest.raises(NotSigned, match="of flavor a, not of b"):
            admit_signed(places.store, published, "b")
