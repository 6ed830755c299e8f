"""A target that demands signatures: what is signed passes everywhere, and nothing else does."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from securesystemslib.signer import CryptoSigner

from adroit_publish import publish, republish
from adroit_publish.attestations.demand import Demand
from adroit_publish.attestations.envelope import ENVELOPE_MEDIA_TYPE, sign
from adroit_publish.attestations.keys import signer_at
from adroit_publish.attestations.statement import provenance
from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.manifest import (
    CONFIG_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPE,
    RECORD_MEDIA_TYPE,
)
from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.checkout import open_checkout
from adroit_publish.cli.commands import cli
from adroit_publish.custody.signature import NotSigned
from adroit_publish.errors import ConfigError, PublishError, RefusedError
from adroit_publish.places import Places, open_store
from adroit_publish.publish.prepare import prepare
from adroit_publish.publish.prepare_republish import prepare_republish
from adroit_publish.publish.publish import publish as publish_job
from adroit_publish.publish.release import PublishOptions, RepublishOptions
from adroit_publish.publish.republish import republish as republish_job
from adroit_publish.publish.stages import Listener
from adroit_publish.registry.referrers import attached
from adroit_publish.stores.bundle_store import BundleStore, Published
from adroit_publish.stores.directory import DirectoryObjects
from adroit_publish.stores.ledger import append
from adroit_publish.version import Version, Versions
from adroit_publish.versions.deployment import manifests_of
from adroit_publish.versions.pull import pull
from adroit_publish.versions.serve import serve
from tests.servers.eng_account import images
from tests.servers.registry_servers import docker_registry
from tests.support.checkouts import commit, make_checkout

TEAM, OTHERS = "team", "others"
VERSION = "v01234567-0123456789ab"
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def write_key(directory, name):
    signer = CryptoSigner.generate_ed25519()
    (directory / f"{name}.pem").write_bytes(signer.private_bytes)
    return signer


class Made:
    """A checkout that one can publish from, and the keys next to it.

    Attributes:
        versions: By flavor, what was published and signed.
    """

    def __init__(self, directory, versions=()):
        self.root, self.keys = directory / "repo", directory / "keys"
        self.versions = dict(versions)

    def key(self, name):
        return f"file:{self.keys}/{name}.pem"

    def demand(self, *names, signing=None, target="local", **lines):
        """Writes what a target demands: the keys' names."""
        wanted = {"require_signature": [self.key(name) for name in names]} if names else {}
        wanted |= {"signing_key": self.key(signing)} if signing else {}
        path = self.root / "adroit.toml"
        text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in (wanted | lines).items())
        was, header = path.read_text(), f"[targets.{target}]\n"
        kept = [line for line in was.splitlines() if not line.startswith(("sign", "require_"))]
        path.write_text("\n".join(kept).replace(header, f"{header}{text}\n") + "\n")

    def store(self, target="local"):
        return open_store(open_checkout(self.root, {}).target(target))

    def version(self, flavor="a", target="local"):
        store = self.store(target)
        return Version(store, store.get(self.versions[flavor]))

    def run(self, *arguments):
        result = CliRunner().invoke(cli, arguments)
        error = result.exception
        if error and not isinstance(error, PublishError | SystemExit):
            raise error
        code = error.exit_code if isinstance(error, PublishError) else result.exit_code
        return code, result.output + (str(error) if isinstance(error, PublishError) else "")


@pytest.fixture(scope="module")
def published(tmp_path_factory, trained):
    """Flavor ``a`` predicts, ``b`` was not asked; both are signed by the team."""
    made = Made(tmp_path_factory.mktemp("signed"))
    make_checkout(
        made.root,
        trained.tracking_uri,
        {"a": trained.good[0], "b": trained.good[1]},
        target_lines=f'[targets.prod]\ntracking_uri = "{trained.tracking_uri}"\n'
        'bundles = "file:.adroit/prod"\n',
    )
    made.keys.mkdir()
    for name in (TEAM, OTHERS):
        write_key(made.keys, name)
    made.demand(TEAM, signing=TEAM)
    for flavor, verify in (("a", "process"), ("b", "none")):
        made.versions[flavor] = publish(flavor, root=made.root, verify=verify).version
    commit(made.root, "published")
    return made


