"""What TransformerLens 2.18.0 on PyTorch does on GPT-2 small's shape, random weights, timed with the names of
`ironlens bench gpt2`, whose --beside runs it in turns:

  python3 -m venv v && v/bin/pip install torch transformer_lens==2.18.0 "pyarrow<20"
  ironlens bench gpt2 --beside "v/bin/python bench/torch_gpt2.py"

Prints one JSON object: seconds as {"median": .., "min": ..}, all float32, and the peak of the process's memory.
"""
import argparse
import json
import resource
import time

import torch
import transformer_lens.patching as patching
from transformer_lens import HookedTransformer, HookedTransformerConfig

patching.tqdm = lambda x, *a, **k: x
parser = argparse.ArgumentParser()
parser.add_argument("--repeats", type=int, default=5)
args = parser.parse_args()
torch.manual_seed(0)
config = HookedTransformerConfig(
    d_model=768, d_head=64, n_heads=12, n_layers=12, n_ctx=1024, d_mlp=3072, d_vocab=50257, act_fn="gelu_new",
)
model = HookedTransformer(config)


def timed(run, repeats=args.repeats, warm=1):
    for _ in range(warm):
        run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    times.sort()
    return {"median": times[len(times) // 2], "min": times[0]}


def tokens(pos):
    return torch.randint(0, config.d_vocab, (1, pos))


def gradients():
    model.zero_grad()
    model(short, return_type="loss").backward()


found = {"torch": torch.__version__, "threads": torch.get_num_threads()}
short, long = tokens(128), tokens(1024)
found["gpt2_gradients_128"] = timed(gradients)
model.zero_grad()
with torch.no_grad():
    prompt = tokens(16)
    found["gpt2_forward_16"] = timed(lambda: model(prompt))
    found["gpt2_forward_128"] = timed(lambda: model(short))
    found["gpt2_forward_1024"] = timed(lambda: model(long))
    found["gpt2_run_with_cache_128"] = timed(lambda: model.run_with_cache(short))
    clean, corrupted = tokens(16), tokens(16)
    _, cache = model.run_with_cache(clean)

    def metric(logits):
        return logits[0, -1, 3] - logits[0, -1, 4]

    found["gpt2_patch_heads"] = timed(
        lambda: patching.get_act_patch_attn_head_out_all_pos(model, corrupted, cache, metric), 1, 0
    )
    found["gpt2_patch_resid_pre"] = timed(
        lambda: patching.get_act_patch_resid_pre(model, corrupted, cache, metric), 1, 0
    )
found["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps(found))
