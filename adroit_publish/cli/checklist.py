"""A rollover's checklist in Markdown: for a pull request, a chat, or a card."""

from __future__ import annotations

from adroit_publish.rollover.checklist import Box
from adroit_publish.rollovers.verbs import Status
from adroit_publish.stores.rollovers import utc_text


def detail(box: Box) -> str:
    """Returns what follows a box's title: its evidence, who found it and when."""
    by = f", by {box.who} at {utc_text(box.at_s)}" if box.at_s is not None else ""
    return f": {box.detail}{by}" if box.detail else by


def markdown(status: Status) -> str:
    """Returns the checklist as GitHub and most chats render it."""
    rollover = status.rollover
    old, new = rollover.old.flavor, rollover.new.flavor
    lines = [f"### Rollover of {rollover.model}: {old} to {new} ({rollover.state})", ""]
    for box in status.boxes:
        links = "".join(f" [{number}]({link})" for number, link in enumerate(box.links, 1))
        lines.append(f"- [{'x' if box.done else ' '}] {box.title}{detail(box)}{links}")
    lines += [f"- **Warning:** {warning}" for warning in status.warnings]
    if status.lacks:
        lines += ["", "Missing for the next step:", ""]
        lines += [f"- {lack.evidence}: {lack.found}" for lack in status.lacks]
    return "\n".join(lines)
