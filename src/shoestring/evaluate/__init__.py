"""Scores, and the report that lays them beside what they cost."""
