"""One session with a GPU: the Triton scan against the reference, mamba-ssm's kernels, PyTorch and the bounds.

- Correct first: y and all gradients at real sizes against the reference in float64, on memory that was full of NaN, and
  twice with equal bits.
- Times: both directions of a mixer of VideoMamba-Middle in bfloat16, forward and backward. mamba-ssm's kernels
  (where `selective_scan_cuda` is installed) get contiguous inputs and no flips, the best case for them; `chunked` is
  what PyTorch alone can do, at batch 1. Rounds go through all contenders in turn; medians.
- Bounds, from the same run: bytes that have to move at the speed of a large copy, and one exponential a state and token
  at the speed of a kernel that does nothing else.
- The constants of `ssp/scan/triton` against others: the choice was made without a GPU.
- A training step of SSP and of full fine-tuning on VideoMamba-Middle: time, and peak memory.

What fails is reported, and the rest goes on; what the time does not allow is left out. Without a GPU: one line, and
exit code 2. Writes benchmarks/results/gpu.md and gpu.json (after every part).

Usage: python benchmarks/gpu.py [--seconds 280]
"""

import argparse
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ssp
from ssp.scan import mamba_ssm, triton
from ssp.scan.dispatch import load
from ssp.scan.interface import TENSORS, Grads, ScanArgs, both_backward, both_forward

RESULTS = Path(__file__).resolve().parent / "results"
CHANNELS, STATES = 1152, 16
SHAPES = ((16, 1569), (4, 6369), (1, 1569))  # clips and tokens: 8 frames; 32 frames; what `chunked` can bear
FROZEN = Grads(u=True, delta=True, B=True, C=True, z=True)
VARIANTS = (
    {},
    {"EVERY": 16},
    {"EVERY": 64},
    {"TOKENS": {"forward": 4, "backward": 2}},
    {"TOKENS": {"forward": 16, "backward": 2}},
    {"TOKENS": {"forward": 8, "backward": 4}},
    {"REGISTERS": 255},
    {"REGISTERS": 128},
)
STEPS = (
    ("ssp", 16, "triton"),
    ("ssp", 16, "mamba_ssm"),
    ("full", 16, "triton"),
    ("ssp", 2, "triton"),
    ("ssp", 2, "chunked"),
)


def scans(batch: int, tokens: int, states: int = STATES, dtype: torch.dtype = torch.bfloat16) -> list[ScanArgs]:
    """A mixer's two scans as it hands them over: z is half of (x, z), B and C are parts of the rows of x_proj."""
    generator = torch.Generator("cuda").manual_seed(tokens)

    def rows(count: int) -> torch.Tensor:
        made = torch.randn(batch, tokens, count, generator=generator, device="cuda")
        return made.to(dtype).transpose(1, 2)

    xz, rank = rows(2 * CHANNELS), CHANNELS // 32
    A = -torch.arange(1.0, states + 1, device="cuda").repeat(CHANNELS, 1)
    D, bias = torch.randn(2, CHANNELS, generator=generator, device="cuda")
    made = []
    for reverse in (False, True):
        projected = rows(rank + 2 * states)
        B, C = projected[:, rank : rank + states], projected[:, rank + states :]
        made.append(ScanArgs(rows(CHANNELS), rows(CHANNELS), A, B, C, D, xz[:, CHANNELS:], bias - 4, True, reverse))
    return made


