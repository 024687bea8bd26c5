"""A teacher's answers: from an OpenAI-compatible endpoint or a local model, each kept the moment it arrives."""
