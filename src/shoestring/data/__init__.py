"""Text: where it comes from, how it is cut into tokens, and the stream of batches."""
