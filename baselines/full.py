"""Full fine-tuning: every parameter trains. The upper reference in quality, and in cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba


class FullFineTuning(TuningMethod):
    """Nothing is frozen and nothing is added."""

    name = "full"
    title = "Full"
    source = "ECCV 2024; OpenGVLab/VideoMamba"
    identity_at_start = True

    def trainable_parameters(self, model: VideoMamba) -> list[str]:
        """All of them."""
        return [name for name, _ in model.named_parameters()]

    def without_gradient(self, model: VideoMamba) -> dict[str, str]:
        """The decay of the last block's forward scan."""
        reason = "only the class token, row 0, is read after the last block; a forward scan has decayed nothing by then"
        return {f"layers.{len(model.layers) - 1}.mixer.A_log": reason}
