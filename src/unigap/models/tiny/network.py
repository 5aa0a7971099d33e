"""The embedded model's network: one decoder-only transformer over text and image tokens.

Pre-norm blocks with rotary positions, per-head query-key normalisation, squared-ReLU MLPs and zero-initialised output
projections. A causal depthwise convolution of width 4 before each attention lets one layer relate neighbouring tokens
("A means 7"), so that attention is free to look the rule up.

Shape suffixes: B batch, T tokens, C cached tokens, D width, H heads, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONV_WIDTH = 4


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Size of the network."""

    vocab_size: int
    width: int = 128
    num_layers: int = 6
    num_heads: int = 4
    mlp_ratio: int = 4
    rope_base: float = 1000.0
    max_tokens: int = 320
    """Longest sequence, prompt and output together."""

    def __post_init__(self) -> None:
        if self.width % (2 * self.num_heads):
            raise ValueError(f"width {self.width} must be a multiple of 2 x num_heads ({2 * self.num_heads})")


class Cache:
    """Keys, values and convolution inputs of a batch whose rows have different lengths.

    Row i owns positions 0 .. length_B[i] - 1; whatever lies past that is never attended to.
    """

    def __init__(self, config: NetworkConfig, batch: int, capacity: int, device: torch.device, dtype: torch.dtype):
        head = config.width // config.num_heads
        shape = (config.num_layers, batch, config.num_heads, capacity, head)
        self.k = torch.zeros(shape, device=device, dtype=dtype)
        self.v = torch.zeros(shape, device=device, dtype=dtype)
        self.conv = torch.zeros((config.num_layers, batch, CONV_WIDTH - 1, config.width), device=device, dtype=dtype)
        self.length_B = torch.zeros(batch, device=device, dtype=torch.long)
        self.num_new_B = self.length_B
        """How many of the tokens being appended are real, per row; set by `Network.extend`."""

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.k, self.v, self.conv = self.k[:, rows], self.v[:, rows], self.conv[:, rows]
        self.length_B = self.length_B[rows]


