"""Is the demo trained long enough? Linear probe and VPT with two more epochs, beside the demo's own table.

- The demo must be there (`make demo`). Its data and its backbone are taken; both rows are searched and trained anew,
  under a config that differs from config/demo.yaml in the epochs of the recipe alone.
- What must not change is which of the two is ahead, in the average or on a data set, where an interval leaves out zero
  at either length. Where neither does, there is no order to depend on the epochs; the numbers are given all the same.

Usage: python benchmarks/demo_convergence.py [--more 2] [--cores 2]
Writes benchmarks/results/demo_convergence.md and .json; about five minutes. Exit code 1 where an order has changed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml
from scan import machine, write

from ssp.config import load_config, parse_config
from ssp.tables.cells import collect_cells
from ssp.tables.claims import difference_rows, table_columns, tallies, uncertainty_rows

ROOT = Path(__file__).resolve().parent.parent
ROWS = ("linear", "vpt")


def longer(more: int) -> dict:
    """The demo's config for both rows, with more epochs and the backbone that the demo pre-trained."""
    plain = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    plain |= {"name": "demo-longer", "reference": "vpt", "explained": None}
    plain["methods"] = {row: plain["methods"][row] for row in ROWS}
    for dataset in plain["datasets"].values():
        dataset["recipe"] = dataset["recipe"] | {"epochs": dataset["recipe"]["epochs"] + more}
    for name, checkpoint in plain["backbone"]["checkpoints"].items():
        del checkpoint["pretrain"]
        checkpoint["local"] = f"results/demo/backbone/{name}.safetensors"
    return plain


def compared(config_file: Path) -> pd.DataFrame:
    """Both rows and VPT minus linear, by data set and in the average, from the records of a config."""
    plain = load_config(config_file).model_dump(mode="json")
    methods = {row: plain["methods"][row] for row in ROWS}
    config = parse_config(plain | {"methods": methods, "reference": "vpt", "explained": None}, str(config_file))
    cells = collect_cells(config)
    columns, counted = table_columns(config, cells), tallies(cells)
    accuracy = pd.DataFrame(uncertainty_rows(config, columns, cells, counted)).set_index(["dataset", "method"])
    found = pd.DataFrame(difference_rows(config, columns, counted)).set_index("dataset")
    for row in ROWS:
        found[row] = [accuracy.loc[(name, row), "mean"] for name in found.index]
    return found[["linear", "vpt", "difference", "low", "high"]]


def main() -> None:
    """Train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--more", type=int, default=2, help="epochs")
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    if not (ROOT / "results/demo/tables/main.csv").is_file():
        sys.exit("Error: results/demo: no finished demo; run `make demo` first")
    about, file = machine(args.cores, "wall"), ROOT / "results/demo-longer.yaml"
    file.write_text(yaml.safe_dump(longer(args.more), sort_keys=False))
    target = "results/demo-longer/tables/main.csv"
    command = [sys.executable, "-m", "snakemake", target, "--cores", str(args.cores), "--configfile", str(file)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    usual, more = compared(ROOT / "results/demo/config.yaml"), compared(ROOT / "results/demo-longer/config.yaml")
    epochs = next(iter(load_config(ROOT / "config/demo.yaml").datasets.values())).recipe.epochs

    def told(row: pd.Series) -> bool:
        return row["low"] > 0 or row["high"] < 0

    changed = [
        name
        for name in usual.index
        if usual.loc[name, "difference"] * more.loc[name, "difference"] < 0
        and (told(usual.loc[name]) or told(more.loc[name]))
    ]
    lines = []
    for name in usual.index:
        for label, row in ((epochs, usual.loc[name]), (epochs + args.more, more.loc[name])):
            lines.append(
                f"| {name} | {label} | {row['linear']:.1f} | {row['vpt']:.1f} | {row['difference']:+.1f} | "
                f"{row['low']:+.1f} to {row['high']:+.1f} |"
            )
    text = f"""# The demo with {args.more} more epochs: linear probe and VPT

Top-1 in percent over the demo's seeds, VPT minus linear with its 95 % interval. {about["processor"]}.

| data set | epochs | linear | VPT | difference | interval |
| --- | ---: | ---: | ---: | ---: | --- |
{chr(10).join(lines)}

An order that an interval tells at either length and that has changed: {", ".join(changed) or "none"}.
"""
    found = {"machine": about, "epochs": epochs, "more": args.more, "changed": changed}
    found |= {"demo": usual.reset_index().to_dict("records"), "longer": more.reset_index().to_dict("records")}
    write("demo_convergence", found, text)
    sys.exit(bool(changed))


if __name__ == "__main__":
    main()
