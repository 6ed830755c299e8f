"""The card of a publish run: what was published, from what, how long it took, what is next."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from adroit_publish.bundle.record import accepted_change
from adroit_publish.cli.checklist import markdown
from adroit_publish.cli.flow.steps import FlowRelease
from adroit_publish.cli.picture.page import STEPS, drawings, steps
from adroit_publish.cli.render import bytes_text, made_by
from adroit_publish.publish.release import Failure, Release
from adroit_publish.rollover.checklist import boxes
from adroit_publish.rollover.state import Rollover
from adroit_publish.rollovers.verbs import Status

if TYPE_CHECKING:
    from metaflow.cards import MetaflowCardComponent

    Cell = str | MetaflowCardComponent


def components(
    outcomes: Sequence[Release | Failure], run_id: str, run_facts: Mapping[str, str]
) -> list[MetaflowCardComponent]:
    """Returns the card's parts."""
    parts = [_text(f"# Publish run {link(run_id, run_facts.get('page'))}"), _overview(outcomes)]
    for item in outcomes:
        parts += _failure(item) if isinstance(item, Failure) else _release(item)
    return parts


def link(text: str, page: str | None) -> str:
    """Returns Markdown that leads to a page; the text alone where there is none."""
    return f"[{text}]({page})" if page else text


def _text(markdown: str) -> MetaflowCardComponent:
    from metaflow.cards import Markdown

    return Markdown(markdown)  # type: ignore[no-untyped-call]


def _table(headers: list[str], rows: Sequence[Sequence[Cell]]) -> MetaflowCardComponent:
    from metaflow.cards import Table

    # A card shows what is text by type alone, not a version or a digest.
    texts = [[str(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    return Table(headers=headers, data=texts)


def _cell(text: str, page: str | None) -> Cell:
    """Returns a cell that leads to a page; in plain text a card shows Markdown as it is written."""
    return _text(link(text, page)) if page else text


def _overview(outcomes: Sequence[Release | Failure]) -> MetaflowCardComponent:
    rows = []
    for item in outcomes:
        if isinstance(item, Failure):
            rows.append([item.flavor, "failed", item.error.what])
        else:
            rows.append([item.flavor, "published" if item.news else "unchanged", item.version])
    return _table(["flavor", "outcome", "version"], rows)


def _failure(failure: Failure) -> list[MetaflowCardComponent]:
    return [_text(f"## {failure.flavor}: not published"), _text(f"```\n{failure.error}\n```")]


def _release(release: Release) -> list[MetaflowCardComponent]:
    parts = [
        _text(f"## {release.flavor}: {release.version}"),
        _table(["what", "value"], [list(row) for row in _facts(release)]),
    ]
    if release.layers:
        places = list(release.places)
        parts += [
            _text("### Layers"),
            _table(
                ["layer", "files", "size", *places, "digest"],
                [
                    [layer.kind, str(layer.files), bytes_text(layer.size_bytes)]
                    + ["sent" if layer.sent.get(place) else "re-used" for place in places]
                    + [layer.digest[:19]]
                    for layer in release.layers
                ],
            ),
            _text("### Seconds by stage"),
            _table(
                ["stage", "seconds"],
                [[name, f"{seconds:.2f}"] for name, seconds in release.seconds.items()],
            ),
        ]
    parts += [_text(f"**Warning:** {warning}") for warning in release.warnings]
    if isinstance(release, FlowRelease) and release.rollover:
        parts += _rollover(release.rollover)
    return [*parts, _text("### Next"), _text(_next(release))]


def _rollover(rollover: Rollover) -> Iterator[MetaflowCardComponent]:
    """Yields the checklist of a live rollover, and its pictures, two in a row."""
    from metaflow.cards import Image

    checklist = markdown(Status(rollover, boxes(rollover), (), (), ()))
    # Of a task list a card shows no boxes.
    yield _text(checklist.replace("- [x] ", "- ☑ ").replace("- [ ] ", "- ☐ "))
    yield _text(f"Over time: {rollover.old.flavor} dashed, {rollover.new.flavor} solid")
    images = [
        Image(f"data:image/svg+xml;base64,{b64encode(drawing.encode()).decode()}")
        for drawing in drawings(rollover)
    ]
    yield _table([], [images[number : number + 2] for number in range(0, len(images), 2)])
    yield _table(STEPS, steps(rollover))


def _facts(release: Release) -> Iterator[tuple[str, Cell]]:
    yield "model", release.model_name
    yield "MLflow run", _cell(release.run_id or "", release.run_url)
    for what, name, page in made_by(release.trained_by):
        yield what, _cell(name, page)
    yield "manifest", release.manifest_digest
    yield "bundle id", release.bundle_id
    yield "target", f"{release.target}: {', '.join(release.places)}"
    if not release.news:
        return
    if release.republished_from:
        yield "republished from", release.republished_from
        for change in release.changes:
            yield "change", change
    yield "commit", _cell(release.commit, release.commit_url)
    if release.lineage and release.lineage.experiment:
        yield "experiment", release.lineage.experiment
    for dataset in release.datasets:
        yield "dataset", str(dataset)
    for line in release.accepted_lineage:
        yield "accepted", line
    for result in release.gates:
        yield f"gate {result.gate}", str(result)
    if release.dirty:
        yield "and not committed", ", ".join(release.dirty)
    yield "conda env", f"{release.conda_env} {release.conda_env_digest or ''}"
    verification = release.verification
    yield "verified", str(verification.get("how"))
    if accepted := accepted_change(verification.get("replay")):
        yield "outputs", accepted
    for key, unit in (("load_seconds", "s"), ("predict_seconds", "s")):
        if verification.get(key) is not None:
            yield key.replace("_seconds", ""), f"{verification[key]:.2f} {unit}"
    pickled = (verification.get("imports") or {}).get("pickled") or {}
    for path, names in sorted(pickled.items()):
        yield f"{path} imports", ", ".join(names)
    if verification.get("peak_memory_bytes") is not None:
        yield "peak memory", bytes_text(int(verification["peak_memory_bytes"]))
    for name, value in release.metrics.items():
        yield name, f"{value:.6g}"


def _next(release: Release) -> str:
    commands = [
        f"python -m adroit_publish show {release.version} --target {release.target}",
        f"python -m adroit_publish verify {release.version} --target {release.target}",
    ]
    if release.news:
        commands.insert(0, "git add flavors.yaml && git commit")
    return "```\n" + "\n".join(commands) + "\n```"