@pytest.fixture
def made(published, tmp_path, monkeypatch):
    shutil.copytree(published.root.parent, tmp_path / "signed")
    made = Made(tmp_path / "signed", published.versions)
    made.demand(TEAM, signing=TEAM)
    monkeypatch.chdir(made.root)
    return made


def attach(made, flavor, media_type, data, target="local"):
    version = made.version(flavor, target)
    version.store.attach("doubler", version.name, version.published.manifest, media_type, data)


def drop_referrers(made, flavor, media_type):
    """Takes away what of one kind is attached to a version, as whoever writes to a store can."""
    store, published = made.store(), made.version(flavor).published
    for name in list(store.referrers(published)):
        if any(blob.media_type == media_type for blob in store.referrer(published, name)[1:]):
            (
                made.root / ".adroit/bundles/doubler" / published.version / "referrers" / name
            ).unlink()


def test_what_is_published_is_signed_and_everything_takes_it(made):
    assert made.run("verify", "a")[0] == 0
    code, shown = made.run("show", made.versions["a"])
    assert code == 0
    (line,) = (line for line in shown.splitlines() if line.startswith("signed provenance"))
    assert f"by {made.key(TEAM)}" in line
    assert "flavor a" in line
    assert "does not count" not in line
    assert made.run("pull", "a", "out")[0] == 0
    assert Path("out/bundle.json").is_file()
    assert made.run("status", "--check")[0] == 0
    (made.root / "projects/doubler/features.py").write_text("SCALE = 3\n")
    commit(made.root, "scaled")
    assert republish("a", root=made.root, verify="none").version != made.versions["a"]


def test_json_of_show_tells_who_signed_what(made):
    signatures = json.loads(made.run("show", "a", "--json")[1])["signatures"]
    kinds = sorted((one["kind"], one["flavor"], one["problem"]) for one in signatures)
    assert kinds == [("provenance", "a", None), ("verification", None, None)]
    assert {one["key"] for one in signatures} == {made.key(TEAM)}


def refused_everywhere(made, flavor, *said):
    """Holds that each way to use a version is refused, for a reason that is told."""
    version = made.version(flavor)
    for arguments in (
        ["pull", flavor, "out"],
        ["pull", flavor, "out", "--oci"],
        ["verify", flavor],
    ):
        code, told = made.run(*arguments)
        assert code == NotSigned.exit_code == 4, told
        for words in said:
            assert words in told
    assert made.run("status")[0] == 0
    assert not Path("out").exists()
    with pytest.raises(NotSigned):
        serve(open_checkout(made.root), version.store, version.published, 0, flavor=flavor)
    with pytest.raises(NotSigned):
        republish(flavor, root=made.root, verify="none")
    with pytest.raises(NotSigned):
        publish(flavor, root=made.root, verify="none")  # "nothing to do" would vouch for it
    code, told = made.run("status", "--check")
    assert code == 4, told
    assert f"{version.name} of {flavor}" in told


def test_an_unsigned_version_is_refused(made):
    drop_referrers(made, "b", ENVELOPE_MEDIA_TYPE)
    refused_everywhere(made, "b", "not signed as its target demands", "no signature")
    assert made.run("verify", "a")[0] == 0


def test_an_unsigned_version_goes_on_working_where_nothing_is_demanded(made):
    drop_referrers(made, "b", ENVELOPE_MEDIA_TYPE)
    made.demand()
    assert made.run("verify", "b")[0] == 0
    assert made.run("pull", "b", "out")[0] == 0
    assert made.run("status", "--check")[0] == 0


def test_a_version_signed_by_a_key_that_is_not_listed_is_refused(made):
    made.demand(OTHERS, signing=OTHERS)
    refused_everywhere(made, "b", "which is not listed or did not sign this")


