"""The older name of ``republish.py``, for who has it in a script or in their fingers.

    python train_model.py -v republish --model_name M --version V --config_path P

says what the command is called now, and runs it.
"""

import os
import sys
from pathlib import Path

NOW = Path(__file__).resolve().with_name("republish.py")


def main() -> None:
    """Hands the command line over to ``republish.py``, which needs the requirements."""
    words = sys.argv[1:]
    if "republish" not in words:
        sys.exit(
            "train_model.py has one command left, `republish`, which is now republish.py.\n"
            "  next:   to train, run the project's flow: python projects/NAME/flow.py run"
        )
    words.remove("republish")
    print(
        f"train_model.py republish is now: python republish.py {' '.join(words)}", file=sys.stderr
    )
    os.execv(sys.executable, [sys.executable, str(NOW), *words])


if __name__ == "__main__":
    main()
