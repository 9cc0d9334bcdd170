"""The real platform under faults, its clients' record of what they were told, and a checker that decides what was broken."""
