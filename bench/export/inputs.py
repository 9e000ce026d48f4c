"""Which test inputs of a run are asked about, by exported questions and by bench.queries alike."""

import numpy as np
import pandas as pd


def asked_inputs(radii: pd.DataFrame, count: int) -> np.ndarray:
    """Return the first ``count`` sensitive test inputs, of those in a cell's rows, that its method predicts sensitive.

    Increasing indices into the test split; the rows are those of one data set, method, seed and
    operating point.
    """
    return np.unique(radii.loc[radii["predicted"] == 1, "index"])[:count]
