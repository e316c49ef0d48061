"""The selective scan side by side in one run: C kernel, chunked PyTorch, mambapy's parallel scan.

- Forward plus backward for u, delta, B, C and z, as tuning a frozen backbone needs it; every contender computes all of
  it (softplus, scan, skip, gate), from channel-last storage, as the mixer hands it over.
- Memory is kept from call to call, as jobs have it: else clearing pages for each output would be a third of the kernel.
- Rounds go through all contenders in turn, so that a busy machine is busy for all. Medians, and the fastest round.
- Bounds from the same run: exponentials per second of the kernel's own exp on cached values (a scan needs
  B * L * D * N of them forward), and memory bandwidth of a large copy.

- On a machine that others use at the same time, wall time of two threads says more about them than about us:
  `--threads 1 --clock cpu` then counts the processor time that one thread uses.

Usage: python benchmarks/scan.py [--rounds 9] [--threads 2] [--clock wall|cpu] [--sizes 384 1152] [--skip mambapy]
Writes benchmarks/results/scan.md and scan.json.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ssp.processes import keep_freed_memory
from ssp.scan import available_backends, cpu, selective_scan

RESULTS = Path(__file__).resolve().parent / "results"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
TOKENS, STATES = 1569, 16


def machine(threads: int, clock: str) -> dict:
    """Name what the figures depend on."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if (info.exists())
        else [platform.processor()]
    )
    return {
        "processor": names[0],
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "threads": threads,
        "clock": clock,
        "scan_level": cpu.level() if "cpu" in available_backends() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def bandwidth() -> float:
    """Bytes per second read plus written by a copy far larger than the caches, best of 5."""
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    best = min(_seconds(lambda: target.copy_(source)) for _ in range(5))
    return 2 * source.numel() * source.element_size() / best


def torch_exp_rate() -> float:
    """Exponentials per second of torch.exp on cached values, one call for all threads, best of 5."""
    values = torch.full((2**17,), -0.5)
    out = torch.empty_like(values)
    return values.numel() / min(_seconds(lambda: torch.exp(values, out=out)) for _ in range(50))


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def inputs(channels: int, tokens: int = TOKENS, batch: int = 1) -> list[torch.Tensor]:
    """Inputs of a typical size, channel-last; those that get no gradient are A, D and the bias."""
    generator = torch.Generator().manual_seed(0)

    def rows(count: int) -> torch.Tensor:
        return torch.randn(batch, tokens, count, generator=generator).transpose(1, 2)

    A = -torch.arange(1.0, STATES + 1).repeat(channels, 1)
    tensors = [rows(channels), rows(channels) - 2, A, rows(STATES), rows(STATES), torch.ones(channels), rows(channels)]
    for index in (0, 1, 3, 4, 6):
        tensors[index] = tensors[index].detach().requires_grad_()
    return [*tensors, torch.zeros(channels)]


def mambapy_scan(u, delta, A, B, C, D, z, bias):
    """The same operation around mambapy's parallel scan."""
    from mambapy.pscan import pscan

    u, delta, B, C, z = (x.transpose(1, 2) for x in (u, delta, B, C, z))
    steps = F.softplus(delta + bias)
    states = pscan(torch.exp(steps.unsqueeze(-1) * A), steps.unsqueeze(-1) * B.unsqueeze(2) * u.unsqueeze(-1))
    y = (states @ C.unsqueeze(-1)).squeeze(3) + D * u
    return (y * F.silu(z)).transpose(1, 2)


def compare(channels: int, rounds: int, skip: list[str], clock: str) -> dict[str, dict[str, float]]:
    """Milliseconds forward, backward and both, per contender: median and fastest."""
    contenders = {
        name: (lambda *tensors, name=name: selective_scan(*tensors, backend=name))
        for name in available_backends()
        if name in ("cpu", "chunked") and name not in skip
    }
    if "mambapy" not in skip:
        contenders["mambapy"] = mambapy_scan
    tensors = inputs(channels)
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    grad = torch.randn(1, TOKENS, channels).transpose(1, 2)
    times, now = {name: [] for name in contenders}, CLOCKS[clock]
    for turn in range(rounds + 1):
        for name, scan in contenders.items():
            for _ in range(1 if name == "mambapy" else 3):  # the quick ones more often
                start = now()
                y = scan(*tensors)
                middle = now()
                torch.autograd.grad(y, wanted, grad)
                end = now()
                if turn:
                    times[name].append((middle - start, end - middle, end - start))
    return {
        name: {
            f"{part}_{kind}_ms": 1000 * pick(column)
            for part, column in zip(("forward", "backward", "both"), zip(*rows, strict=True), strict=True)
            for kind, pick in (("median", statistics.median), ("fastest", min))
        }
        for name, rows in times.items()
    }


def alone(channels: int, rounds: int, clock: str) -> dict[str, float]:
    """Milliseconds of the C kernel's forward that keeps nothing for a backward, call after call: median and fastest."""
    tensors, now, times = inputs(channels), CLOCKS[clock], []
    with torch.no_grad():
        for _ in range(8 * (rounds + 1)):
            start = now()
            selective_scan(*tensors, backend="cpu")
            times.append(now() - start)
    return {kind: 1000 * pick(times[8:]) for kind, pick in (("median", statistics.median), ("fastest", min))}


def table(found: dict) -> str:
    """The result as Markdown."""
    box = found["machine"]
    lines = [
        "# Selective scan, forward and backward",
        "",
        f"B = 1, L = {TOKENS}, N = {STATES}, float32, gradients of u, delta, B, C and z. {box['processor']}, "
        f"{box['threads']} threads on {box['cores']} cores, x86-64 level {box['scan_level']}, torch {box['torch']}; "
        f"{box['clock']} time; load average before: {box['load_before']}.",
        f"Same run: {found['exp_per_second'] / 1e9:.1f} billion exponentials a second (the kernel's exp, cached, "
        f"{box['threads']} threads; torch.exp: {found['torch_exp_per_second'] / 1e9:.1f}), "
        f"{found['bandwidth'] / 1e9:.1f} GB/s copy.",
        "",
        "| D | contender | forward ms | backward ms | both ms | both, fastest | times the C kernel: median (fastest) |",
        "|---|---|---|---|---|---|---|",
    ]
    for channels, rows in found["scan"].items():
        base = rows.get("cpu")
        for name, row in rows.items():
            ratio = (
                "-"
                if base is None
                else " ".join(
                    f"{text % (row[f'both_{kind}_ms'] / base[f'both_{kind}_ms'])}"
                    for kind, text in (("median", "%.1f"), ("fastest", "(%.1f)"))
                )
            )
            lines.append(
                f"| {channels} | {name} | {row['forward_median_ms']:.2f} | {row['backward_median_ms']:.2f} | "
                f"{row['both_median_ms']:.2f} | {row['both_fastest_ms']:.2f} | {ratio} |"
            )
    lines += [
        "",
        "Of the bound, a forward in training (it keeps states, and other contenders' tensors have been in the caches) "
        "and one that keeps nothing, call after call:",
        "",
        "| D | exp bound, ms | in training: median (fastest) | alone, ms | alone: median (fastest) |",
        "|---|---|---|---|---|",
    ]
    for channels, rows in found["scan"].items():
        if "cpu" in rows:
            bound, by_itself = (
                1000 * TOKENS * int(channels) * STATES / found["exp_per_second"],
                found["alone"][channels],
            )
            shares = [
                f"{bound / of['median']:.0%} ({bound / of['fastest']:.0%})"
                for of in ({kind: rows["cpu"][f"forward_{kind}_ms"] for kind in by_itself}, by_itself)
            ]
            lines.append(f"| {channels} | {bound:.2f} | {shares[0]} | {by_itself['median']:.2f} | {shares[1]} |")
    return "\n".join(lines) + "\n"


def write(name: str, found: dict, text: str) -> None:
    """Print the table and keep it beside its figures."""
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--sizes", type=int, nargs="+", default=[384, 1152], help="channels D")
    parser.add_argument("--skip", nargs="*", default=[], help="contenders to leave out")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    try:
        import mambapy  # noqa: F401
    except ImportError:
        print("mambapy is not installed (requirements-dev.txt): left out")
        args.skip.append("mambapy")
    found = {
        "machine": machine(args.threads, args.clock),
        "exp_per_second": args.threads * cpu.exp_rate() if "cpu" in available_backends() else float("nan"),
        "torch_exp_per_second": torch_exp_rate(),
        "bandwidth": bandwidth(),
        "alone": {str(channels): alone(channels, args.rounds, args.clock) for channels in args.sizes},
        "scan": {str(channels): compare(channels, args.rounds, args.skip, args.clock) for channels in args.sizes},
    }
    write("scan", found, table(found))


if __name__ == "__main__":
    main()
