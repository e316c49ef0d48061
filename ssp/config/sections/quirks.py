"""Defects of the published code that a run may have."""

from __future__ import annotations

from pydantic import Field

from ssp.config.sections.common import Quirk, Strict


class Quirks(Strict):
    """Defects of the published code as options; null follows `protocol`. Facts: docs/fidelity.md."""

    entropy_norm: Quirk | None = Field(default=None, description="SSP's gate: maximum over the batch, or per clip.")
    validation_window: Quirk | None = Field(default=None, description="Dense validation window one window too early.")
    short_videos: Quirk | None = Field(
        default=None,
        description="Sparse clips of too short videos: the first frame alone, or all (not in test).",
    )
    frame_norm: Quirk | None = Field(default=None, description="STOP's frame scores: range of the batch, or per clip.")
    merge_ids: Quirk | None = Field(default=None, description="Views merged by file stem, or by full video id.")
    best_epoch: Quirk | None = Field(
        default=None, description="Weights of the epoch that is best on the test list (it chooses), or of the last."
    )