def test_a_signature_under_anothers_key_id_is_refused(made):
    envelope = json.loads(
        next(made.store().attached(made.version("b").published, ENVELOPE_MEDIA_TYPE))
    )
    drop_referrers(made, "b", ENVELOPE_MEDIA_TYPE)
    payload = provenance(canonical_json(made.version("a").records[0].document))
    forged = json.loads(sign(payload, CryptoSigner.generate_ed25519()))
    forged["signatures"][0]["keyid"] = envelope["signatures"][0]["keyid"]
    attach(made, "b", ENVELOPE_MEDIA_TYPE, canonical_json(forged))
    refused_everywhere(made, "b", "did not sign this")


def test_the_signature_of_another_version_is_refused(made):
    envelopes = list(made.store().attached(made.version("a").published, ENVELOPE_MEDIA_TYPE))
    drop_referrers(made, "b", ENVELOPE_MEDIA_TYPE)
    for envelope in envelopes:
        attach(made, "b", ENVELOPE_MEDIA_TYPE, envelope)
    refused_everywhere(made, "b", "of another manifest")


def test_a_version_under_another_flavors_name_is_refused(made):
    """As a flavors.yaml has it that gives ``b`` the version that ``a`` was signed as."""
    path = made.root / "flavors.yaml"
    path.write_text(path.read_text().replace(made.versions["b"], made.versions["a"]))
    made.versions["b"] = made.versions["a"]
    refused_everywhere(made, "b", "of flavor a, not of b")
    assert made.run("pull", made.versions["a"], "out")[0] == 0  # by its version, it is itself


def test_the_same_content_published_as_another_flavor_is_signed_as_that_one(made, trained):
    release = publish("b", root=made.root, run_id=trained.good[0], verify="none")
    assert release.version == made.versions["a"]
    assert made.run("verify", "b")[0] == 0
    assert made.run("verify", "a")[0] == 0
    before = len(list(made.store().referrers(made.version().published)))
    publish("b", root=made.root, run_id=trained.good[0], verify="none")
    assert len(list(made.store().referrers(made.version().published))) == before


def test_a_signature_that_is_older_than_allowed_is_refused(made):
    made.demand(TEAM, signing=TEAM, signature_max_age="1d")
    assert made.run("verify", "b")[0] == 0
    made.demand(TEAM, signing=TEAM, signature_max_age="0s")
    refused_everywhere(made, "b", "days ago")


def test_a_publish_given_again_signs_what_was_unsigned(made, trained):
    drop_referrers(made, "b", ENVELOPE_MEDIA_TYPE)
    release = publish("b", root=made.root, run_id=trained.good[1], verify="none")
    assert release.version == made.versions["b"]
    assert made.run("verify", "b")[0] == 0


def test_a_forged_record_counts_for_nothing(made):
    version = made.version("b")
    (record,) = version.records
    forged = {
        **record.document,
        "metrics": {"accuracy": 1.0},
        "created_utc": "2099-01-01T00:00:00Z",
    }
    attach(made, "b", RECORD_MEDIA_TYPE, canonical_json(forged))
    assert [one.metrics["accuracy"] for one in made.version("b").records] == [0.5]
    made.demand()
    assert [one.metrics["accuracy"] for one in made.version("b").records] == [0.5, 1.0]


def test_a_forged_record_in_the_place_of_the_signed_one_is_refused(made):
    (record,) = made.version("b").records
    drop_referrers(made, "b", RECORD_MEDIA_TYPE)
    attach(made, "b", RECORD_MEDIA_TYPE, canonical_json({**record.document, "who": "mallory"}))
    refused_everywhere(made, "b", "The record that a version was signed with is missing")


def test_a_statement_whose_record_never_came_takes_nothing_from_the_one_before(made):
    """As a publish leaves it that was killed between its statements and its record."""
    before = made.version("a").records
    document = {**before[0].document, "created_utc": "2026-11-28T23:00:00+00:00"}
    signer = signer_at(made.key(TEAM))
    envelope = sign(provenance(canonical_json(document)), signer)
    attach(made, "a", ENVELOPE_MEDIA_TYPE, envelope)
    assert made.run("verify", "a")[0] == 0
    assert made.version("a").records == before
    drop_referrers(made, "a", RECORD_MEDIA_TYPE)
    code, told = made.run("pull", "a", "out")
    assert code == 4
    assert "The record that a version was signed with is missing" in told


