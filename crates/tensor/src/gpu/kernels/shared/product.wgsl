// Parameters of a product: 0 = m, 1 = k, 2 = n, 3 to 7 = strides of `a` over three axes of the batch,
// rows and columns, 8 = its offset, 9 to 14 = the same of `b`, 15 to 18 = strides of the result over
// the batch and rows, 19 and 20 = lengths of the second and the third axis of the batch, 21 = first
// matrix, 27 and 28 = first tile of rows and of columns.

// Where the operands and the result of a matrix of the batch begin.
struct Item { a: u32, b: u32, out: u32, outer: u32, rest: u32 }

fn item_of(z: u32) -> Item {
    let item = u(21u) + z;
    let i2 = item % u(20u);
    let i1 = item / u(20u) % u(19u);
    let i0 = item / (u(20u) * u(19u));
    return Item(
        u(8u) + i0 * u(3u) + i1 * u(4u) + i2 * u(5u),
        u(14u) + i0 * u(9u) + i1 * u(10u) + i2 * u(11u),
        i0 * u(15u) + i1 * u(16u) + i2 * u(17u),
        i0,
        i1 * u(20u) + i2,
    );
}
