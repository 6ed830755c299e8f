"""Keys in files and in AWS KMS, and what they sign, read by tools that are not ours."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime

import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement as PublicStatement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError as NotVerified
from securesystemslib.signer import CryptoSigner, SSlibKey

from adroit_publish.attestations.demand import Demand
from adroit_publish.attestations.envelope import attest, read_envelope, sign
from adroit_publish.attestations.keys import public_key_at, signer_at
from adroit_publish.attestations.statement import (
    PROVENANCE,
    VERIFICATION,
    parse_statement,
    provenance,
)
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import BundleRecord, canonical_json
from adroit_publish.bundle.layer import FileEntry
from adroit_publish.bundle.record import Verification
from adroit_publish.errors import ConfigError, RefusedError, StoreError, VerificationError
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, running_moto

MANIFEST, ENV, LAYER = (Digest.of(name) for name in (b"manifest", b"env", b"layer"))
EXAMPLE = Digest.of(b"example")
RECORD = canonical_json(
    {
        "schema": 1,
        "created_utc": "2026-11-28T04:00:00+00:00",
        "who": "ada",
        "host": "laptop",
        "flavor": "a",
        "model_name": "doubler",
        "version": "v01234567-0123456789ab",
        "manifest_digest": str(MANIFEST),
        "run_id": "0" * 32,
        "commit": "c" * 40,
        "commit_url": "https://example.invalid/commit/c",
        "dirty": ["projects/doubler/a.py"],
        "conda_env": "plain",
        "conda_env_digest": str(ENV),
        "layers": [{"kind": "model", "digest": str(LAYER)}],
        "origin": {"metaflow": "PublishMlflowModelFlow/17"},
    }
)
BUNDLE = BundleRecord(
    "doubler", "0" * 32, None, None, {}, None, (), None, "plain", str(ENV),
    {"model": (FileEntry("input_example.json", 7, EXAMPLE),), "runtime": (), "source": ()},
    Digest.of(b"bundle"),
)  # fmt: skip
SEEN = Verification(how="image", predicted=True, outputs_sha256="e" * 64)
MADE = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


def write_pair(directory, private):
    """Writes both halves of a key as openssl does; returns their addresses."""
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "key.pem").write_bytes(pem)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / "key.pub").write_bytes(public)
    return f"file:{directory}/key.pem", f"file:{directory}/key.pub"


@pytest.mark.parametrize("kind", MADE)
def test_what_a_key_in_a_file_signs_its_public_half_proves(tmp_path, kind):
    private, public = write_pair(tmp_path, MADE[kind]())
    data = sign(provenance(RECORD), signer_at(private))
    read = read_envelope(data, {public: public_key_at(public)}, "here")
    assert read.key == public
    assert read.statement == parse_statement(provenance(RECORD), "here")
    (tmp_path / "other").mkdir()
    other = write_pair(tmp_path / "other", MADE[kind]())[1]
    assert read_envelope(data, {other: public_key_at(other)}, "here").key is None


@pytest.mark.parametrize("kind", MADE)
def test_no_bit_of_what_was_signed_can_change(tmp_path, kind):
    private, public = write_pair(tmp_path, MADE[kind]())
    envelope = json.loads(sign(provenance(RECORD), signer_at(private)))
    payload = base64.b64decode(envelope["payload"])
    keys = {public: public_key_at(public)}
    for before, after in ((b'"ada"', b'"eve"'), (MANIFEST.hex.encode(), LAYER.hex.encode())):
        assert before in payload
        forged = envelope | {"payload": base64.b64encode(payload.replace(before, after)).decode()}
        assert read_envelope(canonical_json(forged), keys, "here").key is None
    assert read_envelope(canonical_json(envelope), keys, "here").key == public


def test_public_tools_read_and_prove_a_provenance(tmp_path):
    private, public = write_pair(tmp_path, MADE["ed25519"]())
    data = sign(provenance(RECORD), signer_at(private))

    envelope = Envelope.from_dict(json.loads(data))
    envelope.verify([public_key_at(public)], 1)
    with pytest.raises(NotVerified):
        envelope.verify([SSlibKey.from_crypto(MADE["ed25519"]().public_key())], 1)
    message = json_format.Parse(envelope.payload, StatementMessage())
    PublicStatement.copy_from_pb(message).validate()
    (subject,) = message.subject
    assert subject.name == "doubler/v01234567-0123456789ab"
    assert subject.digest["sha256"] == MANIFEST.hex
    predicate = json_format.ParseDict(json_format.MessageToDict(message.predicate), Provenance())
    definition, details = predicate.build_definition, predicate.run_details
    assert definition.external_parameters["flavor"] == "a"
    assert definition.internal_parameters["who"] == "ada"
    materials = {one.name: dict(one.digest) for one in definition.resolved_dependencies}
    assert materials == {
        "source": {"gitCommit": "c" * 40},
        "run": {},
        "conda env plain": {"sha256": ENV.hex},
        "model layer": {"sha256": LAYER.hex},
    }
    assert details.metadata.invocation_id == "PublishMlflowModelFlow/17"
    assert details.metadata.finished_on.ToDatetime(UTC) == datetime(2026, 11, 28, 4, tzinfo=UTC)
    (record,) = details.byproducts
    assert record.digest["sha256"] == Digest.of(RECORD).hex


def test_a_verification_says_what_was_asked_and_what_was_answered(tmp_path):
    private, public = write_pair(tmp_path, MADE["ed25519"]())
    envelopes = attest(RECORD, SEEN, BUNDLE, private)
    read = Demand("eng", (public,)).read(envelopes, "here")
    assert {one.statement.kind for one in read} == {PROVENANCE, VERIFICATION}
    assert {one.key for one in read} == {public}
    assert {one.statement.record for one in read} == {Digest.of(RECORD)}
    payloads = [json.loads(base64.b64decode(json.loads(data)["payload"])) for data in envelopes]
    (payload,) = (one for one in payloads if one["predicateType"] == VERIFICATION)
    predicate = payload["predicate"]
    assert predicate["result"] == "PASSED"
    asked = {"name": "model/input_example.json", "digest": {"sha256": EXAMPLE.hex}}
    assert predicate["configuration"] == [{"name": "how: image"}, asked]
    assert predicate["answered"] == [{"name": "outputs", "digest": {"sha256": "e" * 64}}]
    assert (predicate["passedTests"], predicate["warnedTests"]) == (
        ["loads", "predicts"],
        ["serves"],
    )


def test_what_nobody_saw_is_no_passed_test(tmp_path):
    private, _ = write_pair(tmp_path, MADE["ed25519"]())
    data = attest(RECORD, Verification(), BUNDLE, private)[0]
    predicate = json.loads(base64.b64decode(json.loads(data)["payload"]))["predicate"]
    assert (predicate["result"], predicate["passedTests"]) == ("WARNED", [])


def sign_digest(self, message, _algorithm):
    """Signs as AWS does where MessageType is DIGEST; moto, which does not know that, hashes it."""
    return self.private_key.sign(message, ec.ECDSA(Prehashed(SHA256())))


@pytest.fixture
def kms(monkeypatch):
    """A key in moto's KMS, and a client of it."""
    monkeypatch.setattr("moto.kms.utils.ECDSAPrivateKey.sign", sign_digest)
    with running_moto() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        client = boto3.client("kms")
        made = client.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")["KeyMetadata"]
        yield client, made