def test_a_publish_that_was_killed_before_its_record_is_mended_by_the_next(made, trained):
    before = made.version("a").records
    made.demand(signing=TEAM)
    drop_referrers(made, "a", ENVELOPE_MEDIA_TYPE)  # verified before, and to be signed now
    document = {**before[0].document, "created_utc": "2026-11-28T23:00:00+00:00"}
    envelope = sign(provenance(canonical_json(document)), signer_at(made.key(TEAM)))
    attach(made, "a", ENVELOPE_MEDIA_TYPE, envelope)
    publish("a", root=made.root, run_id=trained.good[0], verify="process")
    made.demand(TEAM, signing=TEAM)
    assert made.run("verify", "a")[0] == 0


def test_a_forged_golden_output_is_not_what_a_republish_has_to_give(made):
    version = made.version("a")
    (record,) = version.records
    seen = replace(record.verification, outputs=[{"x": 9.0, "y": 9.0}], outputs_sha256="0" * 64)
    forged = {**record.document, "created_utc": "2000-01-01T00:00:00Z"}
    attach(made, "a", RECORD_MEDIA_TYPE, canonical_json(forged | {"verification": seen.as_dict()}))
    golden = Versions(made.store()).golden_outputs(made.version("a"))
    assert golden.outputs == record.verification.outputs
    made.demand()
    golden = Versions(made.store()).golden_outputs(made.version("a"))
    assert golden.outputs == [{"x": 9.0, "y": 9.0}]  # which is why signatures are demanded


def test_an_earlier_verification_counts_where_it_is_signed(made, trained):
    def verified_again():
        seen = publish("a", root=made.root, run_id=trained.good[0], verify="process")
        return made.version("a").records[-1].document["created_utc"], seen.verification

    before = [record.document for record in made.version("a").records]
    verified_again()
    assert [record.document for record in made.version("a").records] == before
    drop_referrers(made, "a", ENVELOPE_MEDIA_TYPE)  # this machine still knows that it saw it
    assert made.version("a").records == ()
    verified_again()
    (record,) = made.version("a").records
    assert record.verification.predicted
    assert record.document not in before


def test_promote_refuses_what_the_destination_would_not_accept(made):
    drop_referrers(made, "b", ENVELOPE_MEDIA_TYPE)
    made.demand(TEAM, target="prod")
    arguments = ["--from", "local", "--to", "prod", "--verify", "none"]
    code, told = made.run("promote", "b", *arguments)
    assert code == 4
    assert "no signature" in told
    assert made.store("prod").find("doubler", made.versions["b"]) is None


def test_a_promotion_carries_the_signatures(made):
    made.demand(TEAM, target="prod")
    arguments = ["--from", "local", "--to", "prod", "--verify", "none"]
    code, told = made.run("promote", "b", *arguments)
    assert code == 0, told
    assert made.run("verify", "b", "--target", "prod")[0] == 0
    assert made.run("pull", made.versions["b"], "out", "--target", "prod")[0] == 0
    # The promotion's own record is not signed: prod has no key of its own.
    assert [record.promoted for record in made.version("b", "prod").records] == [None]
    before = len(list(made.store("prod").referrers(made.version("b", "prod").published)))
    assert made.run("promote", "b", *arguments)[0] == 0
    after = len(list(made.store("prod").referrers(made.version("b", "prod").published)))
    assert after == before


def test_a_promotion_is_signed_where_the_destination_has_a_key(made):
    made.demand(TEAM, OTHERS, signing=OTHERS, target="prod")
    arguments = ["--from", "local", "--to", "prod", "--verify", "process"]
    code, told = made.run("promote", "b", *arguments)
    assert code == 0, told
    promoted = made.version("b", "prod").records[-1]
    assert promoted.promoted.destination == "prod"
    assert promoted.verification.predicted


