// Attention scores from products of queries and keys.

// Whether query i sees key j, which is padding where `shown` is 0.
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
