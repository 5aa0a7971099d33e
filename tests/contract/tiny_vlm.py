"""A vision-language checkpoint of random weights, a few kilobytes, whose every reply is nonsense.

python -m tests.contract.tiny_vlm FOLDER WORD ...

LLaVA's architecture in miniature. It can say these words alone, so that no reply can be a verdict by chance; whatever
it is asked consists of unknown words and pictures.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
SIDE_PX, PATCH_PX = 28, 14
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- for part in message.content -%}
{%- if part.type == "image" %}<image> {% elif part.type == "text" %}{{ part.text }} {% endif -%}
{%- endfor -%}
{%- endfor -%}"""


def make(folder: Path, *words: str) -> None:
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    splitter = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    splitter.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=splitter,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": SIDE_PX}, crop_size={"height": SIDE_PX, "width": SIDE_PX}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            **small, num_hidden_layers=2, image_size=SIDE_PX, patch_size=PATCH_PX, projection_dim=16
        ),
        text_config=LlamaConfig(
            **small,
            num_hidden_layers=1,
            vocab_size=len(vocabulary),
            max_position_embeddings=4096,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=3,
        ),
        image_token_index=vocabulary["<image>"],
        image_seq_length=(SIDE_PX // PATCH_PX) ** 2,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    # It says words alone, at least six, and soon stops by itself.
    model.generation_config.suppress_tokens = [vocabulary[token] for token in SPECIAL if token != "</s>"]
    model.generation_config.min_new_tokens = 6
    model.generation_config.exponential_decay_length_penalty = (6, 1e4)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]), *sys.argv[2:])