def test_a_promotion_by_a_flavors_name_takes_no_other_flavors_signature(made):
    path = made.root / "flavors.yaml"
    path.write_text(path.read_text().replace(made.versions["b"], made.versions["a"]))
    made.demand(TEAM, target="prod")
    code, told = made.run("promote", "b", "--from", "local", "--to", "prod", "--verify", "none")
    assert code == 4
    assert "of flavor a, not of b" in told


@pytest.mark.parametrize("key", [None, OTHERS])
def test_nothing_is_published_where_it_would_be_refused(made, key, trained):
    made.demand(TEAM, signing=key)
    with pytest.raises(RefusedError, match="would be refused here"):
        publish("b", root=made.root, run_id=trained.good[0], verify="none")


def test_a_key_that_cannot_be_read_is_told_before_any_work(made, trained):
    made.demand(signing="gone")
    with pytest.raises(PublishError, match="A key cannot be read") as told:
        publish("b", root=made.root, run_id=trained.good[0], verify="none")
    assert told.value.exit_code == 2
    (made.keys / "gone.pem").write_text("no key")
    with pytest.raises(PublishError, match="Not a private key that can sign"):
        publish("b", root=made.root, run_id=trained.good[0], verify="none")


def test_a_damaged_envelope_and_those_of_other_tools_count_for_nothing(made):
    for data in (
        b"{",
        b"[]",
        b'{"payload":"e30=","payloadType":"x","signatures":[]}',
        b'{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[1]}',
        b'{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[]}',
    ):
        attach(made, "b", ENVELOPE_MEDIA_TYPE, data)
    assert made.run("verify", "b")[0] == 0
    assert made.run("show", "b")[0] == 0
    drop_referrers(made, "b", ENVELOPE_MEDIA_TYPE)
    attach(made, "b", ENVELOPE_MEDIA_TYPE, b"{")
    assert made.run("verify", "b")[0] == 4


def test_from_python_a_pull_is_refused_as_well(made, tmp_path):
    version = made.version("b")
    store = type(version.store)(version.store.objects, Demand("prod", (made.key(OTHERS),)))
    with pytest.raises(NotSigned, match="not signed as its target demands"):
        pull(store, version.published, tmp_path / "out")


def test_a_rollover_begins_with_a_signed_version_alone(made):
    evidence = ["--url", "http://127.0.0.1:1", "--prometheus", "http://127.0.0.1:1"]
    start = ["rollover", "start", "--from", "a", "--to", "b", *evidence]
    code, told = made.run("sitevar", "set", "doubler", "a", "--why", "the first one")
    assert code == 0, told
    envelopes = list(made.store().attached(made.version("b").published, ENVELOPE_MEDIA_TYPE))
    drop_referrers(made, "a", ENVELOPE_MEDIA_TYPE)  # what is live may be from before signatures
    drop_referrers(made, "b", ENVELOPE_MEDIA_TYPE)
    code, told = made.run(*start)
    assert code == 4
    assert "not signed as its target demands" in told
    assert f"--target=local (python -m adroit_publish show {made.versions['b']}" in told
    for envelope in envelopes:
        attach(made, "b", ENVELOPE_MEDIA_TYPE, envelope)
    code, told = made.run(*start)
    assert code == 0, told


@pytest.mark.parametrize("flavor", ["a", "b"])
def test_a_sitevar_is_set_to_a_signed_version_alone(made, flavor):
    assert made.run("sitevar", "set", "doubler", "a", "--why", "the first one")[0] == 0
    drop_referrers(made, flavor, ENVELOPE_MEDIA_TYPE)
    before = len(list(made.root.glob(".adroit/bundles/ledger/doubler/*")))
    code, told = made.run("sitevar", "set", "doubler", "a=90", "b=10", "--why", "by hand")
    assert code == 4
    assert "not signed as its target demands" in told
    assert json.loads((made.root / ".adroit/sitevars.json").read_text()) == {"doubler": "a"}
    assert len(list(made.root.glob(".adroit/bundles/ledger/doubler/*"))) == before
    made.demand()
    assert made.run("sitevar", "set", "doubler", "a=90", "b=10", "--why", "by hand")[0] == 0


