"""What a job took is what the operating system says it took, its short-lived children included."""

import subprocess
import sys
import time

import pytest

from ssp.records.usage import jobs, read_usage, write_usage
from tests.unit.made_records import make_config

JOB = """
import subprocess, sys, time
from pathlib import Path
from ssp.records.usage import write_usage

began = time.time()
work = "import time\\nheld = bytearray(150 << 20)\\nwhile time.process_time() < 0.5: pass"
subprocess.run([sys.executable, "-c", work], check=True)
time.sleep(0.3)
write_usage(Path(sys.argv[1]), began)
"""


@pytest.mark.slow
def test_processor_time_and_memory_of_children_count(tmp_path):
    path = tmp_path / "logs" / "job.tsv"
    began = time.time()
    subprocess.run([sys.executable, "-c", JOB, str(path)], check=True)
    whole, used = time.time() - began, read_usage(path)
    assert 0.5 <= used.cpu_time <= whole
    assert 0.8 <= used.s <= whole
    assert used.max_rss > 150


def test_columns_are_those_of_snakemake(tmp_path):
    write_usage(tmp_path / "job.tsv", time.time() - 61.5)
    head, line = (tmp_path / "job.tsv").read_text().splitlines()
    assert head.split("\t") == ["s", "max_rss", "cpu_time"]
    assert 61.5 <= float(line.split("\t")[0]) < 70


def test_jobs_of_a_config():
    found = jobs(make_config(datasets=("hmdb51", "ssv2"), methods=("ssp",), seeds=(3, 5)))
    assert found["train"] == [(d, "ssp", f"seed{s}") for d in ("hmdb51", "ssv2") for s in (3, 5)]
    assert found["frames"] == [("hmdb51", "0"), ("ssv2", "0")]
    assert not {"pretrain", "fetch_weights"} & set(found)  # the checkpoint is a local file
