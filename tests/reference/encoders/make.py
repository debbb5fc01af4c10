"""Makes the encoder cases: BERT at toy size, what Hugging Face and TransformerLens compute with it.

    pip install transformer-lens==2.18.0 transformers==4.57.6 sentence-transformers==5.7.0
    python make.py            # writes the folders beside this file
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer, models
from transformer_lens import BertNextSentencePrediction, HookedEncoder, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_bert_weights
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertModel,
    BertTokenizerFast,
)

HERE = Path(__file__).parent
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the a cat dog mat house sat ran on in under it was warm and then slept . , !".split()
PIECES = ["##s", "##ly", "##ing", "##a", "##t", "##n", "s", "n", "w", "l", "o", "##o", "##e", "e", "é", "猫"]
VOCAB = SPECIAL + WORDS + PIECES
TEXTS = ["The cat sat on the [MASK].", "A dog ran, then it slept in the warm [MASK]!"]
PAIR = ["The cat sat on the mat.", "It was warm."]


def config(**changes):
    return BertConfig(
        vocab_size=len(VOCAB) + 3, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=28,
        max_position_embeddings=20, pad_token_id=0, attn_implementation="eager", **changes,
    )


def moved(model, seed):
    """Biases and norms off 0 and 1, so that one that is left out is seen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn(p.shape, generator=generator) * (0.3 if p.ndim == 1 else 0.15)
    return model.eval()


def tokenizer(folder):
    vocab = folder / "vocab.txt"
    vocab.write_text("".join(f"{token}\n" for token in VOCAB), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 20}, indent=1)
    )
    return BertTokenizerFast.from_pretrained(folder)


def inputs(tok, pairs):
    encoded = tok(*pairs, return_tensors="pt", padding=True)
    return {"tokens": encoded.input_ids, "token_type_ids": encoded.token_type_ids, "attention_mask": encoded.attention_mask}


def named(x):
    return {"input_ids": x["tokens"], "token_type_ids": x["token_type_ids"], "attention_mask": x["attention_mask"]}


def fresh(name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "hf").mkdir(parents=True)
    return folder


