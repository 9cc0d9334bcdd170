"""Policy: the named values that a ministry or a vendor may want changed, each with its reason."""

from decimal import Decimal

from services.medication_list.fold.calendar import HOUR_MS

PERIOD_TOLERANCE = Decimal("0.1")
"""Packages rarely hold exactly what was prescribed (98 for 100). Up to this share short, the pharmacist's word decides
whether the period is used up; and only more than this share over the total is worth a flag."""

DISPATCH_LAPSES_DAYS = 30
"""A dispatch that the patient forgot must not keep every other pharmacy from helping for ever."""

READ_TOKEN_LIVES_MS = 4 * HOUR_MS
"""Who confirms a list must have read it in the same part of a working day."""

VISIBLE_AFTER_END_DAYS = 90
"""A treatment that ended stays on the list so long: what was taken last month still matters to the next prescriber."""
