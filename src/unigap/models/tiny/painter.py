"""Two ways to draw that are not image tokens: a network that turns noise into a picture, beside the trunk.

Both read what the trunk made of the request and of the thought, and predict the clean picture from a noisy one
(`unigap.models.tiny.flow`). Its nine cells see each other.

- "flow": the cells run through the trunk's layers, with weights of their own in each, and attend there to the text's
  keys and values (an expert for the picture, joined in attention: BAGEL, docs/bagel.md).
- "query": 18 learned queries follow the text through the trunk, as tokens; their last hidden states are all that a
  small decoder sees (BLIP3-o, MetaQuery).

Without guidance's condition, the cells see each other alone.

Shape suffixes: B sequences of text, T tokens, P pictures (each of a row of B), K keys of the text, C = 9 cells,
W = 192 numbers of a cell, Q = 18 queries, D width, H heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unigap.models.protocol import Sampling
from unigap.models.tiny.flow import CELL_VALUES, euler, guided, schedule
from unigap.models.tiny.network import Network, NetworkConfig, rotate
from unigap.models.tiny.pictures import TOKENS_PER_PICTURE
from unigap.scenes.vocabulary import NUM_CELLS

Kind = Literal["flow", "query"]

NUM_QUERIES = TOKENS_PER_PICTURE
"""As many places after the text as a picture has in the model that draws by tokens."""
NUM_FREQUENCIES = 16


@dataclass(frozen=True, kw_only=True)
class PainterConfig:
    """Size of what draws."""

    kind: Kind
    width: int
    num_layers: int
    num_heads: int
    mlp_ratio: int


@dataclass(frozen=True, kw_only=True)
class PainterSampling(Sampling):
    """How a picture is drawn from noise; `image_temperature` has no meaning here."""

    num_steps: int = 12
    """Euler steps."""
    timestep_shift: float = 4.0
    """Above 1: more of the steps in much noise."""
    cfg_text_scale: float = 1.5
    """Guidance by the request; 1 is none, and costs half."""

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.timestep_shift <= 0 or self.cfg_text_scale < 0:
            raise ValueError(
                f"num_steps {self.num_steps} must be at least 1, timestep_shift {self.timestep_shift} above 0 and "
                f"cfg_text_scale {self.cfg_text_scale} at least 0"
            )


@dataclass(frozen=True, eq=False)
class Context:
    """What the cells of P pictures attend to besides each other."""

    layers: list[tuple[Tensor, Tensor]]
    """Keys and values (P, H, K, d) of each layer."""
    visible: Tensor
    """(P, K) bool; false is padding, or a condition that was dropped."""
    cos: Tensor
    """(P, 1, 1, d / 2): all cells share one place, behind the text that they attend to."""
    sin: Tensor

    def both(self) -> "Context":
        """2P pictures: these, and again without anything of the text."""
        twice = [(torch.cat((k, k)), torch.cat((v, v))) for k, v in self.layers]
        blind = torch.zeros_like(self.visible)
        cos, sin = torch.cat((self.cos, self.cos)), torch.cat((self.sin, self.sin))
        return Context(twice, torch.cat((self.visible, blind)), cos, sin)


class CellBlock(nn.Module):
    """The trunk's block for cells: no convolution, no mask among them, and keys of the text beside their own."""

    def __init__(self, config: PainterConfig, read_from: int | None) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_ratio * config.width
        self.num_heads = config.num_heads
        self.norm1 = nn.RMSNorm(width, eps=1e-6)
        self.norm2 = nn.RMSNorm(width, eps=1e-6)
        self.gain = nn.Parameter(torch.full((config.num_heads, 1, 1), 2.0))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.read = nn.Linear(read_from, 2 * width, bias=False) if read_from is not None else None

    def keys(self, states_PKD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of hidden states."""
        assert self.read is not None
        num, length, _ = states_PKD.shape
        head = self.qkv.in_features // self.num_heads
        k, v = self.read(states_PKD).view(num, length, 2, self.num_heads, head).permute(2, 0, 3, 1, 4)
        return F.rms_norm(k, (head,), eps=1e-6), v

    def forward(self, x_PCD: Tensor, seen: tuple[Tensor, Tensor], mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        num, cells, width = x_PCD.shape
        head = width // self.num_heads
        qkv = self.qkv(self.norm1(x_PCD))
        q, k, v = qkv.view(num, cells, 3, self.num_heads, head).permute(2, 0, 3, 1, 4)
        q = rotate(F.rms_norm(q, (head,), eps=1e-6), cos, sin) * self.gain.to(q.dtype)
        k = rotate(F.rms_norm(k, (head,), eps=1e-6), cos, sin)
        # In float32, as in the trunk.
        with torch.autocast(x_PCD.device.type, enabled=False):
            k, v = (torch.cat((past.float(), own.float()), dim=2) for past, own in zip(seen, (k, v), strict=True))
            y = F.scaled_dot_product_attention(q.float(), k, v, attn_mask=mask).to(qkv.dtype)
        x_PCD = x_PCD + self.out(y.transpose(1, 2).reshape(num, cells, width))
        return x_PCD + self.down(F.relu(self.up(self.norm2(x_PCD))).square())


class Painter(nn.Module):
    """Noisy pictures, times and contexts to clean pictures.

    Raises:
        ValueError: A "flow" painter that does not have the trunk's width, layers and heads.
    """

    frequencies: Tensor

    def __init__(self, config: PainterConfig, trunk: NetworkConfig) -> None:
        super().__init__()
        own, its = ((c.width, c.num_layers, c.num_heads) for c in (config, trunk))
        if config.kind == "flow" and own != its:
            raise ValueError(f"a flow painter shares the trunk's attention: {own} width, layers, heads; trunk {its}")
        self.config = config
        width = config.width
        self.cells_in = nn.Linear(CELL_VALUES, width, bias=False)
        self.places = nn.Parameter(torch.randn(NUM_CELLS, width))
        self.time1 = nn.Linear(2 * NUM_FREQUENCIES, width)
        self.time2 = nn.Linear(width, width)
        read_from = trunk.width if config.kind == "query" else None
        self.blocks = nn.ModuleList(CellBlock(config, read_from) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.cells_out = nn.Linear(width, CELL_VALUES)
        self.register_buffer("frequencies", torch.logspace(0, 2, NUM_FREQUENCIES), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        bound = (3 / self.config.width) ** 0.5  # as in the trunk
        for block in self.blocks:
            assert isinstance(block, CellBlock)
            for matrix in (block.qkv, block.up, *([block.read] if block.read is not None else [])):
                nn.init.uniform_(matrix.weight, -bound, bound)
            nn.init.zeros_(block.out.weight)
            nn.init.zeros_(block.down.weight)
        nn.init.zeros_(self.cells_out.weight)
        nn.init.zeros_(self.cells_out.bias)

    @property
    def num_queries(self) -> int:
        """How many places it needs behind the text, in the trunk."""
        return NUM_QUERIES if self.config.kind == "query" else 0

    def context(
        self,
        network: Network,
        hidden_BTD: Tensor,
        kept: Sequence[tuple[Tensor, Tensor]],
        rows_P: Tensor,
        lengths_P: Tensor,
    ) -> Context:
        """What the pictures of some rows are drawn from.

        Args:
            hidden_BTD: Final hidden states of the trunk, and `kept` the keys and values of its layers (B, H, T, d).
            rows_P: Which row of B each picture belongs to.
            lengths_P: Tokens of that row, queries among them.
        """
        if self.config.kind == "flow":
            layers = [(k[rows_P], v[rows_P]) for k, v in kept]
            visible_PK = torch.arange(hidden_BTD.shape[1], device=rows_P.device) < lengths_P[:, None]
            cos, sin = (table[lengths_P][:, None, None] for table in (network.cos, network.sin))
            return Context(layers, visible_PK, cos, sin)
        at_PQ = lengths_P[:, None] + torch.arange(-NUM_QUERIES, 0, device=rows_P.device)
        states_PQD = hidden_BTD[rows_P[:, None], at_PQ]
        layers = [block.keys(states_PQD) for block in self.blocks if isinstance(block, CellBlock)]
        # The trunk's places are in the states already: nothing is rotated here.
        still = hidden_BTD.new_ones((len(rows_P), 1, 1, self.config.width // self.config.num_heads // 2))
        return Context(layers, torch.ones_like(at_PQ, dtype=torch.bool), still, torch.zeros_like(still))

    def forward(self, x_PCW: Tensor, t_P: Tensor, context: Context) -> Tensor:
        """The clean pictures (P, C, W)."""
        angles = t_P[:, None] * self.frequencies
        features = torch.cat((angles.cos(), angles.sin()), dim=-1)
        time_PD = self.time2(F.silu(self.time1(features)))
        y = self.cells_in(x_PCW) + self.places + time_PD[:, None]
        own = context.visible.new_ones((len(x_PCW), NUM_CELLS))
        mask = torch.cat((context.visible, own), dim=1)[:, None, None]
        for block, seen in zip(self.blocks, context.layers, strict=True):
            y = block(y, seen, mask, context.cos, context.sin)
        return self.cells_out(self.norm(y))

    def clean(self, x_PCW: Tensor, t_P: Tensor, context: Context, scale: float) -> Tensor:
        """The clean pictures (P, C, W) in float32, guided (eq. 5), whatever precision the weights have.

        Args:
            context: `both()`, unless `scale` is 1.
        """
        dtype = self.places.dtype
        if scale == 1:
            return self(x_PCW.to(dtype), t_P.to(dtype), context).float()
        clean = self(torch.cat((x_PCW, x_PCW)).to(dtype), torch.cat((t_P, t_P)).to(dtype), context).float()
        return guided(clean[: len(x_PCW)], clean[len(x_PCW) :], scale)

    def paint(self, context: Context, noise_PCW: Tensor, sampling: PainterSampling) -> Tensor:
        """Latents (P, C, W) of whole pictures, float32 as the noise is, whatever the weights are."""
        scale = sampling.cfg_text_scale
        both = context.both() if scale != 1 else context
        return euler(
            lambda x, t: self.clean(x, x.new_full((len(x),), t), both, scale),
            noise_PCW,
            schedule(sampling.num_steps, sampling.timestep_shift),
        )
