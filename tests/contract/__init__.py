"""Tests of the contract: schemas, golden bytes, topics, and what an outsider can do with them alone."""
