"""The network of the ablations on CIFAR-10 cats and dogs: the published one, or a small one for two cores."""

from typing import Any

from bench.experiments._shared import Options

DATASET = "cifar10_catsdogs"
TITLE = "CIFAR-10 cats-dogs"
REDUCED = "a small network (16 features, stride 3), 4 epochs, 100 test inputs"
TEST_INPUTS = 100


def settings(options: Options) -> dict[str, Any]:
    """Return the FCNN settings that the ablations share; feature map and regulariser come on top."""
    training = {
        "optimizer": "sgd",
        "schedule": "exponential",
        "decay": 0.99,
        "learning_rate": 1e-3,
        "batch_size": 64,
    }
    network = {"features": 16, "depth": 4, "first_kernel": 11, "kernel": 3}
    epochs = 150
    if options.reduced:
        network |= {"depth": 2, "first_kernel": 7, "first_stride": 3}
        training |= {"learning_rate": 1e-2, "batch_size": 128}
        epochs = 4
    return {
        "architecture": "convnet",
        "convnet": network,
        "certificates": ["closed_form:free", "separable:free", "refined:free"],
        "train": {**training, "epochs": epochs, "crop_padding": 3, "flip": True},
    }


def suite_table(options: Options, entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the suite of the ablation: id -> {"title": ..., "settings": what differs}."""
    shared = settings(options)
    methods = [
        {
            "method": "fcnn_published",
            "id": name,
            "title": entry["title"],
            "settings": {**shared, **entry["settings"]},
        }
        for name, entry in entries.items()
    ]
    return {"datasets": [DATASET], "methods": methods, "test_inputs": TEST_INPUTS if options.reduced else 0}
