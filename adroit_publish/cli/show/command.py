"""The command that shows one version: what it holds, where it is from, and who signed it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from adroit_publish.bundle.layer import layer_kind
from adroit_publish.cli.options import Context, at_target
from adroit_publish.cli.render import bytes_text, made_by, print_json, print_table
from adroit_publish.config.gates import kept_result
from adroit_publish.stores.records import last_publish, output_change
from adroit_publish.version import Version
from adroit_publish.versions import inspect as inspection
from adroit_publish.versions.model_card import model_card
from adroit_publish.versions.serve import find_published
from adroit_publish.versions.signatures import Signature, bill_of, signatures


@click.command()
@at_target
@click.argument("version")
@click.option("--card", is_flag=True, help="print its model card, in Markdown")
@click.option("--sbom", is_flag=True, help="print its bill of materials, in CycloneDX's JSON")
def show(context: Context, version: str, card: bool, sbom: bool) -> None:
    """Show what VERSION holds, what it was made from, and how its publish went."""
    published = find_published(context.checkout.flavors, context.store, version)
    opened = Version(context.store, published)
    if card:
        print(model_card(opened))
        return
    if sbom:
        print_json(bill_of(opened))
        return
    if context.as_json:
        print_json(inspection.show(opened))
        return
    print_table(["what", "value"], list(_facts(opened)))
    print()
    print_table(
        ["layer", "size", "digest"],
        [
            [layer_kind(layer), bytes_text(layer.size_bytes), layer.digest]
            for layer in opened.manifest.layers
        ],
    )
    print()
    print_table(
        ["file", "size"],
        [
            [f"{kind}/{entry.path}", bytes_text(entry.size_bytes)]
            for kind, entries in opened.bundle.files.items()
            for entry in entries
        ],
    )


def _facts(version: Version) -> Iterator[tuple[str, str | None]]:
    bundle, record = version.bundle, last_publish(version.records)
    yield "model", version.model_name
    yield "version", version.name
    yield "manifest", version.published.manifest.digest
    yield "bundle id", bundle.bundle_id
    yield "store", version.store.location
    yield "run", _with_page(bundle.run_id, record.run_url if record else None)
    for what, name, page in made_by(record.trained_by if record else {}):
        yield what, _with_page(name, page)
    for dataset in record.datasets if record else ():
        yield "dataset", str(dataset)
    yield "conda env", f"{bundle.conda_env_name} {bundle.conda_env_digest or ''}"
    yield "handler", (bundle.serve.get("handler") or {}).get("class_path")
    yield "python", bundle.python_version
    if record and record.verification:
        seen = record.verification
        yield "published", f"{record.created_utc} by {record.who}"
        yield "publish run", _with_page(record.origin.get("metaflow"), record.origin.get("page"))
        commit = f"{record.commit}{' (dirty)' if record.dirty else ''}"
        yield "commit", _with_page(commit, record.commit_url)
        yield "verified", f"{seen.how}, predicted: {seen.predicted}"
        yield "experiment", record.lineage.experiment if record.lineage else None
        for line in record.went_past:
            yield "despite", line
        for line in record.accepted_lineage:
            yield "accepted", line
        for result in record.gates:
            yield f"gate {result.get('gate')}", kept_result(result)
    if change := output_change(version.records):
        yield "outputs", change
    for signature in signatures(version):
        yield f"signed {signature.kind}", _signed(signature)
    for entry in version.records:
        if promoted := entry.promoted:
            yield "promoted", f"from {promoted.source} to {promoted.destination}"
            if proof := entry.verification:
                to = f"to promote it to {promoted.destination}"
                yield "verified", f"{proof.how}, predicted: {proof.predicted}, {to}"


def _signed(signature: Signature) -> str:
    by_whom = signature.key or f"key {', '.join(key[:12] for key in signature.key_ids)}"
    who = f" ({signature.who}, flavor {signature.flavor})" if signature.who else ""
    counts = f"; does not count: {signature.problem}" if signature.problem else ""
    return f"{signature.created_utc} by {by_whom}{who}{counts}"


def _with_page(name: str | None, page: str | None) -> str | None:
    return f"{name}  {page}" if page else name
