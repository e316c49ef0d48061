"""Archives > videos > manifest > frame store. Own videos begin with the manifest, and are read where they are.

- The unpacked videos are many thousand files: the list of them, written last, stands for the folder.
- Empty `.done` files stand for the archives, so that these may be removed once unpacked, and so that a broken download
  is continued (declared outputs of an interrupted job are deleted before it starts again).
"""


rule generate:
    input:
        anew=anew(paths.generated("{dataset}"), lambda wildcards: asked.unpacked(wildcards.dataset)),
    output:
        touch(paths.generated("{dataset}")),
    log:
        paths.log("generate", "{dataset}"),
    conda:
        ENVIRONMENT
    threads: cfg.compute.data.threads
    resources:
        **asked_for("data", "generate", "{dataset}"),
    params:
        config=lambda wildcards: slice_lines(cfg.archive_slice(wildcards.dataset)),
    message:
        "Generating the archives of demo data set {wildcards.dataset}"
    shell:
        ssp("data generate --dataset {wildcards.dataset}")


# On a cluster, compute nodes often have no way out: downloads run where snakemake does. The command itself tries again
# what may pass; a licence or a wrong checksum does not.
rule fetch:
    input:
        lambda wildcards: paths.generated(wildcards.dataset) if cfg.archived[wildcards.dataset].generate else [],
        anew=anew(paths.fetched("{dataset}"), lambda wildcards: asked.unpacked(wildcards.dataset)),
    output:
        touch(paths.fetched("{dataset}")),
    log:
        paths.log("fetch", "{dataset}"),
    retries: 0
    localrule: True
    conda:
        ENVIRONMENT
    params:
        config=lambda wildcards: slice_lines(cfg.archive_slice(wildcards.dataset)),
    message:
        "Fetching and verifying the archives of {wildcards.dataset}"
    shell:
        ssp("data fetch --dataset {wildcards.dataset}")


rule unpack:
    input:
        paths.fetched("{dataset}"),
        anew=anew(paths.unpacked("{dataset}"), lambda wildcards: asked.unpacked(wildcards.dataset)),
    output:
        paths.unpacked("{dataset}"),
    log:
        paths.log("unpack", "{dataset}"),
    conda:
        ENVIRONMENT
    threads: cfg.compute.data.threads
    resources:
        **asked_for("data", "unpack", "{dataset}"),
    params:
        config=lambda wildcards: slice_lines(cfg.archive_slice(wildcards.dataset)),
    message:
        "Unpacking {wildcards.dataset}"
    shell:
        ssp("data unpack --dataset {wildcards.dataset}")


rule manifest:
    input:
        listed_files,
        anew=anew(paths.manifest("{dataset}"), lambda wildcards: asked.manifest(wildcards.dataset)),
    output:
        paths.manifest("{dataset}"),
    log:
        paths.log("manifest", "{dataset}"),
    conda:
        ENVIRONMENT
    threads: cfg.compute.data.threads
    resources:
        **asked_for("data", "manifest", "{dataset}"),
    params:
        config=lambda wildcards: slice_lines(cfg.manifest_slice(wildcards.dataset)),
    message:
        "Listing the videos of {wildcards.dataset}: labels, splits, groups, checksums"
    shell:
        ssp("data manifest --dataset {wildcards.dataset}")


rule frames:
    input:
        paths.manifest("{dataset}"),
        anew=anew(
            paths.shard("{dataset}", "{shard}"), lambda wildcards: asked.frames(wildcards.dataset, wildcards.shard)
        ),
    output:
        shard=paths.shard("{dataset}", "{shard}"),
        report=paths.shard_report("{dataset}", "{shard}"),
    log:
        paths.log("frames", "{dataset}", "{shard}"),
    conda:
        ENVIRONMENT
    threads: cfg.compute.data.threads
    resources:
        **asked_for("data", "frames", "{dataset}", "{shard}"),
    params:
        config=lambda wildcards: slice_lines(cfg.frames_slice(wildcards.dataset)),
    message:
        "Decoding shard {wildcards.shard} of {wildcards.dataset}"
    shell:
        ssp("data frames --dataset {wildcards.dataset} --shard {wildcards.shard}")
