"""Learn which skills help which, and draw the data accordingly while training."""

from shoestring.methods.mixing.aioli import Aioli
from shoestring.methods.mixing.clusters import cluster, recovery
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.learn import learn_graph
from shoestring.methods.mixing.mixture import Mixture
from shoestring.methods.mixing.skillit import SkillIt, Switches
from shoestring.methods.mixing.usefulness import usefulness
from shoestring.methods.mixing.weights import skill_weights

__all__ = ["Aioli", "Graph", "Mixture", "SkillIt", "Switches", "cluster", "learn_graph"]
__all__ += ["recovery", "skill_weights", "usefulness"]
