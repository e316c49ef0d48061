"""Do the tables' claims hold? Two methods that are equally good, drawn again and again at the sizes of the test sets.

- "alarms": how often a nominal 5 % test tells them apart: by our tables (`ssp.tables.stats`), and by what others use:
  groups drawn anew with the trained models fixed (t over groups); t over seeds with the test set fixed; a percentile
  bootstrap of seeds and groups together; one t after Satterthwaite over both.
- "coverage": how often the 95 % interval of an accuracy holds the true one, the mean over seeds and test sets.
- "finds 80 %": the difference between two methods that our tables find in 80 % of the repeats.
- Settings: `tests/unit/tables/simulated.py`. Seeds' effects are normal, but in the rows that say otherwise.
- Then mean squares alone are drawn, for many mixes of the three variances; the largest rate of alarms among them.

Usage: python benchmarks/null_simulation.py [--repeats 1000]
Writes benchmarks/results/null_simulation.md and .json.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scan import machine, write
from scipy import stats as t_tests
from scipy.optimize import brentq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ssp.tables.crossed import Parts, average, decompose, tail
from ssp.tables.stats import ALPHA, Tally, differences, intervals
from tests.unit.tables.simulated import SIZES, Setting

SETTINGS = [
    Setting("Breakfast", (85, 85), 1.0),
    Setting("Breakfast", (93, 93), 0.8),
    Setting("HMDB51", (75, 75), 0.5),
    Setting("UCF101", (95, 95), 0.25),
    Setting("SSv2", (45, 45), 0.4),
    Setting("SSv2", (45, 45), 0.2),
    Setting("SSv2", (45, 45), 1.5),
    Setting("demo Breakfast", (60, 60), 1.5),
    Setting("demo HMDB51", (55, 55), 1.5),
    Setting("demo UCF101", (75, 75), 1.0),
    Setting("demo SSv2", (35, 35), 1.5),
    Setting("demo HMDB51", (55, 55), 1.5, "skewed"),
    Setting("demo HMDB51", (55, 55), 1.5, "heavy"),
    Setting("SSv2", (45, 45), 0.4, "skewed"),
]
SEEDS = (2, 3, 5)
UNLIKE = {
    "1 : 1 : 1 : 1": (1, 1, 1, 1),
    "1 : 0.3 : 0.1 : 0.1": (1, 0.3, 0.1, 0.1),
    "1 : 0.03 : 0.03 : 0.03": (1, 0.03, 0.03, 0.03),
    "1 : 0 : 0 : 0": (1, 0, 0, 0),
}
CHUNK = 100  # experiments held in memory at once
BOOTSTRAP = 300  # resamples; more change the rate by less than its own error


def others(first: Tally, second: Tally, rng: np.random.Generator) -> dict[str, bool]:
    """Whether other methods tell the two apart."""
    sums, sizes = first.sums() - second.sums(), first.sizes
    (s, g), by_seed = sums.shape, sums.sum(1)
    found = decompose(sums, sizes)
    of_groups, rest = sums.mean(0) - found.estimate * sizes, (s - 1) * (g - 1)
    between = (
        (of_groups**2).sum() * g / (g - 1) / sizes.sum() ** 2
    )  # variance of the mean over groups, seeds as they are
    both = max(found.seeds + between - found.noise, 1e-12)
    df = both**2 / (found.seeds**2 / (s - 1) + between**2 / (g - 1) + found.noise**2 / rest + 1e-30)
    estimate = abs(found.estimate)
    return {
        "models fixed": bool(estimate > t_tests.t.isf(ALPHA / 2, g - 1) * np.sqrt(between)),
        "t over seeds": bool(
            estimate > t_tests.t.isf(ALPHA / 2, s - 1) * by_seed.std(ddof=1) / sizes.sum() / np.sqrt(s)
        ),
        "bootstrap": _bootstrap(sums, sizes, rng),
        "Satterthwaite": bool(estimate > t_tests.t.isf(ALPHA / 2, max(df, 0.1)) * np.sqrt(both)),
    }


def _bootstrap(sums: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether the percentile interval of seeds and groups resampled together leaves out 0."""
    s, g = sums.shape
    rows = np.vstack([sums, sizes])
    key = (1000 ** np.arange(s + 1)) @ (rows - rows.min(axis=1, keepdims=True))  # like groups are interchangeable
    _, first, counts = np.unique(key, return_index=True, return_counts=True)
    of_groups = rng.multinomial(g, counts / g, size=BOOTSTRAP) @ rows[:, first].T
    of_seeds = rng.multinomial(s, np.full(s, 1 / s), size=BOOTSTRAP) / s
    low, high = np.quantile((of_groups[:, :s] * of_seeds).sum(1) / of_groups[:, s], [ALPHA / 2, 1 - ALPHA / 2])
    return bool(low > 0 or high < 0)


