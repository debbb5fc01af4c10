// Where the operands and the result of a matrix of the batch begin.
struct Item { a: u32, b: u32, out: u32, outer: u32, rest: u32 }

fn item_of(z: u32) -> Item {
    let item = first_item() + z;
    let i2 = item % lengths(1u);
    let i1 = item / lengths(1u) % lengths(0u);
    let i0 = item / (lengths(1u) * lengths(0u));
    return Item(
        a_offset() + i0 * a_batch(0u) + i1 * a_batch(1u) + i2 * a_batch(2u),
        b_offset() + i0 * b_batch(0u) + i1 * b_batch(1u) + i2 * b_batch(2u),
        i0 * out_batch(0u) + i1 * out_batch(1u) + i2 * out_batch(2u),
        i0,
        i1 * lengths(1u) + i2,
    );
}
