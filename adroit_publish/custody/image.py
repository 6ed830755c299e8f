"""The check of a version's image in its registry: tag, manifest, config, layers, referrers."""

from __future__ import annotations

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.manifest import Manifest, parse_referrer
from adroit_publish.custody.report import PlaceCheck, VerifyReport, is_of_the_place
from adroit_publish.errors import PublishError, RefusedError, VerificationError
from adroit_publish.registry import referrers as registry_referrers
from adroit_publish.registry.image_reference import ImageReference, Tag
from adroit_publish.registry.repository import ImageRepository
from adroit_publish.stores.bundle_store import Published
from adroit_publish.stores.contract import Progress


class ImageCheck(PlaceCheck):
    def __init__(self, images: ImageRepository, report: VerifyReport, progress: Progress) -> None:
        super().__init__(images.location, report, progress)
        self.images = images
        self._config: Descriptor | None = None

    def check(self, published: Published, manifest: Manifest | None, *, shallow: bool) -> None:
        self._config = manifest.config if manifest else None
        if self.manifest(published.manifest):  # else no tag can be read either
            self.tag(published)
        if manifest is None:
            return
        blobs = tuple(dict.fromkeys((manifest.config, *manifest.layers)))
        if shallow:
            self.ask(self.images.has_blob, blobs, f"{self.location}@")
            return
        for blob in blobs:
            self.blob(blob)
        for referrer in self._referrers(published):
            with self.noted("other"):
                data = self.images.resolve(referrer.digest).data
                list(self.counted(iter([data]), len(data)))
                named = parse_referrer(data, published.manifest.digest, self.location)
                for blob in named.layers:
                    self.blob(blob)

    def tag(self, published: Published) -> None:
        tag = Tag(published.version)
        where = ImageReference(self.images.repository, tag)
        wanted = published.manifest
        with self.noted("tag", wanted):
            tagged = self.images.find(tag)
            if tagged is None:
                self.note("tag", f"{where}: The tag is missing", wanted)
            elif tagged.descriptor.digest != wanted.digest:
                raise VerificationError(
                    "The tag was moved to another image.",
                    where=where,
                    got=tagged.descriptor.digest,
                    wanted=wanted.digest,
                )

    def manifest(self, descriptor: Descriptor) -> bool:
        """Notes the manifest where it is damaged; tells whether it could be read at all."""
        with self.noted("manifest", descriptor):
            if self.images.find(descriptor.digest) is None:
                where = f"{self.location}@{descriptor.digest}"
                self.note("manifest", f"{where}: The manifest is missing", descriptor)
                return True
            self.report.objects += 1
            self.report.size_bytes += descriptor.size_bytes
            return True
        return False

    def is_down(self, error: PublishError) -> bool:
        """Some registries answer 500 for a manifest that rotted, and all else as ever."""
        if isinstance(error, RefusedError) or self._config is None:
            return is_of_the_place(error)
        if is_of_the_place(error):
            self.images.has_blob(self._config)  # raises where the registry fails altogether
        return False

    def blob(self, descriptor: Descriptor) -> None:
        if not self.images.has_blob(descriptor):
            where = f"{self.location}@{descriptor.digest}"
            self.note("blob", f"{where}: It is missing, or has another length", descriptor)
            return
        with self.noted("blob", descriptor):
            for _ in self.counted(self.images.read_blob(descriptor), descriptor.size_bytes):
                pass

    def _referrers(self, published: Published) -> tuple[Descriptor, ...]:
        with self.noted("other"):
            return registry_referrers.referrers(self.images, published.manifest.digest)
        return ()
