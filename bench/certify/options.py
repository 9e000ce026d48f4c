"""The command line of bench.certify."""

from pathlib import Path

from bench.basics.errors import Parser
from bench.basics.norms import NORMS
from bench.basics.whole_numbers import whole
from bench.data.options import add_data_options
from bench.model_files.layouts import LAYOUTS

DEFAULT_OUT = Path("out/certify")
DEFAULT_INPUTS = 200
DEFAULT_MINUTES = 10.0
# Fewer noise draws certify nothing; the tables of votes of more would not fit into memory.
DRAWS = (100, 10_000_000)


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(
        prog="python -m bench.certify",
        description="Certify a trained network: an FCNN checkpoint (.safetensors), ONNX, TorchScript or "
        "torch.export file with one score (positive: sensitive) or several logits (the greatest wins). Says which "
        "certificates apply, issues them, and writes the tables, figures and report of a run.",
    )
    add = top.add_argument
    add("--model", type=Path, required=True, metavar="FILE", help="the trained network")
    add("--data", required=True, metavar="FILE|NAME", help="own .npz, .csv or .parquet, or a NAME")
    add("--norms", nargs="+", default=NORMS, metavar="NORM", help=f"some of {' '.join(NORMS)}")
    add(
        "--certificates",
        nargs="+",
        metavar="NAME",
        help="such as closed_form, refined, crown, alpha_beta_crown, smoothing_gaussian; an unknown one lists all "
        "(default: all that apply, but no smoothing)",
    )
    add(
        "--sensitive-logit",
        metavar="K|CLASS",
        help="which logit is the sensitive class's, counted from 0, or a class of the data (default: its place "
        "among the data's labels); of one score, 0 says that less means sensitive",
    )
    add(
        "--threshold",
        type=float,
        metavar="T",
        help="what the network's own output must exceed (default: 0, of a probability 0.5, of several logits: "
        "the greatest wins); of several logits, by how much the sensitive class's must exceed the others",
    )
    add("--output", metavar="NAME", help="which output of an ONNX file holds the scores")
    add(
        "--layout",
        default="auto",
        metavar="|".join(LAYOUTS),
        help="order of an image's axes that the network wants: channels first or last (default: as its input says)",
    )
    add("--sigma", type=float, metavar="S", help="noise of randomized smoothing, per coordinate")
    add(
        "--draws",
        type=whole(*DRAWS),
        default=10_000,
        metavar="N",
        help="noise draws per input (default: 10000)",
    )
    add(
        "--minutes",
        type=float,
        default=DEFAULT_MINUTES,
        metavar="M",
        help="time for all bounds and searches together, shared by the inputs; votes under noise come on top "
        f"(default: {DEFAULT_MINUTES:g})",
    )
    add(
        "--seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="most that alpha_beta_crown takes per input and norm (default: 10)",
    )
    add(
        "--inputs",
        type=whole(0),
        default=DEFAULT_INPUTS,
        metavar="N",
        help=f"test inputs to use, 0 for all (default: {DEFAULT_INPUTS})",
    )
    add("--trust", action="store_true", help="load TorchScript and torch.export files, which can run code")
    add("--device", default="auto", metavar="auto|cpu|cuda[:i]", help="where to compute (default: auto)")
    add("--out", type=Path, metavar="DIR", help="output folder (default: out/certify/MODEL)")
    add_data_options(top.add_argument_group("data").add_argument)
    return top
