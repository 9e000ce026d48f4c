"""What is known about data sets by name: titles, the sensitive class, and pairs cut from larger sets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A data set with a name of its own.

    ``sensitive`` is the class with label 1, by name or label id. A set with ``part_of`` and ``other`` can also be
    cut from a larger set.
    """

    title: str
    description: str
    sensitive: str | int | None = None
    part_of: str | None = None
    other: str | int | None = None


KNOWN = {
    "digits_38": Known("Digits 3-8", "8x8 handwritten digits, 3 (sensitive) or 8; embedded", "3"),
    "breast_cancer": Known(
        "Breast cancer", "30 measurements of tumours, malignant (sensitive) or benign; embedded", "malignant"
    ),
    "circles": Known("Circles", "two noisy circles in the plane, the outer one sensitive; embedded", "outer"),
    "mnist": Known("MNIST", "28x28 digits, ten classes: write mnist:3-8 or give --sensitive; download"),
    "mnist_38": Known("MNIST 3-8", "28x28 digits, 3 (sensitive) or 8; download", 3, "mnist", 8),
    "fashion_mnist": Known(
        "Fashion-MNIST", "28x28 clothes, ten classes: write fashion_mnist:0-6 or give --sensitive; download"
    ),
    "fashion_mnist_shirts": Known(
        "Fashion-MNIST shirts", "28x28 clothes, T-shirt (sensitive) or shirt; download", 0, "fashion_mnist", 6
    ),
    "cifar10": Known(
        "CIFAR-10", "32x32 RGB, ten classes: write cifar10:cat-dog or give --sensitive; download"
    ),
    "cifar10_catsdogs": Known(
        "CIFAR-10 cats-dogs", "32x32 RGB, cat (sensitive) or dog; download", 3, "cifar10", 5
    ),
    "malware_benign_128": Known(
        "Malware byte plots", "128x128 byte plots, malware (sensitive) or benign; from the data folder", 1
    ),
    "malimg": Known(
        "Malimg", "512x512 byte plots, 24 malware families (sensitive) or Allaple.A; from the data folder", 1
    ),
    "catsdogs_224": Known(
        "Cats-dogs 224", "224x224 RGB, cat (sensitive) or dog; from the data folder", "cat"
    ),
}