def write(folder, x, expected, texts):
    save_file({k: v.contiguous() for k, v in x.items()}, folder / "inputs.safetensors")
    save_file({k: v.detach().clone().contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    (folder / "texts.json").write_text(json.dumps(texts, ensure_ascii=False, indent=1) + "\n")


def hf_expected(model, x):
    with torch.no_grad():
        out = model(**named(x), output_hidden_states=True)
    expected = {"hf/last_hidden_state": out.hidden_states[-1]}
    for ours, theirs in [("logits", "logits"), ("logits", "prediction_logits"), ("nsp", "seq_relationship_logits")]:
        if getattr(out, theirs, None) is not None:
            expected[f"hf/{ours}"] = getattr(out, theirs)
    return expected


def transformer_lens(hf):
    c = hf.config
    cfg = HookedTransformerConfig(
        d_model=c.hidden_size, d_head=c.hidden_size // c.num_attention_heads, n_heads=c.num_attention_heads,
        d_mlp=c.intermediate_size, n_layers=c.num_hidden_layers, n_ctx=c.max_position_embeddings, eps=c.layer_norm_eps,
        d_vocab=c.vocab_size, act_fn="gelu", attention_dir="bidirectional", device="cpu",
        original_architecture="BertForMaskedLM",
    )
    model = HookedEncoder(cfg)
    model.load_state_dict(convert_bert_weights(hf, cfg), strict=False)
    return model


def pretraining():
    """Every head, and all that TransformerLens computes."""
    folder = fresh("bert_pretraining")
    torch.manual_seed(0)
    hf = moved(BertForPreTraining(config()), 1)
    hf.save_pretrained(folder / "hf")
    tok = tokenizer(folder / "hf")
    x = inputs(tok, [["The cat sat on the [MASK].", PAIR[0]], ["Then it slept.", PAIR[1]]])
    expected = hf_expected(hf, x)
    with torch.no_grad():
        expected["hf/pooler_output"] = hf.bert(**named(x)).pooler_output
    model = transformer_lens(hf)
    arguments = {"token_type_ids": x["token_type_ids"], "one_zero_attention_mask": x["attention_mask"]}
    logits, cache = model.run_with_cache(x["tokens"], **arguments)
    expected["tl/logits"] = logits
    expected |= {f"tl/cache/{k}": v for k, v in cache.items()}
    nsp, nsp_cache = BertNextSentencePrediction(model).run_with_cache(x["tokens"], **arguments)
    expected["tl/nsp"] = nsp
    expected |= {f"tl_nsp/cache/{k}": v for k, v in nsp_cache.items() if k not in cache}
    parameters = dict(model.named_parameters())
    expected |= {f"tl/state/{k}": v for k, v in parameters.items()}
    loss = -logits.log_softmax(-1).gather(-1, x["tokens"][..., None]).mean()
    loss.backward()
    expected |= {f"tl/grad/{k}": p.grad for k, p in parameters.items() if p.grad is not None}
    expected["tl/grad_loss"] = loss
    write(folder, x, expected, {"pairs": [["The cat sat on the [MASK].", "Then it slept."], PAIR]})
    (folder / "tree.txt").write_text(f"{model}\n")
    shapes = lambda entries: [[k, list(v.shape)] for k, v in entries]
    hooks = {"hook_dict": list(model.hook_dict), "cache": shapes(cache.items()), "nsp_cache": shapes(nsp_cache.items())}
    (folder / "hooks.json").write_text(json.dumps(hooks) + "\n")
    state = [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in model.state_dict().items()]
    (folder / "state_dict.json").write_text(json.dumps(state) + "\n")


def masked():
    """No pooler, an unembedding of its own, and another activation function than TransformerLens's head has."""
    folder = fresh("bert_masked")
    torch.manual_seed(2)
    hf = moved(BertForMaskedLM(config(hidden_act="gelu_new", tie_word_embeddings=False, layer_norm_eps=1e-7)), 3)
    hf.save_pretrained(folder / "hf")
    tok = tokenizer(folder / "hf")
    x = inputs(tok, [TEXTS])
    expected = hf_expected(hf, x)
    masks = expected["hf/logits"][x["tokens"] == tok.mask_token_id].argmax(-1)
    write(folder, x, expected, {"texts": TEXTS, "predictions": tok.convert_ids_to_tokens(masks)})


def next_sentence():
    folder = fresh("bert_nsp")
    torch.manual_seed(4)
    hf = moved(BertForNextSentencePrediction(config(hidden_act="relu")), 5)
    hf.save_pretrained(folder / "hf")
    tok = tokenizer(folder / "hf")
    pairs = [PAIR, ["A dog ran in the house and under it.", "the the"]]
    x = inputs(tok, [[a for a, _ in pairs], [b for _, b in pairs]])
    expected = hf_expected(hf, x)
    expected["hf/nsp"] = expected.pop("hf/logits")
    with torch.no_grad():
        expected["hf/pooler_output"] = hf.bert(**named(x)).pooler_output
    write(folder, x, expected, {"pairs": pairs})


def sentences():
    """A folder as sentence-transformers writes it, and its embeddings: of a text that is cut, too."""
    folder = fresh("bert_sentence")
    torch.manual_seed(6)
    hf = moved(BertModel(config()), 7)
    inner = HERE / "bert_sentence" / "inner"
    inner.mkdir()
    hf.save_pretrained(inner)
    tok = tokenizer(inner)
    tok.save_pretrained(inner)
    transformer = models.Transformer(str(inner), max_seq_length=12, model_args={"attn_implementation": "eager"})
    model = SentenceTransformer(modules=[transformer, models.Pooling(16, pooling_mode="mean"), models.Normalize()], device="cpu")
    shutil.rmtree(folder / "hf")
    model.save(str(folder / "hf"), create_model_card=False)
    shutil.rmtree(inner)
    (folder / "hf" / "README.md").unlink(missing_ok=True)
    texts = ["The cat sat.", "dogs slept under the warm mats, then ran and ran and ran in the house", "!"]
    encoded = tok(texts, return_tensors="pt", padding=True, truncation=True, max_length=12)
    x = {"tokens": encoded.input_ids, "token_type_ids": encoded.token_type_ids, "attention_mask": encoded.attention_mask}
    expected = hf_expected(hf, x)
    with torch.no_grad():
        expected["hf/pooler_output"] = hf(**named(x)).pooler_output
    hidden, mask = expected["hf/last_hidden_state"], x["attention_mask"][..., None]
    expected["sentence/default"] = torch.tensor(model.encode(texts))
    expected["sentence/mean"] = (hidden * mask).sum(1) / mask.sum(1)
    expected["sentence/cls"] = hidden[:, 0]
    expected["sentence/max"] = hidden.masked_fill(mask == 0, -torch.inf).max(1).values
    write(folder, x, expected, {"texts": texts})


if __name__ == "__main__":
    for make in [pretraining, masked, next_sentence, sentences]:
        make()
