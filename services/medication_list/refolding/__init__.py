"""Folds one patient anew, for an operator or automatically, once parked records can be judged."""
