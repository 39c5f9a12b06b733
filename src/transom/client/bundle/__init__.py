"""Bundles: records and all that proves them in one file, which verifies wherever it is unzipped."""
