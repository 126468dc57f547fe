"""By how much a model gets worse when one feature is shuffled. Called by evaluate.py, which shows it."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

ROWS = 2_000  # enough for an order of the features, and cheap for any model
FEATURES = 100  # with more of them it is not cheap: nothing is shown
REPEATS = 3


def importance(
    probability: Callable[[pd.DataFrame], np.ndarray], frame: pd.DataFrame, truth: np.ndarray
) -> dict[str, float]:
    """The mean loss of area under the ROC curve over REPEATS shuffles, by feature, largest first; {} where not cheap.

    Seeded, and on rows at even distances: the same model and test set give the same numbers.
    """
    places = np.unique(np.linspace(0, len(frame) - 1, min(ROWS, len(frame))).round().astype(int))
    rows, positive = frame.iloc[places].reset_index(drop=True), truth[places]
    if len(frame.columns) > FEATURES or positive.all() or not positive.any():
        return {}
    whole = roc_auc_score(positive, probability(rows))
    random = np.random.default_rng(1)
    losses = {}
    for name in frame.columns:
        shuffled = (rows.assign(**{name: rows[name].to_numpy()[random.permutation(len(rows))]}) for _ in range(REPEATS))
        losses[str(name)] = float(np.mean([whole - roc_auc_score(positive, probability(one)) for one in shuffled]))
    return dict(sorted(losses.items(), key=lambda pair: (-pair[1], pair[0])))
