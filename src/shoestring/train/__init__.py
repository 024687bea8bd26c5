"""The one training loop and what hangs on it."""
