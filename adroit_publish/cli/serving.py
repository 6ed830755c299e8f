"""Commands that run what is published: here, in a cluster, in an env that is built for it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

import click

from adroit_publish.bundle.deployment import KINDS
from adroit_publish.cli.options import Context, at_target
from adroit_publish.cli.progress import bar
from adroit_publish.cli.render import print_json, print_table, print_yaml
from adroit_publish.envs.build import build_env as build_env_image
from adroit_publish.versions import predict as asking
from adroit_publish.versions import serve as service
from adroit_publish.versions.deployment import manifests_of

SERVED = "the served one"


@click.command()
@at_target
@click.argument("version")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="what is to run it")
def manifest(context: Context, version: str, kind: str) -> None:
    """Print what runs VERSION, its image named by digest: for kubectl, KServe or SageMaker."""
    published = service.find_published(context.checkout.flavors, context.store, version)
    flavor = context.flavor_named(version)
    documents = manifests_of(context.target, context.store, published, kind, flavor)
    if kind == "sagemaker" and not context.as_json:
        print_json(documents[0])  # what the AWS command line reads
    elif context.as_json:
        print_json(documents)
    else:
        print_yaml(documents)


@click.command()
@at_target
@click.argument("version", metavar="VERSION|FLAVOR")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
def serve(context: Context, version: str, port: int) -> None:
    """Serve VERSION, or what FLAVOR names, on this machine until Ctrl-C."""
    published = service.find_published(context.checkout.flavors, context.store, version)
    layers = context.store.manifest(published).own_layers
    size_bytes = sum(layer.size_bytes for layer in layers)
    with ExitStack() as bars:
        progress = bars.enter_context(bar(f"pull {published.version}", size_bytes))
        service.serve(
            context.checkout,
            context.store,
            published,
            port,
            progress,
            pulled=bars.close,
            flavor=context.flavor_named(version),
        )


@click.command()
@at_target
@click.argument("url")
@click.option(
    "--example",
    is_flag=False,
    flag_value=SERVED,
    metavar="[VERSION|FLAVOR]",
    help="send the input example of what is served, or of a version or flavor",
)
def predict(context: Context, url: str, example: str | None) -> None:
    """Ask the server at URL, for example http://127.0.0.1:8080, for a prediction.

    The request is the model's input example, or without --example standard input: JSON in one of
    MLflow's forms, such as {"dataframe_split": ...}.
    """
    if example is None:
        body = sys.stdin.buffer.read()
    else:
        served = example == SERVED
        store = context.store
        named = partial(service.find_published, context.checkout.flavors, store)
        published = asking.served_version(store, url) if served else named(example)
        body = asking.example_request(store, published)
    prediction = asking.predict(url, body)
    print_json(asdict(prediction) if context.as_json else prediction.answer)


@click.command()
@at_target
@click.argument("env")
@click.option("--base", help="an image with the env's Python, for where no conda channel answers")
def build_env(context: Context, env: str, base: str | None) -> None:
    """Build the image of ENV of conda_envs.yaml and push it to the target's registry."""
    heard = partial(print, file=sys.stderr)
    built = build_env_image(context.checkout, context.target, env, base=base, heard=heard)
    if context.as_json:
        print_json(asdict(built))
        return
    rows = [("image", built.image), ("digest", built.digest), ("built with", built.how)]
    print_table(["what", "value"], [*rows, ("packages", len(built.packages))])
