"""The program ``adroit-publish``; ``python -m adroit_publish`` is the same."""

from typing import NoReturn

from adroit.interpreter import needs_requirements


def main() -> NoReturn:
    """Runs the command line, in a Python that has the requirements."""
    needs_requirements("-m", "adroit_publish")
    from adroit_publish.cli.commands import main as run_command

    run_command()


if __name__ == "__main__":
    main()
