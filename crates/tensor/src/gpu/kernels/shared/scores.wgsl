// Attention scores from products of queries and keys.

// Whether query i sees key j, which is padding where `shown` is 0: else how it counts among those that
// are not, from 1.
fn visible(i: u32, j: u32, shown: f32) -> bool {
    let at = i + query_start();
    let late = causal() && j > at;
    let far = has_window() && j + window() <= at;
    let padding = has_key_mask() && shown == 0.0;
    return !(late || far || padding);
}

fn capped(product: f32) -> f32 {
    let s = product / scale();
    return select(s, soft_cap() * tanh_(s / soft_cap()), has_soft_cap());
}

// The nearest bfloat16, of two the even one: by bits, which no compiler regroups.
fn rounded_to_bf16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    return bitcast<f32>((bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u);
}

// What a key at `place` adds to the scores of a head, whose slope the host has rounded.
fn key_bias(slope: f32, place: f32) -> f32 {
    return rounded_to_bf16(slope * rounded_to_bf16(place)) / scale();
}
