"""Makes plain.pt, nested.pt (protocol 4) and legacy.pth: what torch itself writes.

    pip install torch==2.15.0 && python make_torch.py      (the tests do not need it)
"""

from collections import OrderedDict
from pathlib import Path

import torch

here = Path(__file__).parent
TYPES = ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]


def values(dtype, count=12):
    return (torch.arange(count) % 100 if dtype != "bool" else torch.arange(count) % 2).to(getattr(torch, dtype))


def weights(types):
    """A state dict with every type, and with views: 12 numbers from 0 on."""
    state = OrderedDict((f"types.{dtype}", values(dtype).reshape(3, 4)) for dtype in types)
    whole = values("float32", 24).reshape(2, 3, 4)
    state["whole"] = whole
    state["part"] = whole[1]
    state["column"] = whole[:, :, 2]
    state["transposed"] = whole.permute(2, 0, 1)
    state["scalar"] = torch.tensor(1.5)
    state["empty"] = torch.zeros(0, 3)
    state["ones"] = torch.ones(5, 1).t()
    state["parameter"] = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    state._metadata = OrderedDict({"": {"version": 1}})
    return state


torch.save(weights(TYPES + ["uint16", "float8_e4m3fn"]), here / "plain.pt")
torch.save(
    {
        "model": weights(TYPES),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95)}]},
        "model_args": {"n_layer": 2, "bias": False, "dropout": 0.0, "name": "größe"},
        "best_val_loss": torch.tensor(1.25),
        "rng_state": torch.arange(3, dtype=torch.uint8),
        "iter_num": -7,
        "large": 2**70,
        "dtype": torch.bfloat16,
        "device": torch.device("cuda", 1),
        "size": torch.Size([2, 3]),
        "bytes": b"\x00\xff",
        "set": {5},
        "nothing": None,
    },
    here / "nested.pt",
    pickle_protocol=4,
)
torch.save(
    {"state_dict": weights(TYPES), "bytes": b"\x00\xff", "set": {5}, "none": b""},
    here / "legacy.pth",
    _use_new_zipfile_serialization=False,
)
