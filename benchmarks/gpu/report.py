"""The report: targets, and a table for each kind of row that there is; and whether a result is wrong."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

DRY = "**A dry run on the CPU at tiny sizes: the figures mean nothing.**"


class Target(NamedTuple):
    """What was aimed at, and how far it was found; None: not measured."""

    words: str
    found: float | None
    bound: float
    least: bool = False  # the bound is the least, not the most
    shown: str = "{:.2f}"

    @property
    def met(self) -> bool | None:
        """None: not measured."""
        if self.found is None:
            return None
        return self.found >= self.bound if self.least else self.found <= self.bound


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


def targets(found: dict) -> list[Target]:
    """All of them, from the rows that there are."""
    tables = found["tables"]
    both = {row["part"]: row["milliseconds"] for row in tables.get("times", [])[:2]}  # at 16 clips of 8 frames
    forward, backward = (both.get(part, {}) for part in ("forward", "backward"))
    total = {
        name: forward[name] + backward[name] for name in ("triton", "mamba_ssm") if name in forward and name in backward
    }
    steps = [row for row in tables.get("steps", []) if row["method"] == "ssp" and "left_out" not in row]
    ours = next((row for row in steps if row["scan"] == "triton"), {})
    theirs = next((row for row in steps if row["scan"].startswith("published")), {})
    fed = next(iter(tables.get("fed", [])), {})
    losses = {row["what"]: row["loss_difference"] for row in tables.get("loss", [])}
    return [
        Target("scan forward, ms, at most 0.9", forward.get("triton"), 0.9),
        Target("scan backward, ms, at most 2.5", backward.get("triton"), 2.5),
        Target(
            "mamba-ssm's kernels, times ours, at least 1.7",
            _ratio(total.get("mamba_ssm"), total.get("triton")),
            1.7,
            True,
        ),
        Target(
            "the published step of SSP, times ours, at least 2",
            _ratio(theirs.get("milliseconds"), ours.get("milliseconds")),
            *(2.0, True),
        ),
        Target(
            "memory of SSP's step, times the published, at most 0.5",
            _ratio(ours.get("peak_gb"), theirs.get("peak_gb")),
            0.5,
        ),
        Target("clips a second fed from the frame store, at least 85", fed.get("fed"), 85.0, True, "{:.1f}"),
        Target("first loss in float32, from the CPU's, at most 1e-5", losses.get("GPU float32"), 1e-5, shown="{:.1e}"),
        Target(
            "first loss in bfloat16, from the CPU's, at most 2e-3", losses.get("GPU bfloat16"), 2e-3, shown="{:.1e}"
        ),
    ]


def _table(heads: str, rows: Sequence[Sequence[object]]) -> list[str]:
    """Markdown; `heads` are between bars."""
    cells = [" | ".join("-" if cell is None else str(cell) for cell in row) for row in rows]
    return [f"| {heads} |", "|" + "---|" * (heads.count("|") + 1), *(f"| {row} |" for row in cells), ""]


def _number(value: float | None, shown: str = "{:.2f}") -> str | None:
    return None if value is None else shown.format(value)


def _machine(rows: list[dict]) -> list[str]:
    box = rows[0]
    packages = ", ".join(f"{name} {found or '(none)'}" for name, found in box["packages"].items())
    return [
        f"{box['gpu']} (compute capability {box['capability']}, {_number(box['memory_gb'], '{:.0f}')} GB), "
        f"{box['processors']} processors, Python {box['python']}, torch {box['torch']}, triton {box['triton']}; "
        f"mamba-ssm: {box['mamba_ssm']}. {packages}.",
        "",
        f"A copy moves {box['bytes_per_second'] / 1e12:.2f} TB/s; {box['exponentials_per_second'] / 1e12:.2f} trillion "
        f"exponentials a second; a product of bfloat16 matrices, {box['flops_per_second'] / 1e12:.0f} TFLOP/s.",
        "",
    ]


def _parity(rows: list[dict]) -> list[str]:
    return [
        "The scan, all gradients, against the reference in float64, as shares of the largest value:",
        "",
        *_table(
            "clips | tokens | N | dtype | y | worst gradient | bound | equal bits twice",
            [
                (
                    *(row[name] for name in ("batch", "tokens", "states", "dtype")),
                    *(f"{row[name]:.1e}" for name in ("worst_y", "worst_gradient", "bound")),
                    "yes" if row["deterministic"] else "NO",
                )
                for row in rows
            ],
        ),
    ]


def _conv(rows: list[dict]) -> list[str]:
    lines = []
    for row in rows:
        times = row["milliseconds"]
        lines.append(
            (
                *(row["batch"], row["tokens"], row["dtype"], "yes" if row["reverse"] else "no"),
                *(f"{row[name]:.1e}" for name in ("worst_y", "worst_gradient", "worst_pytorch", "bound")),
                "yes" if row["deterministic"] else "NO",
                *(
                    f"{times[f'triton_{part}']:.3f} ({times[f'pytorch_{part}'] / times[f'triton_{part}']:.1f} x)"
                    for part in ("forward", "backward")
                ),
            )
        )
    return [
        "The convolution with SiLU of one direction against float64, PyTorch's own beside it; ms (PyTorch's times it):",
        "",
        *_table(
            "clips | tokens | dtype | reverse | y | worst gradient | PyTorch's worst | bound | equal bits twice "
            "| forward | backward",
            lines,
        ),
    ]


def _times(rows: list[dict], box: dict) -> list[str]:
    lines = []
    for row in rows:
        ours = row["milliseconds"]["triton"]
        others = [
            f"{value:.2f} ({value / ours:.1f} x)" if (value := row["milliseconds"].get(name)) else None
            for name in ("mamba_ssm", "chunked")
        ]
        bounds = [1000 * row[name] / box[f"{name}_per_second"] if box else None for name in ("bytes", "exponentials")]
        shares = [None if bound is None else f"{bound:.2f} ({bound / ours:.0%})" for bound in bounds]
        lines.append((row["batch"], row["tokens"], row["part"], f"{ours:.2f}", *others, *shares))
    return [
        "Both directions of a mixer's scan, bfloat16, ms (times ours); bounds (share of ours that they are):",
        "",
        *_table("clips | tokens | part | triton | mamba-ssm | chunked | memory | exponentials", lines),
    ]


def _steps(rows: list[dict]) -> list[str]:
    return [
        "An optimizer step, bfloat16 (published: two scans with flips, PyTorch's layers, autograd holds it all):",
        "",
        *_table(
            "method | clips | scan | ms | clips a second | peak memory, GB",
            [
                (row["method"], row["clips"], row["scan"], f"left out: {row['left_out']}", None, None)
                if "left_out" in row
                else (
                    *(row["method"], row["clips"], row["scan"], f"{row['milliseconds']:.0f}"),
                    *(f"{row['clips_per_second']:.1f}", _number(row["peak_gb"], "{:.1f}")),
                )
                for row in rows
            ],
        ),
    ]


def _fed(rows: list[dict]) -> list[str]:
    return [
        "SSP by `fit` from a frame store, clips a second:",
        "",
        *_table(
            "clips a step | loader processes | processors | fed | the step alone | loaders alone | peak memory, GB",
            [
                (
                    *(row[name] for name in ("clips", "loaders", "processors")),
                    *(f"{row[name]:.1f}" for name in ("fed", "alone", "loaded")),
                    _number(row["peak_gb"], "{:.1f}"),
                )
                for row in rows
            ],
        ),
    ]


def _resumed(rows: list[dict]) -> list[str]:
    return [
        f"Killed in step {row['killed_in']} of {row['steps']}, went on with step {row['went_on_with']}. Beside a "
        f"training that nobody killed, the mean loss differs by {row['loss_difference']:.1e}, weights by at most "
        f"{row['weight_difference']:.1e} ({'equal bits' if row['equal'] else 'not equal in bits'})."
        for row in rows
    ] + [""]


def _loss(rows: list[dict]) -> list[str]:
    return [
        "First loss of SSP and its gradient (norm of the difference, as a share of the norm) beside the CPU's float32:",
        "",
        *_table(
            "what | scan | loss | difference | difference of gradients",
            [
                (
                    *(row["what"], row["scan"], f"{row['loss']:.6f}"),
                    *(f"{row[name]:.1e}" for name in ("loss_difference", "gradient_difference")),
                )
                for row in rows
            ],
        ),
    ]


def _tests(rows: list[dict]) -> list[str]:
    return [
        "Tests marked `gpu`:",
        "",
        *_table(
            "file | outcome",
            [
                (row["file"], ", ".join(f"{n} {word}" for word, n in row["counts"].items()) or "none ran")
                for row in rows
            ],
        ),
    ]


def _profile(rows: list[dict]) -> list[str]:
    row = rows[0]
    return [
        f"Forward and backward of SSP: {row['milliseconds']:.1f} ms in {row['launches']} launches, "
        f"{row['launches_per_block']:.0f} a block (embedding and head included).",
        "",
        *_table(
            "kernel | launches | ms | share",
            [
                (
                    each["name"][:70].replace("|", "/"),
                    each["launches"],
                    f"{each['milliseconds']:.2f}",
                    f"{each['share']:.0%}",
                )
                for each in row["kernels"]
            ],
        ),
    ]


def _variants(rows: list[dict]) -> list[str]:
    return [
        "Constants of the scan, at the first of the sizes above, ms:",
        "",
        *_table(
            "constants | forward | backward",
            [(row["constants"] or "as they ship", f"{row['forward']:.2f}", f"{row['backward']:.2f}") for row in rows],
        ),
    ]


TABLES: dict[str, Callable[[list[dict]], list[str]]] = {
    **{"parity": _parity, "conv": _conv, "steps": _steps, "fed": _fed, "resumed": _resumed, "loss": _loss},
    **{"tests": _tests, "profile": _profile, "variants": _variants},
}


def text(found: dict) -> str:
    """All of it as Markdown, whatever there is."""
    tables = found["tables"]
    box = next(iter(tables.get("machine", [])), {})
    lines = ["# The scan and training on a GPU", "", *([DRY, ""] if found["dry"] else [])]
    lines += _machine([box]) if box else []
    words = {True: "met", False: "NOT MET", None: "not measured"}
    lines += _table(
        "target (16 clips of 8 x 224, VideoMamba-Middle) | found | ",
        [
            (target.words, _number(target.found, target.shown), "dry" if found["dry"] else words[target.met])
            for target in targets(found)
        ],
    )
    for name, rows in tables.items():
        if rows and name != "machine":
            lines += _times(rows, box) if name == "times" else TABLES[name](rows)
    problems = [(name, stage["problem"]) for name, stage in found["stages"].items() if stage["problem"]]
    lines += [f"- {name}: {problem}" for name, problem in problems]
    lines += ["", f"{found['seconds']:.0f} s in all."]
    return "\n".join(lines) + "\n"


def wrong(found: dict) -> bool:
    """Whether a stage failed, a test did, or a result is out of its bound."""
    tables = found["tables"]
    out = any(
        not row["deterministic"] or max(row["worst_y"], row["worst_gradient"]) > row["bound"]
        for row in (*tables.get("parity", []), *tables.get("conv", []))
    )
    failed = any(row["exit_code"] not in (0, 5) for row in tables.get("tests", []))  # 5: none is marked
    problems = [stage["problem"] for stage in found["stages"].values() if stage["problem"]]
    return out or failed or not all(problem.startswith("left out") for problem in problems)
