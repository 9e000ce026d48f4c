"""Seeds hashed from names, so that adding a method never changes another's random numbers."""

import hashlib


def derive_seed(*names: object) -> int:
    """Return a 63-bit seed from an ordered list of names, for example (0, "mnist_38", 1, "fit").

    Names are length-prefixed before hashing, so ("a", "bc") and ("ab", "c") differ.
    """
    text = "".join(f"{len(str(name))}:{name}" for name in names)
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
