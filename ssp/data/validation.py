"""Carving validation from train, or test from own videos: whole groups, stratified, seeded; and parts for cheap trials.

- A group (film, subject, source video) never straddles: neighbours in training would make validation too good.
- Groups are visited in a seeded order, and one is taken whenever that brings the class counts of validation closer to
  the asked fraction. A second pass gives classes that came out empty the smallest group that helps.
- Training never loses a class: the last group of a class stays, so a class with a single group has no validation.
- Further folds go on with the groups that no earlier one has, in the same order.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def carve(
    labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int, held: np.ndarray | None = None
) -> np.ndarray:
    """Choose the videos that are held out of training.

    Args:
        labels: int (n,), classes from 0.
        groups: str (n,).
        fraction: of the videos of every class, as nearly as whole groups allow.
        seed: of the order of the groups.
        held: bool (n,), whole groups that other folds have: training videos that must not be chosen.

    Returns:
        bool (n,), true for those held out.
    """
    names, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    classes, class_of = np.unique(labels, return_inverse=True)
    members = _class_counts(group_of, class_of, len(names))
    remaining = np.zeros(len(classes), int)  # groups of a class that are still in train
    for classes_there, _ in members:
        remaining[classes_there] += 1
    wanted = fraction * np.bincount(class_of, minlength=len(classes))
    taken, chosen = np.zeros(len(classes)), np.zeros(len(names), bool)
    free = np.ones(len(names), bool)
    if held is not None:
        free[group_of[held]] = False

    def take(group: int) -> None:
        classes_there, counts = members[group]
        chosen[group] = True
        taken[classes_there] += counts
        remaining[classes_there] -= 1

    for group in np.random.default_rng(seed).permutation(len(names)):
        if not free[group]:
            continue
        classes_there, counts = members[group]
        missing = wanted[classes_there] - taken[classes_there]
        if (remaining[classes_there] > 1).all() and ((missing - counts) ** 2).sum() < (missing**2).sum():
            take(group)
    for empty in np.flatnonzero((taken == 0) & (wanted > 0)):
        candidates = [
            group
            for group, (classes_there, _) in enumerate(members)
            if free[group] and empty in classes_there and (remaining[classes_there] > 1).all()
        ]
        if candidates and not taken[empty]:
            take(min(candidates, key=lambda group: members[group][1].sum()))
    return chosen[group_of]


def carve_folds(
    labels: np.ndarray, groups: np.ndarray, first: np.ndarray, fraction: float, seed: int, folds: int
) -> np.ndarray:
    """The validation fold of each video.

    Args:
        labels: as of `carve`, which has carved the first fold.
        groups: as there.
        first: bool (n,), the first fold.
        fraction: as there.
        seed: as there.
        folds: how many, the first among them.

    Returns:
        int (n,), the fold from 0; -1 for videos that are in none.
    """
    fold = np.where(first, 0, -1)
    for number in range(1, folds):
        fold[carve(labels, groups, fraction, seed, held=fold >= 0)] = number
    return fold


def stratified_part(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A part of every class, at least one video; a smaller part is in every larger one of the same videos.

    Args:
        labels: int (n,).
        share: of the videos of each class.
        seed: of the order in which videos are taken.

    Returns:
        bool (n,).
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels), int)  # of a video among those of its class
    for label in np.unique(labels):
        own = order[labels[order] == label]
        place[own] = np.arange(len(own))
    sizes = np.bincount(labels)[labels]
    return place < np.maximum(1, np.round(share * sizes))


def _class_counts(group_of: np.ndarray, class_of: np.ndarray, groups: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per group: its classes, and how many videos of each."""
    pairs, counts = np.unique(group_of * (class_of.max(initial=0) + 1) + class_of, return_counts=True)
    groups_there, classes_there = np.divmod(pairs, class_of.max(initial=0) + 1)
    bounds = np.searchsorted(groups_there, np.arange(groups + 1))
    return [(classes_there[start:end], counts[start:end]) for start, end in pairwise(bounds)]
