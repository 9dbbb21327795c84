"""The nightly matrix, releases x providers: each leg is a run with reports of its own; one page for all."""
