"""The shipped trunk with a newborn painter: it reads, answers and thinks as the shipped model does, and draws noise."""

from dataclasses import replace
from pathlib import Path

import torch

from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.network import Network
from unigap.models.tiny.painter import NUM_QUERIES, Kind, Painter, PainterConfig


def painted(kind: Kind) -> TinyModel:
    shipped = TinyModel.from_pretrained()
    torch.manual_seed(0)
    network, size = shipped.network, shipped.network.config
    if kind == "query":
        size = replace(size, vocab_size=size.vocab_size + NUM_QUERIES)
        network = Network(size)
        weights = dict(network.state_dict())
        for name, value in shipped.network.state_dict().items():
            weights[name] = torch.cat((value, weights[name][len(value) :])) if value.ndim else value
        network.load_state_dict(weights)
    layers = size.num_layers if kind == "flow" else 1
    config = PainterConfig(kind=kind, width=size.width, num_layers=layers, num_heads=size.num_heads, mlp_ratio=1)
    card = {"trained_on": shipped.trained_on, "born": f"{kind} painter on the shipped trunk"}
    painter = Painter(config, size)
    return TinyModel(network, shipped.tokenizer, shipped.codebook, sha256=kind, card=card, painter=painter)


def write_painted(folder: Path, kind: Kind) -> str:
    """The model's name, for --model."""
    model = painted(kind)
    model.save_pretrained(folder, model.card)
    return f"tiny:{folder}"
