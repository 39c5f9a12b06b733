"""Quotas: counters, holds and the ledger."""
