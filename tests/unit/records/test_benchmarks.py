"""The jobs of a config, and what Snakemake measured of them."""

from ssp.records.benchmarks import jobs as jobs_of
from ssp.records.benchmarks import read_benchmark
from tests.unit.made_records import make_config
from tests.unit.made_report import write_benchmark


def test_benchmark_of_a_job_too_short_to_measure(tmp_path):
    write_benchmark(tmp_path / "job.tsv", 0.2, memory="NA", cpu="NA")
    assert read_benchmark(tmp_path / "job.tsv") == (0.2, None, None)


def test_jobs_of_a_config():
    jobs = jobs_of(make_config(datasets=("hmdb51", "ssv2"), methods=("ssp",), seeds=(3, 5)))
    assert jobs["train"] == [(d, "ssp", f"seed{s}") for d in ("hmdb51", "ssv2") for s in (3, 5)]
    assert jobs["frames"] == [("hmdb51", "0"), ("ssv2", "0")]
    assert not {"pretrain", "fetch_weights"} & set(jobs)  # the checkpoint is a local file
