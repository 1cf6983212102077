"""Seeds for the parts of a run. They derive from one seed and are independent of each other."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Derive a seed in [0, 2**62) from all ``parts``. It is the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2
