"""What Hugging Face's generate does today on the shape of SmolLM2-135M, random weights, timed with the names of
`ironlens bench generate`, whose --beside runs it in turns:

  python3 -m venv v && v/bin/pip install torch transformers && ironlens bench generate --beside "v/bin/python bench/torch_generate.py"

Prints one JSON object: seconds as {"median": .., "min": ..}; float32, or what --dtype says.
"""
import argparse
import json
import time

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("--dtype", default="float32")
parser.add_argument("--repeats", type=int, default=9)
args = parser.parse_args()
torch.manual_seed(0)
config = LlamaConfig(
    hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536,
    vocab_size=49152, max_position_embeddings=2048, tie_word_embeddings=True,
)
model = LlamaForCausalLM(config).to(getattr(torch, args.dtype)).eval()


def timed(run):
    for _ in range(2):
        run()
    times = []
    for _ in range(args.repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    times.sort()
    return {"median": times[len(times) // 2], "min": times[0]}


def tokens(batch, pos):
    return torch.randint(0, 49152, (batch, pos))


found = {"torch": torch.__version__, "threads": torch.get_num_threads(), "dtype": args.dtype}
with torch.no_grad():
    for batch, length in [(1, 64), (1, 1024), (8, 64)]:
        past = DynamicCache()
        model(tokens(batch, length), past_key_values=past, logits_to_keep=1)
        token = tokens(batch, 1)

        def step():
            model(token, past_key_values=past, logits_to_keep=1).logits.argmax(-1)
            past.crop(length)

        found[f"token_b{batch}_after_{length}"] = timed(step)
    prompt = tokens(1, 512)
    found["prompt_512"] = timed(lambda: model(prompt, past_key_values=DynamicCache(), logits_to_keep=1).logits.argmax(-1))
print(json.dumps(found))
