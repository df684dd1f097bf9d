"""What is counted of deeds."""

from typing import Final

from prometheus_client import Counter

PDFS_CHECKED: Final = Counter(
    "partner_api_storage_checked_pdfs_total",
    "PDFs read back from the storage, by whether they were right, missing or another one.",
    ["outcome"],
)
