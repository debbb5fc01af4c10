// Attention scores from products of queries and keys: 2 = keys, 22 = flags, 23 = first query,
// 24 = window, 25 = scale, 26 = soft cap. Flags: 1 causal, 2 window, 4 soft cap, 8 alibi, 16 key mask.

// Whether query i sees key j, which is padding where `shown` is 0.
fn visible(i: u32, j: u32, shown: f32) -> bool {
    let at = i + u(23u);
    let late = (u(22u) & 1u) != 0u && j > at;
    let far = (u(22u) & 2u) != 0u && j + u(24u) <= at;
    let padding = (u(22u) & 16u) != 0u && shown == 0.0;
    return !(late || far || padding);
}

fn capped(product: f32) -> f32 {
    let s = product / f(25u);
    return select(s, f(26u) * tanh_(s / f(26u)), (u(22u) & 4u) != 0u);
}
