"""Predict tokens in random orders, with two streams and a memory."""

from shoestring.methods.permutation.collator import PermutationCollator
from shoestring.methods.permutation.convert import from_transformers, to_transformers
from shoestring.methods.permutation.heads import with_head
from shoestring.methods.permutation.layer_decay import parameter_groups
from shoestring.methods.permutation.memory import Memory
from shoestring.methods.permutation.objectives import Pretraining
from shoestring.methods.permutation.scoring import span_log_prob
from shoestring.methods.permutation.stream import PermutationBatches

__all__ = ["Memory", "PermutationBatches", "PermutationCollator", "Pretraining", "from_transformers"]
__all__ += ["parameter_groups", "span_log_prob", "to_transformers", "with_head"]
