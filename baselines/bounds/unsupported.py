"""What bounds cannot be propagated through."""


class UnsupportedLayer(ValueError):
    """A network has something that bounds cannot be propagated through; ``layer`` names it."""

    def __init__(self, layer: str, why: str) -> None:
        self.layer = layer
        super().__init__(
            f"bounds cannot be propagated: {layer} {why}; replace it or use randomized smoothing"
        )
