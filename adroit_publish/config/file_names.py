"""What a file's name alone says of it: that it holds a secret, or that a program made it.

Patterns are .gitignore's, relative to the directory that is packed; ``*.pem`` and ``*.key`` are
keys by name, and certificates by content (``gates.secrets``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

NEVER_PACKED = (
    ".env*",
    *(".venv*/", "venv/", "site-packages/", "node_modules/"),
    *("__pycache__/", "*.pyc", ".*_cache/", ".cache/", ".ipynb_checkpoints/", ".DS_Store"),
    *("mlruns/", ".metaflow*/", ".adroit/", ".git/"),
)
"""What no bundle holds, whichever directory it lies in."""

_SECRETS = {
    "private key": (
        *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.key", "*.p12", "*.pfx"),
        *("*.jks", "*.keystore", "*.ppk", "*.kdbx", "**/.ssh/**"),
    ),
    "credentials": (
        *("credentials*", ".netrc", "_netrc", ".git-credentials", ".databrickscfg", ".pypirc"),
        *(".npmrc", ".pgpass", ".my.cnf", ".htpasswd", ".s3cfg", ".boto", ".dockercfg"),
        *(
            "**/.aws/**",
            "**/.azure/**",
            "**/.kube/**",
            "**/.docker/config.json",
            "kubeconfig",
            "**/gcloud/**",
        ),
        *(
            "client_secret*.json",
            "service[-_]account*.json",
            "application_default_credentials.json",
        ),
        *("secret.*", "secrets.*", ".vault-token", "rclone.conf"),
    ),
    "environment with secrets": (".env*", "*.env"),
    "Terraform state": ("*.tfstate", "*.tfstate.*", "*.tfvars"),
}
_GENERATED = (
    *NEVER_PACKED[1:],
    *("*.log", "*.tmp", "*.swp", "*~", "*.egg-info/", "build/", "dist/", ".coverage*", "htmlcov/"),
    *("catboost_info/", "lightning_logs/", "wandb/", "outputs/", "runs/", "checkpoints/"),
    *("*.pkl", "*.pickle", "*.joblib", "*.npy", "*.npz", "*.parquet", "*.feather", "*.arrow"),
    *("*.csv", "*.tsv", "*.h5", "*.hdf5", "*.pt", "*.pth", "*.ckpt", "*.onnx", "*.safetensors"),
    *("*.db", "*.sqlite", "*.sqlite3", "*.zip", "*.tar", "*.tar.gz", "*.png", "nohup.out", "core"),
)
_CODE = re.compile(r".*\.(py|pyi|ipynb|md|rst|js|ts|tsx|go|java|rs|sh|html|css|pub)", re.S)


def secret_kind(path: str) -> str | None:
    """Returns which kind of secret a file holds by its name; None where its name says nothing.

    Code that is about secrets (``credentials.py``) and public keys (``id_rsa.pub``) are none.
    """
    in_home = re.search(r"(^|/)\.(aws|azure|kube|ssh)/", path)
    if _CODE.fullmatch(path) and not in_home:
        return None
    return next((kind for kind, names in _SECRETS.items() if _spec(names).match_file(path)), None)


def is_generated(path: str) -> bool:
    """Whether a file looks like what a program made, and nobody commits."""
    return _spec(_GENERATED).match_file(path)


def is_never_packed(path: str) -> bool:
    """Whether no bundle holds a file of this name."""
    return _spec(NEVER_PACKED).match_file(path)


@lru_cache(maxsize=16)
def _spec(patterns: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(patterns)