def rotate(x_BHTd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, half-split layout; cos and sin broadcast over heads."""
    a, b = x_BHTd.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Block(nn.Module):
    def __init__(self, config: NetworkConfig, layer: int) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_ratio * config.width
        self.layer, self.num_heads = layer, config.num_heads
        self.norm1 = nn.RMSNorm(width, eps=1e-6)
        self.norm2 = nn.RMSNorm(width, eps=1e-6)
        # Not zero: with random taps a token knows its neighbours from the first step, and looking up a rule ("A means
        # 7") is learned several times sooner.
        self.conv = nn.Parameter(0.3 * torch.randn(width, CONV_WIDTH))
        # Normalised queries and keys cap the attention logits at sqrt(head width), 5.7 here: too flat to look up one
        # rule among a hundred tokens. A learned gain per head lifts the cap.
        self.gain = nn.Parameter(torch.full((config.num_heads, 1, 1), 2.0))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        cache: Cache | None,
        mask: Tensor | None,
        kept: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        x = x + self._attend(self.norm1(x), cos, sin, cache, mask, kept)
        return x + self.down(F.relu(self.up(self.norm2(x))).square())

    def _attend(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        cache: Cache | None,
        mask: Tensor | None,
        kept: list[tuple[Tensor, Tensor]] | None,
    ) -> Tensor:
        batch, tokens, width = x.shape
        head = width // self.num_heads
        x = x + self._convolve(x, cache)
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.num_heads, head).permute(2, 0, 3, 1, 4)
        q = rotate(F.rms_norm(q, (head,), eps=1e-6), cos, sin) * self.gain.to(q.dtype)
        k = rotate(F.rms_norm(k, (head,), eps=1e-6), cos, sin)
        if kept is not None:
            kept.append((k, v))
        if cache is None:
            # In float32: on a CPU the bfloat16 backward pass of this call is three times slower.
            with torch.autocast(x.device.type, enabled=False):
                y = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True).to(x.dtype)
        else:
            # Every row writes behind its own length, so rows of different lengths share a batch.
            rows = torch.arange(batch, device=x.device)[:, None]
            at_BT = cache.length_B[:, None] + torch.arange(tokens, device=x.device)
            cache.k[self.layer][rows, :, at_BT] = k.transpose(1, 2)
            cache.v[self.layer][rows, :, at_BT] = v.transpose(1, 2)
            y = F.scaled_dot_product_attention(q, cache.k[self.layer], cache.v[self.layer], attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))

    def _convolve(self, x: Tensor, cache: Cache | None) -> Tensor:
        if cache is None:
            padded = F.pad(x, (0, 0, CONV_WIDTH - 1, 0))
        else:
            padded = torch.cat((cache.conv[self.layer], x), dim=1)
            cache.conv[self.layer] = _last_rows(padded, cache.num_new_B)
        tokens = x.shape[1]
        # Four shifted products: cheaper on a CPU than a depthwise conv1d at this width.
        weight = self.conv.to(x.dtype)
        mixed = padded[:, :tokens] * weight[:, 0]
        for shift in range(1, CONV_WIDTH):
            mixed = mixed + padded[:, shift : shift + tokens] * weight[:, shift]
        return mixed


class Network(nn.Module):
    """Token ids to next-token logits."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        half = config.width // config.num_heads // 2
        frequency = config.rope_base ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(config.max_tokens, dtype=torch.float64)[:, None] * frequency
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.embed.weight, std=1.0)
        nn.init.zeros_(self.head.weight)
        for block in self.blocks:
            assert isinstance(block, Block)
            bound = (3 / self.config.width) ** 0.5  # uniform with standard deviation 1 / sqrt(width)
            nn.init.uniform_(block.qkv.weight, -bound, bound)
            nn.init.uniform_(block.up.weight, -bound, bound)
            nn.init.zeros_(block.out.weight)
            nn.init.zeros_(block.down.weight)

    def hidden(
        self,
        ids_BT: Tensor,
        kept: list[tuple[Tensor, Tensor]] | None = None,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """Final hidden states (B, T, D) of whole sequences, padded on the right if at all.

        Args:
            kept: Gains the keys and values (B, H, T, D / H) of each layer.
            states: Gains the state (B, T, D) behind each layer, before the last normalisation.
        """
        tokens = ids_BT.shape[1]
        x = F.rms_norm(self.embed(ids_BT), (self.config.width,))
        cos, sin = self.cos[:tokens].to(x.dtype), self.sin[:tokens].to(x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin, None, None, kept)
            if states is not None:
                states.append(x)
        return self.norm(x)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits (B, T, V) in float32 of whole sequences."""
        return self.head(self.hidden(ids_BT)).float()

    def extend(self, ids_BT: Tensor, cache: Cache, num_new_B: Tensor) -> Tensor:
        """Append tokens to a cache and return the logits (B, V) after each row's last new token.

        Args:
            ids_BT: New tokens, padded on the right.
            cache: Changed in place.
            num_new_B: How many of a row's T tokens are real, at least 1.
        """
        batch, tokens = ids_BT.shape
        steps_T = torch.arange(tokens, device=ids_BT.device)
        at_BT = cache.length_B[:, None] + steps_T
        x = F.rms_norm(self.embed(ids_BT), (self.config.width,))
        # Rows that are done may be carried along past the context; what they compute is thrown away.
        place_BT = at_BT.clamp(max=self.config.max_tokens - 1)
        cos, sin = self.cos[place_BT][:, None].to(x.dtype), self.sin[place_BT][:, None].to(x.dtype)
        keys_C = torch.arange(cache.k.shape[3], device=ids_BT.device)
        mask = (keys_C <= at_BT[:, :, None])[:, None]
        cache.num_new_B = num_new_B
        for block in self.blocks:
            x = block(x, cos, sin, cache, mask)
        cache.length_B = cache.length_B + num_new_B
        final = self.norm(x)[torch.arange(batch, device=x.device), num_new_B - 1]
        return self.head(final).float()


def _last_rows(padded: Tensor, num_new_B: Tensor) -> Tensor:
    """The convolution's memory after `num_new_B` tokens: the CONV_WIDTH - 1 inputs before each row's end."""
    offsets = num_new_B[:, None] + torch.arange(CONV_WIDTH - 1, device=padded.device)
    return padded.gather(1, offsets[:, :, None].expand(-1, -1, padded.shape[2]))
