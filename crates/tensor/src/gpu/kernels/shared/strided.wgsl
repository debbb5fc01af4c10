// Where element `i` of a tensor lies: `shape` and `strides` are the first words of lists of seven axes.
fn strided(i: u32, shape: u32, strides: u32) -> u32 {
    var rest = i;
    var at = 0u;
    for (var k = 0u; k < 7u; k++) {
        let n = word(shape + 6u - k);
        at += (rest % n) * word(strides + 6u - k);
        rest = rest / n;
    }
    return at;
}