def test_a_key_of_aws_kms_signs_and_proves_by_id_arn_and_alias(kms, tmp_path):
    client, key = kms
    client.create_alias(AliasName="alias/publish", TargetKeyId=key["KeyId"])
    names = (key["KeyId"], key["Arn"], "alias/publish")
    for address in (f"awskms:{name}" for name in names):
        data = sign(provenance(RECORD), signer_at(address))
        assert Demand("eng", (address,)).read([data], "here")[0].key == address
    # Its public half in a file does as well, and asks AWS nothing.
    der = client.get_public_key(KeyId=key["KeyId"])["PublicKey"]
    body = base64.encodebytes(der).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"
    (tmp_path / "kms.pub").write_text(pem)
    public = f"file:{tmp_path}/kms.pub"
    assert Demand("eng", (public,)).read([data], "here")[0].key == public


@pytest.mark.parametrize(
    ("spec", "usage"),
    [
        ("ECC_NIST_P521", "SIGN_VERIFY"),
        ("ECC_SECG_P256K1", "SIGN_VERIFY"),
        ("RSA_2048", "ENCRYPT_DECRYPT"),
    ],
)
@pytest.mark.parametrize("asked", [signer_at, public_key_at])
def test_a_key_of_kms_that_cannot_sign_here_says_which_can(kms, spec, usage, asked):
    client, _ = kms
    key = client.create_key(KeyUsage=usage, KeySpec=spec)["KeyMetadata"]
    with pytest.raises(ConfigError, match="cannot sign") as told:
        asked(f"awskms:{key['KeyId']}")
    error = told.value
    assert error.where == f"awskms:{key['KeyId']}"
    assert error.got
    assert "ECC_NIST_P256" in error.wanted
    assert "aws kms create-key" in error.next_step


