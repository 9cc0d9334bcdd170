"""Passes what outside systems put on their own topics through the same door as HTTP, and answers rejections with receipts."""
