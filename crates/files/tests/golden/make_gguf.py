"""Makes types.gguf: every type that is read, and beside each quantised tensor what the `gguf` package makes of it.

    pip install gguf==0.19.0 && python make_gguf.py      (the tests do not need it)
"""

from pathlib import Path

import gguf
import numpy as np

random = np.random.default_rng(0)
writer = gguf.GGUFWriter(Path(__file__).with_name("types.gguf"), "test")
writer.add_uint8("a.u8", 255)
writer.add_int8("a.i8", -128)
writer.add_uint16("a.u16", 65535)
writer.add_int16("a.i16", -32768)
writer.add_uint32("a.u32", 2**32 - 1)
writer.add_int32("a.i32", -(2**31))
writer.add_uint64("a.u64", 2**64 - 1)
writer.add_int64("a.i64", -(2**63))
writer.add_float32("a.f32", 0.1)
writer.add_float64("a.f64", 0.1)
writer.add_bool("a.bool", True)
writer.add_string("a.text", "Grüße")
writer.add_array("a.texts", ["", "Ġthe", "<s>"])
writer.add_array("a.numbers", [-1.5, 2.5])
writer.add_array("a.whole", [-1, 2, 3])

plain = np.arange(-6, 6).reshape(3, 4)
for name in ["float32", "float16", "float64", "int8", "int16", "int32", "int64"]:
    writer.add_tensor(name, (plain * (1.5 if "float" in name else 1)).astype(name))
bfloat = (plain.astype(np.float32) * 1.5).view(np.uint32) >> 16
writer.add_tensor("bfloat16", bfloat.astype(np.uint16).view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)

# Where the half-precision numbers of a block are: these are to be finite.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0],
}
for name, halves in HALVES.items():
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    # Three rows of as many blocks as make 256 numbers.
    raw = random.integers(0, 256, (3, 256 // elements, size), dtype=np.uint8)
    for at in halves:
        raw[..., at : at + 2] = (random.standard_normal(raw.shape[:2]) * 0.05).astype(np.float16)[..., None].view(np.uint8)
    raw = raw.reshape(3, -1)
    writer.add_tensor(name, raw, raw_dtype=kind)
    writer.add_tensor(f"{name}.expected", gguf.quants.dequantize(raw, kind).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
