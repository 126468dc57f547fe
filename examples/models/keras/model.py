"""A small neural network: a model of the type `tensorflow`. What reads words and scales numbers is part of it."""

from typing import Any

import keras
from keras import layers

NUMBERS = ("age", "education_num", "hours_per_week", "capital_gain", "capital_loss")
WORDS = ("workclass", "education", "marital_status", "occupation")
AT_MOST = 40  # words of a column that get a place of their own; the others share one


def build(params: dict[str, Any]) -> keras.Model:
    """An unfitted model with one named input a feature, which ends in the probability of the higher class."""
    inputs = {name: keras.Input((1,), name=name) for name in NUMBERS}
    inputs |= {name: keras.Input((1,), name=name, dtype="string") for name in WORDS}
    numbers = [layers.Normalization(axis=None, name=f"scaled_{name}")(inputs[name]) for name in NUMBERS]
    words = [
        layers.StringLookup(max_tokens=AT_MOST, output_mode="one_hot", pad_to_max_tokens=True, name=f"coded_{name}")(
            inputs[name]
        )
        for name in WORDS
    ]
    hidden = layers.Dense(params.get("units", 16), activation="relu")(layers.Concatenate()([*numbers, *words]))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(optimizer=keras.optimizers.Adam(params.get("learning_rate", 0.005)), loss="binary_crossentropy")
    return model


def adapt(model: keras.Model, features: dict[str, Any]) -> None:
    """Shows the training's features, one array a column, to the layers that must know them before the training."""
    for name in NUMBERS:
        model.get_layer(f"scaled_{name}").adapt(features[name])
    for name in WORDS:
        model.get_layer(f"coded_{name}").adapt(features[name])
