"""Builds a second view beside the live one, compares the two, and switches: for the operator on duty."""
