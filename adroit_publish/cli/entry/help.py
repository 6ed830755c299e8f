"""Help that can be read: whole first sentences, and examples that a test parses."""

from __future__ import annotations

import click

EXAMPLES = {
    "new": ("new my_model", "new my_model --from lightgbm --env lightgbm"),
    "check": ("check my_model", "check my_model --rows 20"),
    "publish": ("publish --flavor=my_flavor", "publish --pending --commit --push"),
    "republish": ("republish --flavor my_flavor", "republish --stale --commit"),
    "versions": ("versions my_model", "versions my_flavor --target eng"),
    "show": ("show my_flavor", "show v5f2b9c01-3f0c9a1b2c3d --json"),
    "status": ("status", "status --check"),
    "verify": ("verify my_flavor", "verify my_flavor --shallow", "verify my_flavor --repair"),
    "pull": ("pull my_flavor ./there", "pull --oci my_flavor ./layout"),
    "promote": ("promote my_flavor --from staging --to eng",),
    "diff": ("diff my_flavor@main my_flavor", "diff old_flavor new_flavor --html diff.html"),
    "history": ("history my_model", "history my_model --at 2026-11-01"),
    "verify-ledger": ("verify-ledger", "verify-ledger my_model"),
    "plan": ("plan", "plan --flavor my_flavor", "plan --markdown"),
    "hold": ('hold my_flavor --why "rolled back"',),
    "unhold": ("unhold my_flavor",),
    "serve": ("serve my_flavor", "serve my_flavor --port 0"),
    "predict": ("predict http://127.0.0.1:8080 --example",),
    "manifest": ("manifest my_flavor --kind kserve",),
    "build-env": ("build-env sklearn", "build-env sklearn --base python:3.11-slim"),
    "doctor": ("doctor", "doctor --target eng"),
    "rollover": (
        "rollover start --from my_flavor --to my_flavor_2 --url http://model:8080",
        "rollover advance my_model",
        "rollover status my_model --markdown",
        'rollover rollback my_model --why "too slow"',
    ),
    "sitevar": ("sitevar get my_model", 'sitevar set my_model my_flavor --why "first"'),
    "completion": ('eval "$(adroit-publish completion bash)"',),
}
"""What follows the program's name, by command; but for one that is a whole line."""


class Commands(click.Group):
    """A group whose list of commands has their first sentences whole, over as many lines as needed.

    Each command ends its help with its examples.
    """

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands in the order of the group."""
        rows = [(name, first_sentence(command)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def list_commands(self, context: click.Context) -> list[str]:
        """Returns the names in their own order."""
        return list(self.commands)


def with_examples(group: click.Group, program: str) -> None:
    """Gives every command that has some its examples."""
    for name, command in group.commands.items():
        if lines := EXAMPLES.get(name):
            shown = (line if program in line else f"{program} {line}" for line in lines)
            command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in shown)


def first_sentence(command: click.Command) -> str:
    """Returns what a command does, without the full stop."""
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".")
