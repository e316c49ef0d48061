# The software with all that it needs: docker build -t ssp . ("Containers" in docs/cluster.md says how it is run).
# container/ssp.def is the same for apptainer; tests/unit/test_containers.py holds the two together.
FROM python:3.11-slim-bookworm

# A C compiler for the scan on CPUs and for Triton, libarchive for rar archives, git as records name the commit.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev git libarchive13 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/ssp
# Before the code, so that an edit of that does not install them again.
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt

COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && python -c "import sys; from ssp.scan.build import is_built; sys.exit(not is_built())" \
    && python -m compileall -q ssp baselines \
    && git config --system --add safe.directory /opt/ssp

# For any user, with or without a name and a home: nothing is written in /opt/ssp.
ENV HOME=/tmp LOGNAME=ssp
ENTRYPOINT ["snakemake"]
CMD ["--help"]
