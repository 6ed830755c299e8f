"""The pretrained part: WordLlama, token embeddings distilled out of large language models.

The weights come from the package ``wordllama`` (MIT licence), not from a hub, and only training
needs that package: what it logs is the table as a plain array and the tokenizer's file, which
``tokenizers`` and NumPy read. The table is memory-mapped, so that workers of a server share it.

Source: https://github.com/dleemiller/WordLlama; 32,000 tokens, 256 dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TABLE = "embedding.npy"
TOKENIZER = "tokenizer.json"


class SentenceEmbedding:
    """Maps a text to the mean of its tokens' vectors.

    Args:
        directory: Holds ``TABLE`` and ``TOKENIZER``.
    """

    def __init__(self, directory: Path) -> None:
        from tokenizers import Tokenizer

        self._table: NDArray[np.float32] = np.load(directory / TABLE, mmap_mode="r")
        self._tokenizer: Any = Tokenizer.from_file(str(directory / TOKENIZER))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns one vector of length 1 per text; nothing but zeros for one without a token.

        Args:
            texts: Any number of them.

        Returns:
            (texts, 256) float32.
        """
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        vectors = np.zeros((len(encoded), self._table.shape[1]), dtype=np.float32)
        for vector, tokens in zip(vectors, encoded, strict=True):
            if tokens.ids:
                vector[:] = self._table[tokens.ids].mean(axis=0)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, 1e-12)


def unpack_pretrained(directory: Path) -> None:
    """Writes the network's two files as they are logged: 33 MB of float32, 2 MB of JSON.

    Args:
        directory: Exists.
    """
    from importlib.resources import files

    from safetensors.numpy import load

    package = files("wordllama")
    weights = load(package.joinpath("weights/l2_supercat_256.safetensors").read_bytes())
    np.save(directory / TABLE, weights["embedding.weight"].astype(np.float32))
    tokenizer = package.joinpath("tokenizers/l2_supercat_tokenizer_config.json").read_bytes()
    (directory / TOKENIZER).write_bytes(tokenizer)