def measure(setting: Setting, seeds: int, repeats: int) -> dict:
    """One line of the table; rates in percent."""
    rng = np.random.default_rng([seeds, *f"{setting.data} {setting.shape}".encode(), round(100 * setting.seed_sd)])
    found, cells, claims = [], [], []
    for start in range(0, repeats, CHUNK):
        pairs = [setting.draw(rng, seeds) for _ in range(min(CHUNK, repeats - start))]
        found += differences([([first], [second]) for first, second in pairs])
        cells += intervals([[first] for first, _ in pairs])
        claims += [others(first, second, rng) for first, second in pairs]
    truth = setting.accuracies[0]
    halves = np.array([(one.high - one.low) / 2 for one in found])
    estimates = np.array([one.estimate for one in found])
    # Under a shift all estimates move and no interval changes its length: as good as methods that differ by it.
    finds = brentq(lambda shift: np.mean(np.abs(estimates + shift) > halves) - 0.8, 0, 100)
    return {
        "data": f"{setting.data}, {setting.accuracies[0]} %",
        "groups": len(SIZES[setting.data]),
        "seed sd": setting.seed_sd,
        "effects": setting.shape,
        "seeds": seeds,
        "ours": 100 * np.mean(np.abs(estimates) > halves),
        **(100 * pd.DataFrame(claims).mean()).to_dict(),
        "coverage": 100 * np.mean([one.low <= truth <= one.high for one in cells]),
        "finds 80 %": finds,
    }


def grid(seeds: int, groups: int, repeats: int) -> dict:
    """The largest rate of alarms of ours and of Satterthwaite's t, over mixes of the variances."""
    rng = np.random.default_rng([seeds, groups])
    worst = {"ours": 0.0, "Satterthwaite": 0.0}
    dfs = seeds - 1, groups - 1, (seeds - 1) * (groups - 1)
    for share in (0, 0.03, 0.1, 0.3, 0.6, 0.8, 0.9, 0.97, 1):
        for noise in (0, 0.1, 0.3, 0.6, 0.9, 1):
            by_seed, by_group = (1 - noise) * share, (1 - noise) * (1 - share)
            expected = by_seed + noise, by_group + noise, noise
            a, b, c = (v * rng.chisquare(df, repeats) / df for v, df in zip(expected, dfs, strict=True))
            away = np.abs(rng.standard_normal(repeats)) * np.sqrt(by_seed + by_group + noise)
            own = np.maximum(b, c) - np.minimum(a, c)
            parts = Parts(away, a, np.full(repeats, dfs[0]), own, np.full(repeats, dfs[1]), c)
            both = np.maximum(a + b - c, 1e-12)
            df = both**2 / (a**2 / dfs[0] + b**2 / dfs[1] + c**2 / dfs[2])
            claims = tail(away, parts) < ALPHA, away > t_tests.t.isf(ALPHA / 2, np.maximum(df, 0.1)) * np.sqrt(both)
            worst = {name: max(worst[name], 100 * hits.mean()) for name, hits in zip(worst, claims, strict=True)}
    return {"seeds": seeds, "groups": groups, **worst}


