"""Rows through graphs, by hand: batches, padding and log-likelihoods; the graphs themselves are in test_exporting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shoestring.methods.rationale import courses
from shoestring.methods.rationale.courses import batches, log_likelihoods, padded


def test_rows_are_filled_up():
    assert padded([[1, 2, 3], [4]], 9).tolist() == [[1, 2, 3], [4, 9, 9]]


def test_log_likelihoods_by_hand():
    logits = np.log(np.array([[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], [[0.1, 0.8, 0.1], [1e-9, 1e-9, 1.0]]], np.float32))
    found = log_likelihoods(logits, np.array([[0, 2], [1, 0]]), np.array([[1, 1], [1, 0]]))
    assert found == pytest.approx([math.log(0.5 * 0.6), math.log(0.8)], abs=1e-6)


def test_logits_of_any_size_are_no_matter():
    logits = np.array([[[3e4, 3e4, -3e4]]], np.float32)
    assert log_likelihoods(logits, np.array([[0]]), np.array([[1]])) == pytest.approx([math.log(0.5)])


def test_batches_hold_every_row_once_and_one_number_of_options(monkeypatch):
    assert [*batches([])] == []
    assert [*batches([(3, 2), (9, 1), (5, 2), (2, 1)])] == [[1, 3], [2, 0]]
    monkeypatch.setattr(courses, "_TOKENS", 10)
    assert [*batches([(3, 2), (9, 1), (5, 2), (2, 1), (5, 2)])] == [[1], [3], [2], [4], [0]]
