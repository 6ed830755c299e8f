"""A rollover's checklist in Markdown: for a pull request, a chat, or a card."""

from __future__ import annotations

from adroit_publish.rollover.checklist import Box
from adroit_publish.rollovers.verbs import Status
from adroit_publish.stores.rollovers import utc_text


def detail(box: Box) -> str:
    """Returns what follows a box's title: its evidence, who found it and when."""
    by = f", by {box.who} at {utc_text(box.at_s)}" if box.at_s is not None else ""
    return f": {box.detail}{by}" if box.detail else by


def markdown(found: Status) -> str:
    """Returns the checklist as GitHub and most chats render it."""
    it = found.rollover
    lines = [f"### Rollover of {it.model}: {it.old.flavor} to {it.new.flavor} ({it.state})", ""]
    for box in found.boxes:
        links = "".join(f" [{number}]({link})" for number, link in enumerate(box.links, 1))
        lines.append(f"- [{'x' if box.done else ' '}] {box.title}{detail(box)}{links}")
    lines += [f"- **Warning:** {warning}" for warning in found.warnings]
    if found.lacks:
        lines += ["", "Missing for the next step:", ""]
        lines += [f"- {lack.evidence}: {lack.found}" for lack in found.lacks]
    return "\n".join(lines)
