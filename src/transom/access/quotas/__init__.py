"""How much: quotas that hold, whatever fails. `docs/explanation/quotas.md` says how."""

from transom.access.quotas.accounts import Charged, Limit
from transom.access.quotas.budgets import BUDGETS, VECTOR, Amounts, Budget
from transom.access.quotas.ledger import DayUsage
from transom.access.quotas.quotas import Quotas
from transom.access.quotas.reservation import Reservation
from transom.access.quotas.settling import Settlement
from transom.access.quotas.standing import Standing

__all__ = [
    "BUDGETS",
    "VECTOR",
    "Amounts",
    "Budget",
    "Charged",
    "DayUsage",
    "Limit",
    "Quotas",
    "Reservation",
    "Settlement",
    "Standing",
]
