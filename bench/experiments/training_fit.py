"""How far can a convex function fit cats and dogs? Training accuracy without augmentation and without a feature map.

The images are convexly separable (experiment separability_data), so a convex score without a single training error
exists; the question is what training finds. The published network, a wide convex MLP and one with the feature map
CenteredAbs, whose score is not convex in the input, are trained on the same images.
"""

import sys

from bench.experiments._single import single

if __name__ == "__main__":  # before the imports that take seconds, which --help can do without
    sys.exit(single("training_fit", __doc__)())

from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from bench.basics.seeds import derive_seed
from bench.data import load_dataset
from bench.experiments._cifar import DATASET, TITLE
from bench.experiments._finished import Figures, Finished
from bench.experiments._shared import Experiment, Options, Rows, finish, run_units
from bench.report.figures.identity import OWN, OWN_DARK, OWN_LIGHT
from bench.running.provenance import RunClock
from fcnn import CenteredAbs, ConvexMLP, FeatureConvexClassifier, Identity
from fcnn.convex_network import ConvexNetwork
from fcnn.published import PublishedConvNet
from fcnn.training import TrainSettings, cross_entropy, train

EXPERIMENT = Experiment(
    "training_fit",
    "Fitting cats and dogs with a convex score, no augmentation",
    "2,000 training images, 30 instead of 300 epochs",
)
IMAGES, IMAGES_REDUCED = 0, 2_000
EPOCHS, EPOCHS_REDUCED = 300, 30
EVERY, EVERY_REDUCED = 10, 3
MODELS = {
    "convnet": ("published ConvNet, φ(x) = x", OWN, "-"),
    "mlp": ("MLP (1000, 200), φ(x) = x", OWN_DARK, "--"),
    "mlp_abs": ("MLP (1000, 200), φ(x) = (x - μ, |x - μ|)", OWN_LIGHT, ":"),
}


def run(options: Options) -> list[Path]:
    """Train every model and plot its training accuracy."""
    clock = RunClock()
    data = load_dataset(DATASET, options.data_dir)
    sizes = (IMAGES_REDUCED, EPOCHS_REDUCED, EVERY_REDUCED) if options.reduced else (IMAGES, EPOCHS, EVERY)
    place = (str(options.data_dir or ""), data.sha256, options.torch_device.type)
    units = {
        f"{model}-seed{seed}": (model, *sizes, seed, *place) for model in MODELS for seed in options.seeds
    }
    rows = run_units(EXPERIMENT, options, units, fit)
    images, epochs, _ = sizes
    settings = {"dataset": DATASET, "images": images, "epochs": epochs}
    return finish(EXPERIMENT, options, rows, settings, clock)


def figures(finished: Finished) -> Figures:
    """The figure, from the rows."""
    return {EXPERIMENT.name: lambda: figure(finished.rows, finished.heading(TITLE))}


def fit(
    name: str, images: int, epochs: int, every: int, seed: int, data_dir: str, _: str, device: str
) -> Rows:
    """Train one model; return its training accuracy after every few epochs."""
    data = load_dataset(DATASET, data_dir or None)
    x, y = torch.from_numpy(data.x_train).to(device), torch.from_numpy(data.y_train).to(device)
    if images:
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:images].to(device)
        x, y = x[chosen], y[chosen]
    model = untrained(name, x, derive_seed(EXPERIMENT.name, name, seed)).to(device)
    rows: Rows = []
    epoch = 0

    def record(model: FeatureConvexClassifier) -> float:
        nonlocal epoch
        epoch += 1
        if epoch % every == 0 or epoch == epochs:
            rows.append(
                {"model": name, "seed": seed, "images": len(x), "epoch": epoch, **accuracies(model, x, y)}
            )
        return float(epoch)  # the latest epoch counts as the best: no early stopping on the training data

    settings = TrainSettings(epochs=epochs, batch_size=64, learning_rate=1e-3, schedule="cosine")
    train(model, cross_entropy, (x, y), settings, seed=seed, after_step=model.project, validate=record)
    return rows


def untrained(name: str, x: Tensor, seed: int) -> FeatureConvexClassifier:
    """Return a model of MODELS with seeded weights, centred at the mean of x (N, C, H, W)."""
    mean = x.mean(dim=0).cpu()
    feature_map = CenteredAbs(mean) if name == "mlp_abs" else Identity(mean)
    shape = feature_map.feature_shape(tuple(x.shape[1:]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: ConvexNetwork
        if name == "convnet":
            network = PublishedConvNet(shape, features=16, depth=4, first_kernel=11, kernel=3)
        else:
            network = ConvexMLP(torch.Size(shape).numel(), (1000, 200))
    return FeatureConvexClassifier(network, feature_map)


def accuracies(model: FeatureConvexClassifier, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return the shares classified right, of all and of either class, at the threshold 0."""
    with torch.no_grad():
        right = torch.cat([model.score(batch) > 0 for batch in x.split(512)]) == (y == 1)
    shares = {"accuracy": right, "recall_sensitive": right[y == 1], "recall_other": right[y == 0]}
    return {key: float(part.double().mean()) for key, part in shares.items()}


def figure(rows: pd.DataFrame, heading: str) -> Figure:
    """Draw training accuracy over the epochs."""
    drawing = Figure(figsize=(6.5, 4.6), layout="constrained")
    ax = drawing.subplots()
    for name, (label, color, dashes) in MODELS.items():
        part = rows[rows["model"] == name].groupby("epoch")["accuracy"].mean()
        ax.plot(part.index, part, color=color, linestyle=dashes, label=f"{label}: {part.iloc[-1]:.1%}")
    ax.axhline(1.0, color="0.4", linewidth=0.8)
    ax.annotate("exists: the images are convexly separable", (1, 1.005), fontsize=8, color="0.3", va="bottom")
    ax.set_xlabel("epoch")
    ax.set_ylabel("training accuracy")
    ax.set_ylim(0.5, 1.04)
    ax.set_xlim(left=0)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    drawing.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=9)
    drawing.suptitle(heading, fontsize=10)
    return drawing
