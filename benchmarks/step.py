"""What training with a frozen backbone costs: one mixer, and whole VideoMamba models with SSP.

- Mixer: the hand-written frozen path against autograd around the same scan, once with our layers (what full
  fine-tuning runs) and once with PyTorch's own; time of forward and backward, and bytes that stay held between them
  (storages saved for the backward, weights and input apart).
- Model: forward and backward of SSP on a frozen VideoMamba, 8 frames of 224 x 224, batch 1, gradients to prompts, gates
  and head; random weights.
- Rounds go through the contenders in turn; medians, and the fastest round.

Usage: python benchmarks/step.py [--rounds 9] [--threads 2] [--clock wall|cpu] [--models videomamba_tiny] [--method ssp]
Writes benchmarks/results/step.md and step.json.
"""

import argparse
import resource
import statistics
from unittest.mock import patch

import torch
import torch.nn.functional as F
from scan import CLOCKS, machine, write

import ssp
from ssp.backbone.mixer import Mixer
from ssp.backbone.mixer_layers import conv_silu, convolve, linear

TOKENS = 1569
MODELS = ("videomamba_tiny", "videomamba_small", "videomamba_middle")


OURS = {"linear": linear, "conv_silu": conv_silu}
PYTORCH = {"linear": F.linear, "conv_silu": lambda x, *layer: F.silu(convolve(x, *layer))}


class PlainPath:
    """A tuning that changes nothing; the mixer then runs its layers under autograd."""


def held_bytes(mixer: Mixer, hidden: torch.Tensor, tuning: object | None) -> int:
    """Memory that stays allocated for the backward."""
    sizes: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = mixer(hidden, tuning)
    known = {x.untyped_storage().data_ptr() for x in (*mixer.parameters(), hidden)}
    del out
    return sum(size for pointer, size in sizes.items() if pointer not in known)


def time_mixer(dim: int, batch: int, tokens: int, rounds: int, clock: str) -> dict[str, dict[str, float]]:
    """Milliseconds and held megabytes of each path."""
    torch.manual_seed(0)
    mixer = Mixer(dim).requires_grad_(False)
    hidden = torch.randn(batch, tokens, dim, requires_grad=True)
    grad = torch.randn(batch, tokens, dim)
    paths = {"frozen": (None, OURS), "layers": (PlainPath(), OURS), "autograd": (PlainPath(), PYTORCH)}
    times, held, now = {name: [] for name in paths}, {}, CLOCKS[clock]
    for turn in range(rounds + 2):
        for name, (tuning, layers) in paths.items():
            with patch.multiple("ssp.backbone.mixer", **layers):
                start = now()
                torch.autograd.grad(mixer(hidden, tuning), hidden, grad)
                if turn > 1:
                    times[name].append(now() - start)
                held[name] = held_bytes(mixer, hidden, tuning) / 1e6
    return {
        name: {
            "median_ms": 1000 * statistics.median(times[name]),
            "fastest_ms": 1000 * min(times[name]),
            "held_mb": held[name],
        }
        for name in paths
    }


def time_model(name: str, method: str, rounds: int, clock: str) -> dict[str, float]:
    """Seconds of a training step without the optimiser's, and the peak memory of the process so far."""
    torch.manual_seed(0)
    model = ssp.build_model(name, method, num_classes=51).train()
    video = torch.randn(1, 3, 8, 224, 224)
    labels = torch.tensor([3])
    times, now = [], CLOCKS[clock]
    for turn in range(rounds + 1):
        model.zero_grad(set_to_none=True)
        start = now()
        torch.nn.functional.cross_entropy(model(video), labels).backward()
        if turn:
            times.append(now() - start)
    return {
        "median_s": statistics.median(times),
        "fastest_s": min(times),
        "peak_process_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def table(found: dict) -> str:
    """The result as Markdown."""
    box = found["machine"]
    lines = [
        "# Training steps with a frozen backbone",
        "",
        f"{box['processor']}, {box['threads']} threads on {box['cores']} cores, torch {box['torch']}, float32, "
        f"{box['clock']} time; load average before: {box['load_before']}.",
        "",
        "One mixer, forward and backward to its input, on the same scan: the frozen path; autograd around our layers; "
        "autograd around PyTorch's layers. Ratios are those of the first to the last:",
        "",
        "| D | B | L | frozen ms | our layers ms | PyTorch's ms | ratio: median (fastest) | held MB | our layers | "
        "PyTorch's | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["mixer"]:
        frozen, layers, plain = row["frozen"], row["layers"], row["autograd"]
        lines.append(
            f"| {row['channels']} | {row['batch']} | {row['tokens']} | {frozen['median_ms']:.1f} | "
            f"{layers['median_ms']:.1f} | {plain['median_ms']:.1f} | {frozen['median_ms'] / plain['median_ms']:.2f} "
            f"({frozen['fastest_ms'] / plain['fastest_ms']:.2f}) | {frozen['held_mb']:.1f} | {layers['held_mb']:.1f} | "
            f"{plain['held_mb']:.1f} | {frozen['held_mb'] / plain['held_mb']:.2f} |"
        )
    if found["model"]:
        lines += [
            "",
            f"Whole model, method {found['method']}, 8 x 224 x 224, batch 1, forward and backward:",
            "",
            "| model | step s, median | fastest | peak memory of the process, GB |",
            "|---|---|---|---|",
        ]
    for name, row in found["model"].items():
        lines.append(f"| {name} | {row['median_s']:.2f} | {row['fastest_s']:.2f} | {row['peak_process_gb']:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--method", default="ssp")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shapes = [("384", 1, TOKENS), ("1152", 1, TOKENS), ("128", 16, 130), ("128", 16, 400)]
    found = {
        "machine": machine(args.threads, args.clock),
        "method": args.method,
        "mixer": [
            {"channels": channels, "batch": batch, "tokens": tokens}
            | time_mixer(int(channels) // 2, batch, tokens, args.rounds, args.clock)
            for channels, batch, tokens in shapes
        ],
        "model": {name: time_model(name, args.method, max(2, args.rounds // 3), args.clock) for name in args.models},
    }
    write("step", found, table(found))


if __name__ == "__main__":
    main()
