"""Average the latest weights of a run that is still at a high learning rate."""

from shoestring.methods.averaging.average import average, decay_weights, recompute_batchnorm
from shoestring.methods.averaging.ema import Ema
from shoestring.methods.averaging.latest import Latest
from shoestring.methods.averaging.merge import merge
from shoestring.methods.averaging.sweep import sweep
from shoestring.methods.averaging.window import suspicious

__all__ = ["Ema", "Latest", "average", "decay_weights", "merge", "recompute_batchnorm", "suspicious", "sweep"]
