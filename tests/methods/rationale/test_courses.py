"""Rows through graphs, by hand: padding and log-likelihoods; the graphs themselves are in test_exporting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shoestring.methods.rationale.courses import begun, log_likelihoods, padded


def test_rows_are_filled_up():
    assert padded([[1, 2, 3], [4]], 9).tolist() == [[1, 2, 3], [4, 9, 9]]


def test_log_likelihoods_by_hand():
    logits = np.log(np.array([[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], [[0.1, 0.8, 0.1], [1e-9, 1e-9, 1.0]]], np.float32))
    found = log_likelihoods(logits, np.array([[0, 2], [1, 0]]), np.array([[1, 1], [1, 0]]))
    assert found == pytest.approx([math.log(0.5 * 0.6), math.log(0.8)], abs=1e-6)


def test_logits_of_any_size_are_no_matter():
    logits = np.array([[[3e4, 3e4, -3e4]]], np.float32)
    assert log_likelihoods(logits, np.array([[0]]), np.array([[1]])) == pytest.approx([math.log(0.5)])


class Session:
    """A graph that gives back what it was fed."""

    def __init__(self):
        self.fed = []

    def get_inputs(self):
        return []

    def run(self, _, fed):
        self.fed.append(fed)
        return [np.zeros((2, 1, 3), np.float32)]


def test_an_encoders_rows_begin_together_and_a_decoders_end_together():
    encoder, decoder = Session(), Session()
    begun([encoder, Session()], [[1, 2, 3], [4]], 9, 0)
    begun([decoder], [[1, 2, 3], [4]], 9, 0)
    assert encoder.fed[0]["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert encoder.fed[0]["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert decoder.fed[0]["input_ids"].tolist() == [[1, 2, 3], [9, 9, 4]]
    assert decoder.fed[0]["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
