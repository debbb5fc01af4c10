// Where element `i` of a tensor lies: `shape` and `strides` are the first words of lists of seven axes.
fn strided(i: u32, shape: u32, strides: u32) -> u32 {
    var rest = i;
    var at = 0u;
    // Divisions are slow. There is one for each axis but the first of those that `i` reaches into: none where a
    // tensor lies densely, for the host makes one axis of it.
    var k = 6u;
    for (; k > 0u && rest >= word(shape + k); k--) {
        let n = word(shape + k);
        let before = rest / n;
        at += (rest - before * n) * word(strides + k);
        rest = before;
    }
    return at + rest * word(strides + k);
}
