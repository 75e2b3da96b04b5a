"""What a sample costs: architectures, hardware, KV policies, and the eFLOPs they come to."""

from kinetics_serve.cost import paper
from kinetics_serve.cost.architecture import Architecture
from kinetics_serve.cost.cost import ZERO, Cost
from kinetics_serve.cost.families import UnsupportedArchitecture, read_config
from kinetics_serve.cost.hardware_profile import HardwareProfile
from kinetics_serve.cost.layers import AttentionLayers, IndexLayers, LatentLayers, StateLayers
from kinetics_serve.cost.load import load_architecture
from kinetics_serve.cost.meter import Meter
from kinetics_serve.cost.policy import DENSE, KVPolicy
from kinetics_serve.cost.price import Price
from kinetics_serve.cost.shared_prompt import SharedPrompt, Steps

__all__ = [
    "DENSE",
    "ZERO",
    "Architecture",
    "AttentionLayers",
    "Cost",
    "HardwareProfile",
    "IndexLayers",
    "KVPolicy",
    "LatentLayers",
    "Meter",
    "Price",
    "SharedPrompt",
    "StateLayers",
    "Steps",
    "UnsupportedArchitecture",
    "load_architecture",
    "paper",
    "read_config",
]
