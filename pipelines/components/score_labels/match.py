"""Which prediction each label is about: the newest one of that user made at or before the label's moment.

Called by score.py, with one file of predictions after the other, in any order.
"""

from collections.abc import Iterable

import numpy as np

from pipelines.components.score_labels.labels import Labels

NEVER = np.iinfo(np.int64).min


class Matches:
    """For each label and each version the newest prediction so far: 16 bytes a label and version that matched."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._newest: dict[int, np.ndarray] = {}
        self._scores: dict[int, np.ndarray] = {}

    def add(self, version: int, chunks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> int:
        """Take in a file of predictions of a version; how many labels it is the newest for as yet.

        A user who stands in it twice, with one moment, counts once: the later row.
        """
        taken = 0
        for users, moments, probabilities in chunks:
            order = np.argsort(moments, kind="stable")  # of several for one label the last one written stays
            rows, labels = self._pairs(users[order])
            times, scores = moments[order][rows], probabilities[order][rows]
            newest = self._newest.get(version)
            before = NEVER if newest is None else newest[labels]
            fit = (times <= self._labels.time[labels]) & (times >= before)
            if not fit.any():
                continue
            newest = self._newest.setdefault(version, np.full(len(self._labels), NEVER))
            known = self._scores.setdefault(version, np.full(len(self._labels), np.nan))
            newest[labels[fit]], known[labels[fit]] = times[fit], scores[fit]
            taken += len(np.unique(labels[fit]))
        return taken

    def by_version(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """For each version the truth and the scores of the labels that are about its predictions.

        Where several versions predicted a user as of the same moment each is judged; else the newest prediction alone
        is, for it is the one that was in force.
        """
        if not self._newest:
            return {}
        in_force = np.maximum.reduce(list(self._newest.values()))
        about = {version: (newest == in_force) & (newest > NEVER) for version, newest in sorted(self._newest.items())}
        return {
            version: (self._labels.high[mask], self._scores[version][mask])
            for version, mask in about.items()
            if mask.any()
        }

    def matched(self) -> int:
        """How many labels have a prediction."""
        if not self._newest:
            return 0
        return int((np.maximum.reduce(list(self._newest.values())) > NEVER).sum())

    def _pairs(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each row with each label of its user, as two arrays of places; in the order of the rows."""
        first = np.searchsorted(self._labels.user, users, "left")
        count = np.searchsorted(self._labels.user, users, "right") - first
        rows = np.repeat(np.arange(len(users)), count)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        return rows, np.repeat(first, count) + within
