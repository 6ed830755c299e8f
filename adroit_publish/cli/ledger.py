"""The command that tells a model's history: what was done, by whom, and what was live when."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import Any

import click

from adroit_publish.cli.options import Context, at_target_alone
from adroit_publish.cli.render import print_json, print_table
from adroit_publish.errors import ConfigError, VerificationError
from adroit_publish.rollovers.audit import audit, models_with_ledgers
from adroit_publish.stores import ledger
from adroit_publish.stores.ledger import NOT_SIGNED
from adroit_publish.stores.live import history as history_of
from adroit_publish.stores.live import live_at
from adroit_publish.versions.inspect import check_model


@click.command()
@at_target_alone
@click.argument("model")
@click.option(
    "--at", metavar="DATE", help="what was live then; UTC, a date without a time means its end"
)
def history(context: Context, model: str, at: str | None) -> None:
    """Tell what of MODEL was published, pointed to, rolled back and deleted, and by whom."""
    when = None if at is None else _moment(at)
    check_model(context.store, model)
    if when is not None:
        _print_live(context, model, when)
        return
    told = history_of(context.store, model)
    if context.as_json:
        print_json([entry.as_dict() for entry in told])
        return
    print_table(
        ["", "when (UTC)", "what", "by", ""],
        [
            [entry.number or "", _shown(entry.utc), entry.kind, entry.who, _detail(entry.facts)]
            for entry in told
        ],
    )


@click.command("verify-ledger")
@at_target_alone
@click.argument("model", required=False)
def verify_ledger(context: Context, model: str | None) -> None:
    """Prove that no entry of MODEL's ledger, or of any, was changed, taken out or put in.

    Exit code 6: one was.
    """
    models = [model] if model else models_with_ledgers(context.store)
    audits = [audit(context.target, context.store, name) for name in models]
    if context.as_json:
        print_json([vars(found) for found in audits])
    else:
        for found in audits:
            whole = "whole" if not found.problems else "NOT WHOLE"
            print(f"{found.model}: {found.entries} entries, {whole}, tip {found.tip}")
            for line in [*found.problems, *filter(None, [found.outside])]:
                print("  " + line.replace("\n", "\n  "))
    if any(found.problems for found in audits):
        raise click.exceptions.Exit(VerificationError.exit_code)


def _print_live(context: Context, model: str, when: datetime) -> None:
    live = live_at(ledger.entries(context.store, model), when)
    if context.as_json:
        shares = [] if live is None else [_share(share) for share in live.shares]
        since = None if live is None else live.since_utc.isoformat()
        who = None if live is None else live.who
        print_json(
            {"model": model, "at": when.isoformat(), "live": shares, "since": since, "who": who}
        )
    elif live is None or not live.shares:
        print(
            f"Nothing of {model} was pointed to at {_shown(when)} UTC, as far as the ledger knows."
        )
    else:
        rows = [
            [share.flavor, share.version, f"{share.weight:g} %", _shown(live.since_utc), live.who]
            + ([share.region] if share.region else [])
            for share in live.shares
        ]
        region = ["region"] if live.shares[0].region else []
        print_table(["flavor", "version", "share", "since (UTC)", "by", *region], rows)


def _share(share: ledger.Share) -> dict[str, Any]:
    """Returns a share as JSON values, its region where there are several."""
    return {name: value for name, value in vars(share).items() if name != "region" or value}


def _detail(facts: Any) -> str:
    shares = facts.get("live", [facts])
    named = [
        " ".join(str(share[name]) for name in ("flavor", "version") if share.get(name))
        + (f" {share['weight']:g} %" if "weight" in share else "")
        for share in shares
    ]
    parts = [", ".join(named) or "nothing any more"]
    parts += [f"in {facts['region']}"] if facts.get("region") else []
    parts += [f"run {facts['run_id']}"] if facts.get("run_id") else []
    parts += [f"from {facts['from']} to {facts['to']}"] if facts.get("to") else []
    parts += [f"from {facts['republished_from']}"] if facts.get("republished_from") else []
    parts += [f"by other means, noticed by {facts['noticed_by']}"] if "noticed_by" in facts else []
    parts += [f"entered late, see entry {facts['entry']}"] if "entry" in facts else []
    parts += [str(facts["why"])] if facts.get("why") else []
    parts += [f"not signed: {facts[NOT_SIGNED]}"] if NOT_SIGNED in facts else []
    return "; ".join(parts)


def _moment(text: str) -> datetime:
    """Returns a date's last moment, or the time that is given, in UTC unless it names a zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            "Not a valid date.",
            where="--at",
            got=text,
            wanted="2026-11-24, 2026-11-24T16:15 or 2026-11-24T16:15:13+01:00",
        ) from None
    if re.fullmatch(r"\d{4}-?\d{2}-?\d{2}", text):
        moment = datetime.combine(moment, time.max)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _shown(utc: datetime) -> str:
    return utc.strftime("%Y-%m-%d %H:%M:%S")
