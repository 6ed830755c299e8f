"""Which flavor a request gets: weighted rendezvous hashing of its key.

Each flavor draws a number from the sha256 of its name and the request's key, and of all flavors
the one with the highest ``weight / -ln(draw)`` gets the request. Hence, for any number of flavors:

* The share of keys that a flavor gets is its weight.
* A key's flavor depends on the weights and the key alone: not on the machine, the process, the
  order of entries or the time.
* From one set of weights to another, a key leaves its flavor only for one whose weight grew
  relative to it. So while a flavor's weight grows and no other's does, no key leaves it: over
  1, 10, 50, 100 % a key that was once on the new flavor stays there. And a flavor that is taken
  away gives its own keys to the others, and moves none of theirs.

Source: D. Thaler, C. Ravishankar, "A Name-Based Mapping Scheme for Rendezvous" (1996); for
weights, J. Schindelhauer, G. Schomaker, "Weighted Distributed Hash Tables" (SPAA 2005).
"""

from __future__ import annotations

import math
from hashlib import sha256

from adroit.sitevars.document import Pointer

_DRAW_BITS = 52  # so that neither 0 nor 1 can be drawn: a double has one bit more


def flavor_of(pointer: Pointer, key: str | bytes) -> str:
    """Returns the flavor that a request with this key gets.

    Args:
        pointer: The model's weights.
        key: What is to stay on one flavor: a user's id, a session's, or a request's own.
    """
    if len(pointer.weights) == 1:
        return pointer.weights[0][0]
    data = key.encode(errors="surrogatepass") if isinstance(key, str) else key
    return max((weight / -math.log(_draw(name, data)), name) for name, weight in pointer.weights)[1]


def _draw(flavor: str, key: bytes) -> float:
    """Returns a number between 0 and 1, neither included."""
    digest = sha256(flavor.encode() + b"\0" + key).digest()
    drawn = int.from_bytes(digest[:8], "big") >> (64 - _DRAW_BITS)
    return float((drawn + 0.5) / 2**_DRAW_BITS)