def average_grid(seeds: int, repeats: int) -> dict:
    """The same for an average over four data sets: the largest rate over how unlike these are, and over the mixes."""
    rng = np.random.default_rng(seeds)
    found = {}
    for name, sizes in UNLIKE.items():
        worst = 0.0
        for groups in ((8, 438, 707, 24_777), (438, 8, 707, 24_777)):
            for share in (0, 0.3, 0.7, 0.9, 0.99, 1):
                for noise in (0, 0.1, 0.5):
                    parts, variance = [], 0.0
                    for size, g in zip(sizes, groups, strict=True):
                        dfs = seeds - 1, g - 1, (seeds - 1) * (g - 1)
                        by_seed, by_group = size * (1 - noise) * share, size * (1 - noise) * (1 - share)
                        expected = by_seed + size * noise, by_group + size * noise, size * noise
                        a, b, c = (v * rng.chisquare(df, repeats) / df for v, df in zip(expected, dfs, strict=True))
                        own = np.maximum(b, c) - np.minimum(a, c)
                        known = (np.full(repeats, float(df)) for df in dfs[:2])
                        parts.append(Parts(np.zeros(repeats), a, next(known), own, next(known), c))
                        variance += by_seed + by_group + size * noise
                    away = rng.standard_normal(repeats) * np.sqrt(variance) / len(sizes)
                    worst = max(worst, 100 * float((tail(away, average(parts)) < ALPHA).mean()))
        found[name] = worst
    return {"seeds": seeds, **found}


def report(lines: list[dict], grids: list[dict], averages: list[dict], repeats: int) -> str:
    """The tables, in Markdown."""
    columns = ["ours", "models fixed", "t over seeds", "bootstrap", "Satterthwaite", "coverage"]
    text = [f"False alarms at a nominal 5 %, coverage of 95 % intervals; {repeats:,} repeats a line.", ""]
    text += ["| test set | groups | seed sd | seeds | " + " | ".join(columns) + " | finds 80 % |"]
    text += ["| --- | " + " | ".join(["---:"] * (len(columns) + 4)) + " |"]
    for line in lines:
        name = line["data"] + ("" if line["effects"] == "normal" else f", {line['effects']} seeds")
        rates = " | ".join(f"{line[column]:.1f}" for column in columns)
        about = f"{name} | {line['groups']:,} | {line['seed sd']} | {line['seeds']}"
        text += [f"| {about} | {rates} | {line['finds 80 %']:.1f} |"]
    text += ["", "Largest rate of false alarms over mixes of the variances, effects normal:", ""]
    text += ["| seeds | groups | ours | Satterthwaite |", "| ---: | ---: | ---: | ---: |"]
    text += [f"| {g['seeds']} | {g['groups']:,} | {g['ours']:.1f} | {g['Satterthwaite']:.1f} |" for g in grids]
    text += ["", "The same of ours, in the average over four data sets of such relative variances:", ""]
    text += ["| seeds | " + " | ".join(UNLIKE) + " |", "| ---: |" + " ---: |" * len(UNLIKE)]
    text += [f"| {g['seeds']} | " + " | ".join(f"{g[name]:.1f}" for name in UNLIKE) + " |" for g in averages]
    return "\n".join(text) + "\n"


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    about, start = machine(1, "cpu"), time.process_time()
    lines = []
    for setting in SETTINGS:
        for seeds in SEEDS:
            lines.append(measure(setting, seeds, repeats))
            print(lines[-1], file=sys.stderr, flush=True)
    grids = [grid(seeds, groups, 10 * repeats) for seeds in (*SEEDS, 10) for groups in (8, 400)]
    averages = [average_grid(seeds, 10 * repeats) for seeds in SEEDS]
    about |= {"processor_s": round(time.process_time() - start)}
    found = about | {"repeats": repeats, "settings": lines, "grid": grids, "averages": averages}
    write("null_simulation", found, report(lines, grids, averages, repeats))


if __name__ == "__main__":
    main()
