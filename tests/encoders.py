"""Tiny random encoders of many families, each with a tokenizer of its kind, trained on the sample's texts."""

import json
from functools import cache

import helpers
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as algorithms
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer
from transformers import CONFIG_MAPPING, AutoModel

SIZE = 800  # tokens of the vocabulary
BERT = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
ROBERTA = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>",
           "cls_token": "<s>", "sep_token": "</s>"}  # fmt: skip
COMMON = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
    "initializer_range": 0.1,  # 0.02 suits hundreds of units: with 16, every text would have the same logits
}
DISTILBERT = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 66}
MODERNBERT = {
    "num_hidden_layers": 2,
    "local_attention": 8,
    "global_attn_every_n_layers": 2,
    "cls_token_id": 0,
    "sep_token_id": 2,
}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
# model type: kind of tokenizer, its class in Transformers, fields of the config besides COMMON
FAMILIES = {
    "bert": ("pieces", "BertTokenizer", {}),
    "distilbert": ("pieces", "DistilBertTokenizer", DISTILBERT),
    "electra": ("pieces", "ElectraTokenizer", {"embedding_size": 8}),
    "mpnet": ("pieces of MPNet", "MPNetTokenizer", {}),
    "convbert": ("pieces", "ConvBertTokenizer", {"embedding_size": 8}),
    "ernie": ("pieces", "BertTokenizer", {}),
    "roberta": ("bytes", "RobertaTokenizer", {}),
    "modernbert": ("bytes", "PreTrainedTokenizerFast", MODERNBERT),
    "xlm-roberta": ("sentences", "XLMRobertaTokenizer", {}),
    "camembert": ("sentences", "PreTrainedTokenizerFast", {}),
    "deberta-v2": ("sentences of BERT", "PreTrainedTokenizerFast", DEBERTA),
    "albert": ("sentences of BERT", "PreTrainedTokenizerFast", {"embedding_size": 8}),
}
# Other families, of which only the special parts are tested
RARE = {
    "nomic_bert": ("pieces", "BertTokenizer", {}),
    "squeezebert": ("pieces", "BertTokenizer", {"embedding_size": 16}),
    "ibert": ("bytes", "RobertaTokenizer", {}),
}


@cache
def train_tokenizer(kind, texts):
    """Return a tokenizer of pieces (WordPiece), bytes (BPE) or sentences (Unigram), and its special tokens."""
    algorithm, _, of = kind.partition(" of ")
    signs = BERT if (algorithm == "pieces" and not of) or of == "BERT" else ROBERTA
    special = list(dict.fromkeys(signs.values()))
    unknown = signs["unk_token"]
    if algorithm == "pieces":
        tokenizer = Tokenizer(algorithms.WordPiece(unk_token=unknown))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = WordPieceTrainer(vocab_size=SIZE, special_tokens=special)
    elif algorithm == "bytes":
        tokenizer = Tokenizer(algorithms.BPE(unk_token=unknown))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        letters = pre_tokenizers.ByteLevel.alphabet()
        trainer = BpeTrainer(vocab_size=SIZE, special_tokens=special, initial_alphabet=letters)
    else:
        tokenizer = Tokenizer(algorithms.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = UnigramTrainer(vocab_size=SIZE, special_tokens=special, unk_token=unknown)
    tokenizer.train_from_iterator(texts, trainer)
    first, last = ((signs[name], tokenizer.token_to_id(signs[name])) for name in ("cls_token", "sep_token"))
    twice = f"{last[0]} {last[0]}" if signs is ROBERTA else last[0]
    kind_of_second = 0 if signs is ROBERTA else 1
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first[0]} $A {last[0]}",
        pair=f"{first[0]} $A {twice} $B:{kind_of_second} {last[0]}:{kind_of_second}",
        special_tokens=[first, last],
    )
    return tokenizer, signs


def make_encoder(family, folder, texts):
    """Save a tiny encoder of the family with its tokenizer, as a folder."""
    kind, tokenizer_class, fields = {**FAMILIES, **RARE}[family]
    tokenizer, signs = train_tokenizer(kind, tuple(texts))
    ids = {f"{name}_id": tokenizer.token_to_id(sign) for name, sign in signs.items() if name != "mask_token"}
    config = CONFIG_MAPPING[family](
        **{**COMMON, "vocab_size": tokenizer.get_vocab_size(), "pad_token_id": ids["pad_token_id"], **fields}
    )
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    helpers.move_norms(model)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": tokenizer_class, **signs}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