def test_a_sitevar_is_set_to_what_was_signed_as_that_flavor(made):
    path = made.root / "flavors.yaml"
    path.write_text(path.read_text().replace(made.versions["b"], made.versions["a"]))
    code, told = made.run("sitevar", "set", "doubler", "b", "--why", "by hand")
    assert code == 4
    assert "of flavor a, not of b" in told


def test_a_record_and_its_signatures_go_to_both_places(tmp_path):
    with docker_registry(tmp_path) as server:
        repository = images(server, "doubler")
        config = Descriptor.of(CONFIG_MEDIA_TYPE, b"{}")
        facts = {"mediaType": MANIFEST_MEDIA_TYPE, "config": config.as_dict(), "layers": []}
        data = canonical_json({"schemaVersion": 2, **facts})
        manifest = Descriptor.of(MANIFEST_MEDIA_TYPE, data)
        repository.put_blob(config, Inline(b"{}"))
        repository.put_manifest(manifest, data)
        store = BundleStore(DirectoryObjects(tmp_path / "store"))
        places = Places(store, repository)
        places.attach("doubler", VERSION, manifest, b'{"schema":1}', [b"{}", b"[]"])
        published = Published("doubler", PublishedVersion(VERSION), manifest)
        kept = {ENVELOPE_MEDIA_TYPE: {b"{}", b"[]"}, RECORD_MEDIA_TYPE: {b'{"schema":1}'}}
        for media_type, wanted in kept.items():
            assert set(store.attached(published, media_type)) == wanted
            assert set(attached(repository, manifest.digest, media_type)) == wanted


def test_a_sitevar_that_was_rewritten_starts_no_rollover(made):
    evidence = ["--url", "http://127.0.0.1:1", "--prometheus", "http://127.0.0.1:1"]
    start = ["rollover", "start", "--from", "b", "--to", "a", *evidence]
    assert made.run("sitevar", "set", "doubler", "a", "--why", "the first one")[0] == 0
    path = made.root / ".adroit/sitevars.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"doubler": "b"}))
    code, told = made.run(*start)
    assert code == 4
    assert "the sitevar says b, the last entry says a" in told
    assert made.run("sitevar", "set", "doubler", "b", "--why", "it is right")[0] == 0
    assert made.run(*start)[0] == 0


def test_a_ledger_that_was_rewritten_starts_no_rollover(made):
    evidence = ["--url", "http://127.0.0.1:1", "--prometheus", "http://127.0.0.1:1"]
    start = ["rollover", "start", "--from", "a", "--to", "b", *evidence]
    assert made.run("sitevar", "set", "doubler", "a", "--why", "the first one")[0] == 0
    shutil.rmtree(made.root / ".adroit/bundles/ledger/doubler")
    live = [{"flavor": "a", "version": "", "weight": 100.0}]
    unsigned = BundleStore(made.store().objects)
    append(unsigned, "doubler", "pointed", {"live": live}, key="k", who="mallory", now=NOW)
    code, told = made.run(*start)
    assert code in (4, 6)
    assert "The ledger's last entry is not signed as its target demands." in told
    assert made.run("verify-ledger", "doubler")[0] == 6
    made.demand()
    assert made.run("verify-ledger", "doubler")[0] == 0


def test_the_bill_of_materials_is_signed_and_shown(made):
    envelopes = made.store().attached(made.version().published, ENVELOPE_MEDIA_TYPE)
    payloads = [json.loads(base64.b64decode(json.loads(data)["payload"])) for data in envelopes]
    (signed,) = (one for one in payloads if one["predicateType"] == "https://cyclonedx.org/bom")
    assert signed["subject"][0]["digest"]["sha256"] == made.version().published.manifest.digest.hex
    code, told = made.run("show", "a", "--sbom")
    assert code == 0
    assert json.loads(told) == signed["predicate"]
    assert "pkg:pypi/mlflow@" in told