def milliseconds(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median time of each on the GPU; the first round compiles, and does not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            torch.cuda.synchronize()
            if turn:
                times[name].append(start.elapsed_time(end))
    return {name: statistics.median(row) for name, row in times.items()}


# ---- parts ----------------------------------------------------------------------------------------------------------


def machine() -> dict[str, object]:
    """What the figures depend on, with the two speeds that bound a scan."""
    import triton as package
    import triton.language as tl

    @package.jit
    def exponentials(out, rounds, SIZE: tl.constexpr):
        x = tl.arange(0, SIZE) * 0.0001
        for _ in range(rounds):
            x = tl.exp2(-x)
        tl.store(out + tl.program_id(0) * SIZE + tl.arange(0, SIZE), x)

    about = torch.cuda.get_device_properties(0)
    source = torch.ones(2**28, device="cuda")
    target = torch.empty_like(source)
    programs, rounds = about.multi_processor_count * 16, 2000
    out = torch.empty(programs * 1024, device="cuda")
    found = milliseconds(
        {"copy": lambda: target.copy_(source), "exp": lambda: exponentials[(programs,)](out, rounds, SIZE=1024)}, 5
    )
    return {
        "gpu": about.name,
        "multiprocessors": about.multi_processor_count,
        "memory_gb": about.total_memory / 2**30,
        "torch": torch.__version__,
        "triton": package.__version__,
        "mamba_ssm": mamba_ssm.unavailable() or "available",
        "bytes_per_second": 2 * source.numel() * source.element_size() / found["copy"] * 1000,
        "exponentials_per_second": programs * 1024 * rounds / found["exp"] * 1000,
    }


def correctness() -> list[dict[str, object]]:
    """Largest difference to the reference in float64, as a share of the largest value, of y and each gradient."""
    rows = []
    for batch, tokens, states, dtype in (
        (2, 1569, 16, torch.float32),
        (2, 1569, 16, torch.bfloat16),
        (1, 1575, 22, torch.float32),
        (1, 6369, 16, torch.float32),
    ):
        made = [triton.prepare(each) for each in scans(batch, tokens, states, dtype)]
        grads = [torch.randn_like(each.u) for each in made]
        every = Grads(*[True] * len(TENSORS))

        def run(made: list[ScanArgs] = made, grads: list[torch.Tensor] = grads, every: Grads = every) -> list:
            poison = [torch.full((2**26,), float("nan"), device="cuda") for _ in range(12)]
            del poison
            ys, kept = both_forward(triton, made, keep=True)
            found = both_backward(triton, grads, made, kept, [every, every])
            return [x for y, each in zip(ys, found, strict=True) for x in (y, *each)]

        first, second = run(), run()
        expected = []
        for each, grad in zip(made, grads, strict=True):
            exact = ScanArgs(*(x.double() for x in each[:8]), *each[8:])
            y, kept = load("reference").forward(exact, True)
            expected += [y, *load("reference").backward(grad.double(), exact, kept, every)]
        worst = [
            ((one.double() - other).abs().max() / other.abs().max()).item()
            for one, other in zip(first, expected, strict=True)
        ]
        rows.append(
            {
                **{"batch": batch, "tokens": tokens, "states": states, "dtype": str(dtype).removeprefix("torch.")},
                "worst_y": max(worst[0], worst[9]),
                "worst_gradient": max(*worst[1:9], *worst[10:]),
                "deterministic": all(torch.equal(one, other) for one, other in zip(first, second, strict=True)),
                "bound": 1e-4 if dtype == torch.float32 else 2e-2,
            }
        )
    return rows


def of_backend(backend: object, made: list[ScanArgs]) -> tuple[Callable, Callable]:
    """Forward and backward of both directions by a backend."""
    made = [backend.prepare(each) for each in made]
    _, kept = both_forward(backend, made, keep=True)
    grad = torch.randn_like(made[0].u)
    grad_z = torch.empty_like(made[0].z)
    return (
        partial(both_forward, backend, made, True),
        partial(both_backward, backend, [grad, grad], made, kept, [FROZEN, FROZEN], grad_z),
    )


def of_mamba_kernels(made: list[ScanArgs]) -> tuple[Callable, Callable]:
    """The kernels of mamba-ssm alone, both directions, what the forward keeps handed to the backward."""
    import selective_scan_cuda

    inputs = [mamba_ssm.kernel_inputs(mamba_ssm.prepare(each)) for each in made]
    grad = torch.randn_like(inputs[0][0])

    def forward() -> list:
        return [selective_scan_cuda.fwd(*each, True) for each in inputs]

    kept = forward()

    def backward() -> None:
        for each, (out, states, _) in zip(inputs, kept, strict=True):
            selective_scan_cuda.bwd(*each, grad, states, out, None, True, False)

    return forward, backward


def times(box: dict[str, object]) -> list[dict[str, object]]:
    """Milliseconds of both directions of one mixer, with the bounds."""
    rows = []
    for batch, tokens in SHAPES:
        made = scans(batch, tokens)
        contenders = {"triton": of_backend(triton, made)}
        if mamba_ssm.unavailable() is None:
            contenders["mamba_ssm"] = of_mamba_kernels(made)
        if batch == 1:
            contenders["chunked"] = of_backend(load("chunked"), made)
        elements = batch * tokens * CHANNELS
        for part, index, moved in (("forward", 0, 14), ("backward", 1, 22)):  # bytes: u, delta, y twice, z once; ...
            found = milliseconds({name: pair[index] for name, pair in contenders.items()}, 3 if batch == 1 else 10)
            rows.append(
                {
                    **{"batch": batch, "tokens": tokens, "part": part, "milliseconds": found},
                    "memory_bound": 1000 * elements * moved / box["bytes_per_second"],
                    "exponential_bound": 1000 * 2 * elements * STATES / box["exponentials_per_second"],
                }
            )
    return rows


def variants() -> list[dict[str, object]]:
    """Milliseconds with other constants, at 16 clips of 8 frames."""
    made, rows = scans(*SHAPES[0]), []
    for constants in VARIANTS:
        with patch.multiple(triton, **constants) if constants else patch.multiple(triton, EVERY=triton.EVERY):
            forward, backward = of_backend(triton, made)
            rows.append({"constants": constants, **milliseconds({"forward": forward, "backward": backward}, 5)})
    return rows


def step(method: str, clips: int, backend: str) -> dict[str, object]:
    """A training step without the optimiser's, in bfloat16: milliseconds and peak memory."""
    torch.manual_seed(0)
    if load(backend).unavailable():
        return {"method": method, "clips": clips, "backend": backend, "left_out": load(backend).unavailable()}
    with patch.dict(os.environ, {"SSP_SCAN_BACKEND": backend}):
        model = ssp.build_model("videomamba_middle", method, num_classes=51).cuda().train()
        video = torch.randn(clips, 3, 8, 224, 224, device="cuda")
        labels = torch.zeros(clips, dtype=torch.long, device="cuda")

        def work() -> None:
            model.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(model(video), labels)
            loss.backward()

        torch.cuda.reset_peak_memory_stats()
        found = milliseconds({"step": work}, 1 if backend == "chunked" else 5)["step"]
        peak = torch.cuda.max_memory_allocated() / 2**30
    return {"method": method, "clips": clips, "backend": backend, "milliseconds": found, "peak_gb": peak}


# ---- report ---------------------------------------------------------------------------------------------------------


def table(found: dict[str, object]) -> str:
    """The result as Markdown, whatever parts there are."""
    lines = ["# The scan on a GPU", ""]
    if box := found.get("machine"):
        lines += [
            f"{box['gpu']}, torch {box['torch']}, triton {box['triton']}; mamba-ssm: {box['mamba_ssm']}. A copy moves "
            f"{box['bytes_per_second'] / 1e12:.2f} TB/s; {box['exponentials_per_second'] / 1e12:.2f} trillion "
            "exponentials a second.",
        ]
    if rows := found.get("correctness"):
        lines += ["", "Against the reference in float64, share of the largest value:", ""]
        lines += ["| clips | tokens | N | dtype | y | worst gradient | bound | equal bits twice |", "|" + "---|" * 8]
        lines += [
            f"| {row['batch']} | {row['tokens']} | {row['states']} | {row['dtype']} | {row['worst_y']:.1e} | "
            f"{row['worst_gradient']:.1e} | {row['bound']:.0e} | {'yes' if row['deterministic'] else 'NO'} |"
            for row in rows
        ]
    if rows := found.get("times"):
        lines += [
            "",
            f"Both directions, {CHANNELS} channels, N = {STATES}, bfloat16, ms (times the Triton scan's):",
            "",
        ]
        lines += ["| clips | tokens | part | triton | mamba-ssm | chunked | memory | exponentials |", "|" + "---|" * 8]
        for row in rows:
            ours = row["milliseconds"]["triton"]
            others = [
                f"{value:.2f} ({value / ours:.1f} x)" if (value := row["milliseconds"].get(name)) else "-"
                for name in ("mamba_ssm", "chunked")
            ]
            bounds = [f"{row[name]:.2f} ({row[name] / ours:.0%})" for name in ("memory_bound", "exponential_bound")]
            cells = [row["batch"], row["tokens"], row["part"], f"{ours:.2f}", *others, *bounds]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    if rows := found.get("variants"):
        lines += ["", f"Constants, {SHAPES[0][0]} clips of {SHAPES[0][1]} tokens, ms:", ""]
        lines += ["| constants | forward | backward |", "|---|---|---|"]
        lines += [
            f"| {row['constants'] or 'as they ship'} | {row['forward']:.2f} | {row['backward']:.2f} |" for row in rows
        ]
    if rows := found.get("steps"):
        lines += ["", "A training step of VideoMamba-Middle, 8 x 224 x 224, bfloat16:", ""]
        lines += ["| method | clips | scan | ms | clips a second | peak memory, GB |", "|" + "---|" * 6]
        for row in rows:
            start = f"| {row['method']} | {row['clips']} | {row['backend']} |"
            if "left_out" in row:
                lines.append(f"{start} left out: {row['left_out']} | | |")
                continue
            speed = 1000 * row["clips"] / row["milliseconds"]
            lines.append(f"{start} {row['milliseconds']:.0f} | {speed:.1f} | {row['peak_gb']:.1f} |")
    for name, reason in found["failed"].items():
        lines += ["", f"{name} failed: {reason}"]
    if found["left_out"]:
        lines += ["", f"Out of time: {', '.join(found['left_out'])}."]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure part by part; 1 if a part failed or a result is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=280, help="no new part is begun after three quarters of it")
    args = parser.parse_args()
    if triton.unavailable() is not None or not torch.cuda.is_available():
        print(f"benchmarks/gpu.py needs an NVIDIA GPU: {triton.unavailable() or 'PyTorch sees no CUDA device'}")
        return 2
    begun = time.perf_counter()
    found: dict[str, object] = {"failed": {}, "left_out": []}
    parts: list[tuple[str, Callable[[], object]]] = [
        ("machine", machine),
        ("correctness", correctness),
        ("times", lambda: times(found["machine"])),
        *((f"step {' '.join(map(str, case))}", partial(step, *case)) for case in STEPS),
        ("variants", variants),
    ]
    RESULTS.mkdir(exist_ok=True)
    for name, part in parts:
        if time.perf_counter() - begun > 0.75 * args.seconds:
            found["left_out"].append(name)
            continue
        try:
            result = part()
            if name.startswith("step "):
                found.setdefault("steps", []).append(result)
            else:
                found[name] = result
        except Exception as error:
            traceback.print_exc()
            found["failed"][name] = f"{type(error).__name__}: {error}".splitlines()[0]
        torch.cuda.empty_cache()
        found["seconds"] = time.perf_counter() - begun
        (RESULTS / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    text = table(found)
    print(text)
    (RESULTS / "gpu.md").write_text(text)
    wrong = [
        row
        for row in found.get("correctness", [])
        if not (row["deterministic"] and max(row["worst_y"], row["worst_gradient"]) <= row["bound"])
    ]
    return 1 if wrong or found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
