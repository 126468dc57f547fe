"""The demo's second model: gradient boosted trees, which see the bends that a linear model cannot."""

from typing import Any

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder


def build(params: dict[str, Any]) -> Pipeline:
    """An unfitted estimator; a Pipeline gets the feature columns as they are."""
    words = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer((words, make_column_selector(dtype_include=object)), remainder="passthrough")
    trees = HistGradientBoostingClassifier(
        max_iter=params.get("max_iter", 80),
        learning_rate=params.get("learning_rate", 0.1),
        max_leaf_nodes=params.get("max_leaf_nodes", 15),
        random_state=params.get("random_state", 0),
    )
    return make_pipeline(columns, trees)
