"""A pandas frame of raw features → what XGBoost and Keras read. Called by train_model and by model_flavors.py.

Both sides of a model's life come through here, so that a word means the same when it is scored as when it was learnt.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd


def words(frame: pd.DataFrame) -> list[str]:
    """The columns that hold text."""
    return [str(name) for name in frame.columns if frame[name].dtype == object]


def vocabularies(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Text column → the words in it, sorted."""
    return {name: sorted(frame[name].dropna().unique()) for name in words(frame)}


def coded(frame: pd.DataFrame, known: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Text columns as categories of those words; a word that was never seen is missing, which XGBoost can take."""
    return frame.assign(**{name: pd.Categorical(frame[name], categories=list(known[name])) for name in words(frame)})


def tensors(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Column → one value a row, as Keras takes a model's named inputs.

    Numbers in the shape (rows, 1), on which its layers are adapted; words in the shape (rows,), for Keras makes tensors
    of flat object arrays only. A model takes both, whether its inputs are `(1,)` or `()`.
    """
    text = set(words(frame))
    columns = {str(name): frame[name].to_numpy() for name in frame.columns}
    return {name: column if name in text else column.reshape(-1, 1) for name, column in columns.items()}
