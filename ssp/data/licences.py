"""Licences of published data sets, as far as docs/data.md knows them."""

from ssp.config import Dataset

LICENCES = {
    "breakfast": "CC BY 4.0, as its authors' own release says",
    "ssv2": "a licence of its own, which whoever downloads it has to accept",
}
"""By source."""


def licence(dataset: Dataset) -> str:
    """What is known of the licence of published videos, and the page that says more."""
    known = LICENCES.get(dataset.source, "licence unknown here; the page of its authors says it")
    return known + (f" ({dataset.licence_page})" if dataset.licence_page else "")
