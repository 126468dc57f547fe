"""Boosted trees: a model of the type `xgboost`. Words are split on as categories, nothing has to be encoded here."""

from typing import Any

from xgboost import XGBClassifier


def build(params: dict[str, Any]) -> XGBClassifier:
    """An unfitted classifier."""
    return XGBClassifier(
        n_estimators=params.get("n_estimators", 60),
        max_depth=params.get("max_depth", 4),
        learning_rate=params.get("learning_rate", 0.2),
        random_state=0,
    )
