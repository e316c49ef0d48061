"""The picture of what State Space Prompting attends to: film strip, gate, attention over frames, strength by layer.

- The picture shows means over layers, and how strength runs over the layers; where the gate's scales are small it says
  little whatever it looks like, so the picture tells them.
- Differences are what one looks for: colours span the clip's own range, gate and attention are shown against equal
  shares, with a least span so that rounding does not look like structure.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import SubplotSpec
from torch import Tensor

from ssp.figures.style import COLOURS, STYLE
from ssp.methods.observe import Explanation

FRAMES, LINES = 8, 2  # of the film strip; the gate and the attention show all frames
TITLE, LINE, CHARTS = 0.35, 2.62, 2.35  # inches from top to bottom
HEAT, CELLS = "inferno", "RdBu_r"
LEAST = 0.01  # of an equal share: half the least span of the axes of gate and attention


def frames_of(clip: Tensor) -> np.ndarray:
    """The pictures of a clip, uint8 (3, T, H, W), as (T, H, W, 3)."""
    return clip.permute(1, 2, 3, 0).numpy()


class Shown(NamedTuple):
    """What the picture shows of one clip."""

    explanation: Explanation
    frames: np.ndarray  # uint8 (T, H, W, 3), the pictures of that clip (`frames_of`)
    title: str = ""  # one line above


def draw_explanations(clips: Sequence[Shown]) -> bytes:
    """A PNG of clips below each other: film strip with heat of prompt strength; gate, attention, strength by layer."""
    heights = [TITLE + CHARTS + LINE * len(_lines(len(clip.frames))) for clip in clips]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, sum(heights)), dpi=130, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
        FigureCanvasAgg(figure)
        parts = figure.subfigures(len(clips), 1, squeeze=False, height_ratios=heights).flat
        for part, clip in zip(parts, clips, strict=True):
            _draw(part, clip)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _lines(total: int) -> list[np.ndarray]:
    """Which of T frames are shown, line by line."""
    shown = np.unique(np.linspace(0, total - 1, min(total, LINES * FRAMES)).round().astype(int))
    return np.array_split(shown, -(-len(shown) // FRAMES))


def _draw(figure: SubFigure, clip: Shown) -> None:
    """One clip: frames and heat above; gate, attention and layers below."""
    explanation, frames, title = clip
    lines = _lines(len(frames))
    if title:  # on the left, where a narrow screen begins; a file may be called anything: no formulas
        figure.suptitle(title, x=0.008, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    strip, below = figure.add_gridspec(2, 1, height_ratios=(LINE * len(lines), CHARTS))
    _strip(figure, strip, explanation.mean_strength, frames, lines)
    gate, attention, layers = (figure.add_subplot(part) for part in below.subgridspec(1, 3, width_ratios=(1.1, 0.9, 1)))
    _gate(gate, explanation)
    _attention(figure, attention, explanation.mean_attention)
    _layers(layers, explanation.strength)


def _strip(
    figure: SubFigure, place: SubplotSpec, strength: np.ndarray, frames: np.ndarray, lines: list[np.ndarray]
) -> None:
    """Lines of frames, each frame with itself in grey under the heat of prompt strength below it."""
    grid = place.subgridspec(2 * len(lines), len(lines[0]), wspace=0.02, hspace=0.02)
    least, most = (float(strength.min()), float(strength.max())) if strength.any() else (0.0, 1.0)
    drawn = []
    for line, shown in enumerate(lines):
        for column, t in enumerate(shown):
            above, below = (figure.add_subplot(grid[2 * line + row, column]) for row in range(2))
            above.imshow(frames[t])
            above.set_title(f"frame {t + 1}", fontsize=8, fontweight="normal", pad=2)
            below.imshow(frames[t].mean(axis=-1), cmap="gray", vmin=0, vmax=255)
            height, width = frames[t].shape[:2]
            whole = (-0.5, width - 0.5, height - 0.5, -0.5)
            heat = below.imshow(strength[t], cmap=HEAT, vmin=least, vmax=most, alpha=0.65, extent=whole)
            for ax in (above, below):
                ax.set(xticks=[], yticks=[])
                ax.grid(False)
                ax.spines[:].set_visible(False)
            if column == 0:
                above.set_ylabel("clip")
                below.set_ylabel("prompt strength")
            drawn += [above, below]
    bar = figure.colorbar(heat, ax=drawn, pad=0.01, aspect=24 * len(lines))
    bar.set_label("prompt strength, |F| / |branch|", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _gate(ax: Axes, explanation: Explanation) -> None:
    total = len(explanation.mean_gate)
    percent = 100 * (total * explanation.mean_gate - 1)
    ax.bar(np.arange(1, total + 1), percent, color=COLOURS[0])
    ax.axhline(0, color="#444444", linewidth=0.9)
    span = 1.3 * max(float(np.abs(percent).max()), 100 * LEAST)
    ax.set(ylim=(-span, span), xlabel="frame", ylabel="% above an equal share")
    ax.set_title("Entropy gate")
    scale = float(np.abs(explanation.scales).max(initial=0))
    ax.text(
        *(0.99, 0.98, f"acts times learned scales, at most {scale:.2g}"), transform=ax.transAxes, ha="right", va="top",
        size=7.5,
    )  # fmt: skip
    ax.grid(axis="x", visible=False)
    _frame_ticks(ax.xaxis, total, first=1)


def _attention(figure: SubFigure, ax: Axes, attention: np.ndarray) -> None:
    total = len(attention)
    shares = total * attention  # in equal shares
    span = max(float(np.abs(shares - 1).max()), LEAST)
    image = ax.imshow(shares, cmap=CELLS, norm=TwoSlopeNorm(1, 1 - min(span, 1), 1 + span))  # none is below nothing
    ax.set(xlabel="takes from frame", ylabel="prompt of frame")
    ax.set_title("Attention over frames")
    ax.grid(False)
    for axis in (ax.xaxis, ax.yaxis):
        _frame_ticks(axis, total, first=0)
    bar = figure.colorbar(image, ax=ax, pad=0.02, aspect=18)
    bar.set_label("times an equal share", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _layers(ax: Axes, strength: np.ndarray) -> None:
    """Strength over layers: the mean over all patches, and the band that holds the middle 80 % of them."""
    patches = strength.reshape(len(strength), -1)
    low, high = np.percentile(patches, (10, 90), axis=1)
    blocks = np.arange(len(strength))
    ax.fill_between(blocks, low, high, color=COLOURS[1], alpha=0.2, linewidth=0)
    ax.plot(blocks, patches.mean(axis=1), color=COLOURS[1], marker="o", markersize=3, linewidth=1.2)
    ax.set(xlabel="before block", ylabel="prompt strength", ylim=(0, None))
    ax.set_title("Prompt strength by layer")
    ax.xaxis.get_major_locator().set_params(integer=True)


def _frame_ticks(axis: mpl.axis.Axis, total: int, first: int) -> None:
    """Frames counted from 1, eight labels at most; the axis counts from `first`."""
    step = -(-total // FRAMES)
    ticks = np.arange(0, total, step)
    axis.set_ticks(ticks + first, labels=[str(t + 1) for t in ticks])