def test_a_key_that_kms_does_not_have_says_so(kms):
    with pytest.raises(StoreError, match="AWS failed") as told:
        signer_at("awskms:alias/gone")
    assert "NotFound" in str(told.value)
    assert not told.value.transient


def test_kms_without_credentials_is_refused(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(RefusedError, match="no AWS credentials"):
        signer_at("awskms:alias/publish")


def test_a_file_that_holds_no_key_says_how_one_is_made(tmp_path):
    with pytest.raises(ConfigError, match="openssl genpkey"):
        signer_at(f"file:{tmp_path}/gone.pem")
    _, public = write_pair(tmp_path, MADE["ed25519"]())
    with pytest.raises(ConfigError, match="Not a private key"):
        signer_at(public)
    (tmp_path / "key.pub").write_text("nothing")
    with pytest.raises(ConfigError, match="Not a private key"):
        public_key_at(public)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(st.data())
def test_a_statement_by_anybody_is_read_or_refused_and_nothing_else(data):
    """Anyone who can write to a store can attach one: no value in it may end in a traceback."""
    document = json.loads(provenance(RECORD))
    at = document
    while isinstance(at, dict | list) and at and data.draw(st.booleans()):
        keys = sorted(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or data.draw(st.booleans()):
            dates = st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
            at[key] = data.draw(JSON | dates)
            break
        at = at[key]
    signer = CryptoSigner.generate_ed25519()
    envelope = json.loads(sign(json.dumps(document).encode(), signer))
    part = data.draw(st.sampled_from([None, "payload", "payloadType", "signatures"]))
    if part:
        envelope[part] = data.draw(JSON)
    keys = {"a": signer.public_key}
    with suppress(VerificationError):
        read_envelope(json.dumps(envelope).encode(), keys, "here")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_clock_shows_is_refused(time):
    document = json.loads(provenance(RECORD))
    document["predicate"]["runDetails"]["metadata"]["finishedOn"] = time
    with pytest.raises(VerificationError, match="Not a valid statement"):
        parse_statement(json.dumps(document).encode(), "here")


def test_an_envelope_of_another_type_is_not_read(tmp_path):
    private, public = write_pair(tmp_path, MADE["ed25519"]())
    data = sign(provenance(RECORD), signer_at(private), "application/json")
    with pytest.raises(VerificationError, match="Not a valid envelope"):
        read_envelope(data, {public: public_key_at(public)}, "here")
