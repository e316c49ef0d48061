"""Full fine-tuning: every parameter trains. The upper reference in quality, and in cost.

- `layer_decay` slows down what comes first, as the published training script does with 0.8. Of its mapping of names to
  layers only that of the embeddings is in use: cls_token, pos_embed and patch_embed are layer 0 and train at
  lr x layer_decay^(blocks + 1), which nearly freezes them. All else, temporal_pos_embedding included, trains at lr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ssp.config import Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba

EMBEDDINGS = ("cls_token", "pos_embed", "patch_embed.")  # layer 0 of the published mapping


class FullFineTuning(TuningMethod):
    """Nothing is frozen and nothing is added."""

    name = "full"
    title = "Full"
    source = "ECCV 2024; OpenGVLab/VideoMamba"
    identity_at_start = True
    test_configs: ClassVar[list[dict[str, Any]]] = [{}, {"layer_decay": 0.8}]

    class Options(Strict):
        """Options of full fine-tuning."""

        layer_decay: float | None = Field(
            default=None, gt=0, le=1, description="Slows down the embeddings; published: 0.8. null: one rate for all."
        )

    def trainable_parameters(self, model: VideoMamba) -> list[str]:
        """All of them."""
        return [name for name, _ in model.named_parameters()]

    def learning_rate_scale(self, model: VideoMamba, name: str) -> float:
        """Less than 1 for the embeddings of class, position and patches, where there is layer decay."""
        if self.options.layer_decay is None or not name.startswith(EMBEDDINGS):
            return 1.0
        return self.options.layer_decay ** (len(model.layers) + 1)

    def without_gradient(self, model: VideoMamba) -> dict[str, str]:
        """The decay of the last block's forward scan."""
        reason = "only the class token, row 0, is read after the last block; a forward scan has decayed nothing by then"
        return {f"layers.{len(model.layers) - 1}.mixer.A_log": reason}
