"""Quotas: the ledger, the counters that sum it up, and the leases that gateways hold."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Index, String, Table, Text

from transom.storage.tables.base import UtcTime, metadata

# The truth about what was used: one row for each request that ended, never changed afterwards. Which
# accounts it charges, and in which windows, follows from its columns.
quota_ledger = Table(
    "quota_ledger",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("key_id", String(64)),
    Column("person_id", String(64)),
    Column("project_id", String(64)),
    Column("grant_id", String(64)),
    Column("tier", Text),
    Column("model", Text),
    # When it was reserved; decides the windows.
    Column("reserved", UtcTime, nullable=False),
    Column("closed", UtcTime, nullable=False),
    # settled, released, or expired: its hold had run out when it was settled.
    Column("outcome", String(8), nullable=False),
    # Whether less was charged than was used, because no more was held, or left.
    Column("short", Boolean, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("engine_us", BigInteger, nullable=False),
    Column("internals_bytes", BigInteger, nullable=False),
    Column("released_rank", BigInteger, nullable=False),
    Index(None, "key_id", "reserved"),
    Index(None, "person_id", "reserved"),
    Index(None, "project_id", "reserved"),
    Index(None, "grant_id", "reserved"),
    Index(None, "reserved"),
)

# A cache: `used` is a sum over the ledger, `held` one over the leases. A row that is missing is made from
# them when it is needed, so nothing is lost with it.
quota_counters = Table(
    "quota_counters",
    metadata,
    Column("account", Text, primary_key=True),
    Column("budget", String(24), primary_key=True),
    # Microseconds since 1970; 0 where the budget has no windows.
    Column("window_start", BigInteger, primary_key=True, autoincrement=False),
    Column("used", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    # The limit under which something was granted last. Lowering a limit changes no row.
    Column("ceiling", BigInteger, nullable=False),
    CheckConstraint("used >= 0", name="ck_quota_counters_used"),
    CheckConstraint("held >= 0", name="ck_quota_counters_held"),
    CheckConstraint("used + held <= ceiling", name="ck_quota_counters_ceiling"),
)

quota_gateways = Table(
    "quota_gateways",
    metadata,
    Column("id", String(22), primary_key=True),
    # Counts up while the gateway lives. A count and not a time, so that clocks need not agree.
    Column("beat", BigInteger, nullable=False),
    Column("started", UtcTime, nullable=False),
)

quota_leases = Table(
    "quota_leases",
    metadata,
    Column("gateway", ForeignKey(quota_gateways.c.id), primary_key=True),
    Column("account", Text, primary_key=True),
    Column("budget", String(24), primary_key=True),
    Column("window_start", BigInteger, primary_key=True, autoincrement=False),
    Column("amount", BigInteger, nullable=False),
    CheckConstraint("amount >= 0", name="ck_quota_leases_amount"),
    Index(None, "account"),
)
