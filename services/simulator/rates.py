"""How often real life is irregular in the town: one named share for each irregularity."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Shares from 0 to 1. They are made up to exercise every rule often enough, not measured."""

    # Of every pick-up at a pharmacy.
    race_for_claim: float = 0.02
    """Another pharmacy claims the same prescription in the same moment."""
    claim_aborted: float = 0.02
    claim_released: float = 0.001
    """An operator frees a claim, because the pharmacy cannot."""
    recall_during_dispensing: float = 0.004
    without_claim: float = 0.015
    """Handed out while the systems were down, and reported later."""
    partial: float = 0.03
    substituted: float = 0.25
    sold_out: float = 0.01
    dispatched: float = 0.05
    dispatch_withdrawn: float = 0.1
    """Of those dispatched."""
    multidose_claim_elsewhere: float = 0.05
    """Of the pick-ups of patients with multi-dose."""

    # Of every hand-out.
    reversed: float = 0.012
    returned: float = 0.006
    late_report: float = 0.03
    reversed_by_another: float = 0.0005

    # Of every prescription.
    overtaken: float = 0.004
    """Its first hand-out is in the log before it."""
    recalled: float = 0.03
    locked: float = 0.005
    by_hospital: float = 0.12
    staged: float = 0.01
    other_substance: float = 0.004
    """A renewal with another medicine in the same treatment."""

    # Of every year of a chronic treatment.
    changed: float = 0.15
    paused: float = 0.05
    discontinued: float = 0.08
    reinstated: float = 0.1
    """Of those discontinued."""
    prescribed_again: float = 0.1
    """Of those discontinued."""
    withdrawn: float = 0.01
    use_reported: float = 0.1
    renewal_requested: float = 0.6
    renewal_declined: float = 0.06
    """Of those requested."""

    # Of every event.
    duplicate: float = 0.01
    """The same event again, under the same event id."""
    conflicting: float = 0.001
    """The same natural id under a new event id, with other content."""
    unreadable: float = 0.001
    """A record that nobody can read, in between."""
    forged_reference: float = 0.0005
    """A request or registration about what does not exist."""

    death: float = 0.03
    """Of every year of a person over 75."""
    death_retracted: float = 0.05
    """Of those reported."""
