"""Orders of an image's axes that a network may want: as its input says, channels first, channels last."""

LAYOUTS = ("auto", "chw", "hwc")