def test_a_model_card_tells_what_is_known_of_a_version(made):
    code, card = made.run("show", "a", "--card")
    assert code == 0
    assert card.startswith(f"# doubler {made.versions['a']}\n")
    for line in (
        "| inputs | x: double |",
        "| accuracy | 0.5 |",
        "| predicted | yes |",
        "| flavor | a |",
        "| mlflow |",
    ):
        assert line in card, card
    assert "| provenance | file:" in card
    made.demand()
    assert "nothing is demanded" in made.run("show", "b", "--card")[1]


def test_what_a_run_says_of_itself_is_no_markup_on_its_card(made):
    made.demand()
    (record,) = made.version("b").records
    hostile = "\x1bx|y\n\n# Approved <img src=x> [click](http://evil)"
    forged = {**record.document, "created_utc": "2099-01-01T00:00:00Z", "who": hostile}
    attach(made, "b", RECORD_MEDIA_TYPE, canonical_json(forged))
    (line,) = (one for one in made.run("show", "b", "--card")[1].splitlines() if "Approved" in one)
    assert r"?x\|y # Approved \<img src=x\> \[click\](http://evil)" in line
    assert line.startswith("| published | 2099")


def test_a_host_without_the_key_is_told_before_any_work(made, trained):
    """As a step on another machine meets it, where the file of the key is not."""
    options = PublishOptions(run_id=trained.good[0], verify="none")
    (job,) = prepare(open_checkout(made.root, {}), ["b"], options)
    (made.keys / f"{TEAM}.pem").unlink()
    listener = Listener()
    listener.started = lambda flavor, stage: pytest.fail(f"{stage} began")
    with pytest.raises(ConfigError, match="A key cannot be read"):
        publish_job(job, listener)


def test_doctor_tells_whether_what_is_published_here_would_be_accepted(made):
    def signatures():
        rows = json.loads(made.run("doctor", "--json")[1])["checks"]
        (row,) = (row for row in rows if row["name"] == "signatures")
        return row["state"], row["found"]

    assert signatures()[0] == "ok"
    made.demand(TEAM, signing=OTHERS)
    assert signatures()[0] == "problem"
    assert "would be refused here" in signatures()[1]
    made.demand()
    assert signatures()[0] == "not needed"


def test_nothing_runs_an_unsigned_version_in_a_cluster(made):
    target = replace(open_checkout(made.root, {}).target("local"), images="localhost:5000/adroit")
    version = made.version("b")
    assert manifests_of(target, version.store, version.published, "deployment", "b")
    with pytest.raises(NotSigned, match="of flavor b, not of a"):
        manifests_of(target, version.store, version.published, "deployment", "a")
    drop_referrers(made, "b", ENVELOPE_MEDIA_TYPE)
    with pytest.raises(NotSigned, match="no signature"):
        manifests_of(target, version.store, version.published, "deployment")


def test_what_others_signed_moves_no_terminal(made):
    (record,) = made.version("b").records
    evil = {**record.document, "who": "\x1b[2Jmallory", "flavor": "\x1b]0;x\x07"}
    statement = provenance(canonical_json(evil))
    envelope = json.loads(sign(statement, CryptoSigner.generate_ed25519()))
    envelope["signatures"][0]["keyid"] = "\x1b[31m\x07" + "k" * 400
    attach(made, "b", ENVELOPE_MEDIA_TYPE, canonical_json(envelope))
    for arguments in (["show", "b"], ["show", "b", "--card"]):
        code, told = made.run(*arguments)
        assert code == 0
        assert "mallory" in told
        assert not {"\x1b", "\x07"} & set(told)


def test_a_signature_that_goes_before_a_republish_begins_is_missed(made):
    (made.root / "projects/doubler/features.py").write_text("SCALE = 4\n")
    commit(made.root, "scaled")
    (job,) = prepare_republish(open_checkout(made.root, {}), ["b"], RepublishOptions(verify="none"))
    drop_referrers(made, "b", ENVELOPE_MEDIA_TYPE)
    with pytest.raises(NotSigned):
        republish_job(job)
