"""A published version that is opened: each of its documents is read, and parsed, at most once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adroit_publish.attestations.demand import NONE
from adroit_publish.attestations.envelope import ENVELOPE_MEDIA_TYPE, Attestation
from adroit_publish.bundle.document import BundleRecord, parse_json_object
from adroit_publish.bundle.manifest import Manifest, parse_manifest
from adroit_publish.bundle.record import Record
from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.edge.once import Once
from adroit_publish.stores.bundle_store import BundleStore, Published, saying_how_to_heal
from adroit_publish.stores.records import records


class Version:
    """A version of a store, as its documents tell of it; any thread may ask.

    A document is read when it is first asked for. Each attribute raises StoreError where the store
    fails, and VerificationError where the document is damaged or of an unknown schema.
    """

    def __init__(self, store: BundleStore, published: Published) -> None:
        self.store = store
        self.published = published
        self.name: PublishedVersion = published.version
        self.model_name = published.model_name
        self._once = Once()

    @property
    def manifest_bytes(self) -> bytes:
        """Its manifest, as it is kept."""
        with saying_how_to_heal(self.published):
            return self._once(
                "manifest bytes", lambda: self.store.document(self.published.manifest)
            )

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""
        where = f"{self.store.location} {self.name}"
        return self._once("manifest", lambda: parse_manifest(self.manifest_bytes, where))

    @property
    def bundle(self) -> BundleRecord:
        """Its ``bundle.json``."""
        return self._once("bundle", lambda: self.store.bundle_record(self.published, self.manifest))

    @property
    def records(self) -> tuple[Record, ...]:
        """Its records, oldest first; where signatures are demanded, those that are signed."""
        return self._once("records", lambda: tuple(records(self.store, self.published)))

    @property
    def attestations(self) -> tuple[Attestation, ...]:
        """Everything that was signed about it, whoever signed it."""
        return self._once(
            "attestations",
            lambda: (self.store.demand or NONE).read(
                self.store.attached(self.published, ENVELOPE_MEDIA_TYPE), str(self.name)
            ),
        )

    @property
    def config_bytes(self) -> bytes:
        """The config of its image, as it is kept."""
        return self._once("config bytes", lambda: self.store.document(self.manifest.config))

    @property
    def image_config(self) -> Mapping[str, Any]:
        """The config of its image."""
        where = f"{self.store.location} {self.name}, its image config"
        return self._once("image config", lambda: parse_json_object(self.config_bytes, where))


@dataclass(frozen=True)
class Golden:
    """What a version predicted on its model's input example when it was first verified.

    Attributes:
        outputs: JSON, its first rows where it was too large; None where not one row could be kept.
        sha256: Hex digest of the whole, as ``gates.reporter.sha256``.
        truncated: Whether ``outputs`` is less than the whole.
    """

    version: str
    outputs: Any
    sha256: str
    truncated: bool


class Versions:
    """The published versions of one store, each opened once."""

    def __init__(self, store: BundleStore) -> None:
        self.store = store
        self._once = Once()

    def find(self, model_name: str, version: str) -> Version | None:
        """Returns a version, or None where it was never committed here; raises as ``Version``."""

        def opened() -> Version | None:
            published = self.store.find(model_name, version)
            return Version(self.store, published) if published else None

        return self._once((model_name, version), opened)

    def open(self, published: Published) -> Version:
        """Returns a version that was found before; nothing is read."""
        return self._once(
            (published.model_name, published.version), lambda: Version(self.store, published)
        )

    def golden_outputs(self, version: Version) -> Golden | None:
        """Returns the outputs that ``version``, and one made from it, has to give again.

        They are those of the first publish, not of the last one, so that many small steps do not
        add up to a large one; where a change of outputs was accepted, they are those it was changed
        to. None where nobody ever verified it or what it was made from, or where its answers
        vary by themselves. Raises as ``Version``.
        """
        golden, seen = None, set[str]()
        here: Version | None = version
        while here is not None and here.name not in seen:
            seen.add(here.name)
            publishes = [record for record in here.records if record.verification]
            outputs = (record.verification for record in publishes)
            first = next(
                (one for one in outputs if one and one.outputs_sha256 and one.repeats), None
            )
            if first is not None:
                assert first.outputs_sha256
                golden = Golden(
                    here.name, first.outputs, first.outputs_sha256, first.outputs_truncated
                )
                before = None if first.accepted_change else (first.replay or {}).get("against")
            else:
                before = next((record.republished_from for record in publishes), None)
            here = self.find(here.model_name, str(before)) if before else None
        return golden
