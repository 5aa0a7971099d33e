"""The cached forward pass is the whole forward pass."""

import torch

from unigap.models.tiny.network import Cache, Network, NetworkConfig


def random_network() -> Network:
    torch.manual_seed(0)
    network = Network(NetworkConfig(vocab_size=50, width=64, num_layers=3, num_heads=2, max_tokens=40)).eval()
    for parameter in network.parameters():  # the initialisation has zero output projections
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@torch.inference_mode()
def test_extending_a_cache_row_by_row_gives_the_logits_of_the_whole_sequence():
    network = random_network()
    lengths, steps = [5, 9, 2], 6
    rows = [torch.randint(0, 50, (length + steps,)) for length in lengths]
    whole = [network(row[None])[0] for row in rows]
    cache = Cache(network.config, 3, 20, torch.device("cpu"), torch.float32)
    ids = torch.zeros(3, max(lengths), dtype=torch.long)
    for i, length in enumerate(lengths):
        ids[i, :length] = rows[i][:length]
    logits = network.extend(ids, cache, torch.tensor(lengths))
    for step in range(steps):
        for i, length in enumerate(lengths):
            torch.testing.assert_close(logits[i], whole[i][length - 1 + step], atol=2e-6, rtol=1e-5)
        ids = torch.stack([rows[i][length + step] for i, length in enumerate(lengths)])[:, None]
        logits = network.extend(ids, cache, torch.ones(3, dtype=torch.long))


@torch.inference_mode()
def test_a_row_kept_while_others_leave_goes_on_unchanged():
    network = random_network()
    row = torch.randint(0, 50, (1, 8))
    cache = Cache(network.config, 2, 12, torch.device("cpu"), torch.float32)
    network.extend(torch.cat((row[:, :5], row[:, 1:6])), cache, torch.tensor([5, 5]))
    cache.keep(torch.tensor([0]))
    logits = network.extend(row[:, 5:], cache, torch.tensor([3]))
    torch.testing.assert_close(logits, network(row)[:, -1], atol=2e-6, rtol=1e-5)


@torch.inference_mode()
def test_a_token_sees_nothing_to_its_right():
    network = random_network()
    a, b = torch.randint(0, 50, (2, 1, 10))
    b[:, :6] = a[:, :6]
    torch.testing.assert_close(network(a)[:, :6], network(b)[:, :6])
