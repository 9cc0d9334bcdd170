"""Tests of one part at a time, without broker and Redis."""
