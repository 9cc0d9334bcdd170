"""The state of log and view seen from outside, for metrics and operators."""
