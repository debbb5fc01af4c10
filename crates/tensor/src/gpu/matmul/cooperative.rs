//! Products by SIMD groups, with the matrix instructions of their device (Metal's `simdgroup_matrix`,
//! Vulkan's cooperative matrices): each group makes its part of the tile from matrices of 8 x 8, read
//! where they lie. The result must be whole tiles.
//!
//! Metal's matrices are loaded, stored, and multiplied with a sum, and nothing else: they have no `+`. What is added
//! to a product is multiplied by the identity, which changes no bit of it (beside infinities and NaN, whose products
//! with 0 are NaN in all 8 rows).

use std::fmt::{self, Write};

use super::variant::{Epilogue, Variant};

/// Rows and columns of a matrix that the device multiplies.
const SIDE: usize = 8;

/// The entry point.
pub(super) fn body(v: &Variant, text: &mut String) -> fmt::Result {
    let (t, [rows, cols]) = (v.tile, v.tile.micro_tile);
    let places = || (0..rows / SIDE).flat_map(|i| (0..cols / SIDE).map(move |j| (i, j)));
    let (bias, residual) = match v.epilogue {
        Epilogue::None | Epilogue::Scores => (false, None),
        Epilogue::Bias => (true, None),
        Epilogue::Residual => (false, Some("r2")),
        Epilogue::BiasResidual => (true, Some("r3")),
    };
    let adds = bias || residual.is_some();
    // `T` reads what lies row by row.
    let load = |transposed| if transposed { "coopLoad" } else { "coopLoadT" };
    if bias {
        writeln!(text, "var<workgroup> biases: array<f32, {}>;", SIDE * t.cols)?;
    }
    if adds {
        writeln!(text, "var<workgroup> identity: array<f32, {}>;", SIDE * SIDE)?;
    }
    writeln!(text, "@compute @workgroup_size({})", t.threads())?;
    writeln!(text, "fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32,")?;
    writeln!(text, "@builtin(subgroup_id) group: u32, @builtin(num_subgroups) groups: u32) {{")?;
    writeln!(text, "let item = item_of(wid.z);")?;
    writeln!(
        text,
        "let row0 = (first_row_tile() + wid.y) * {}u; let col0 = (first_col_tile() + wid.x) * {}u;",
        t.rows, t.cols
    )?;
    if bias {
        // Instructions take matrices only: the bias as one of equal rows.
        writeln!(text, "for (var e = lid; e < {}u; e += {}u) {{", SIDE * t.cols, t.threads())?;
        writeln!(text, "biases[e] = r2[col0 + e % {}u];\n}}", t.cols)?;
    }
    if adds {
        writeln!(text, "for (var e = lid; e < {}u; e += {}u) {{", SIDE * SIDE, t.threads())?;
        writeln!(text, "identity[e] = select(0.0, 1.0, e / {SIDE}u == e % {SIDE}u);\n}}")?;
        writeln!(text, "workgroupBarrier();")?;
        writeln!(text, "let side = {SIDE}u; let one = coopLoadT<coop_mat8x8<f32, A>>(&identity[0], side);")?;
    }
    // Strides are named: one that is an expression has no value yet where naga's SPIR-V wants it.
    let (a_stride, b_stride) = (
        if v.order.left_transposed() { "a_col" } else { "a_row" },
        if v.order.right_transposed() { "b_col" } else { "b_row" },
    );
    writeln!(text, "let pitch_a = {a_stride}(); let pitch_b = {b_stride}(); let pitch = out_row();")?;
    writeln!(text, "for (var part = group; part < {}u; part += groups) {{", t.micro_tiles())?;
    let across = t.cols / cols;
    writeln!(text, "let row = row0 + part / {across}u * {rows}u; let col_in = part % {across}u * {cols}u;")?;
    writeln!(text, "let col = col0 + col_in;")?;
    for (i, j) in places() {
        writeln!(text, "var c{i}_{j} = coop_mat8x8<f32, C>();")?;
    }
    writeln!(text, "for (var k0 = 0u; k0 < inner(); k0 += {}u) {{", t.k_tile)?;
    for i in 0..rows / SIDE {
        writeln!(text, "let at_a{i} = item.a + (row + {}u) * a_row() + k0 * a_col();", SIDE * i)?;
        let load = load(v.order.left_transposed());
        writeln!(text, "let a{i} = {load}<coop_mat8x8<f32, A>>(&r0[at_a{i}], pitch_a);")?;
    }
    for j in 0..cols / SIDE {
        writeln!(text, "let at_b{j} = item.b + k0 * b_row() + (col + {}u) * b_col();", SIDE * j)?;
        let load = load(v.order.right_transposed());
        writeln!(text, "let b{j} = {load}<coop_mat8x8<f32, B>>(&r1[at_b{j}], pitch_b);")?;
    }
    for (i, j) in places() {
        writeln!(text, "c{i}_{j} = coopMultiplyAdd(a{i}, b{j}, c{i}_{j});")?;
    }
    writeln!(text, "}}")?;
    for (i, j) in places() {
        writeln!(text, "let at{i}_{j} = item.out + (row + {}u) * pitch + col + {}u;", SIDE * i, SIDE * j)?;
        if bias {
            writeln!(text, "let bias_at{i}_{j} = col_in + {}u; let bias_pitch{i}_{j} = {}u;", SIDE * j, t.cols)?;
            writeln!(
                text,
                "let bias{i}_{j} = coopLoadT<coop_mat8x8<f32, B>>(&biases[bias_at{i}_{j}], bias_pitch{i}_{j});"
            )?;
            writeln!(text, "c{i}_{j} = coopMultiplyAdd(one, bias{i}_{j}, c{i}_{j});")?;
        }
        if let Some(buffer) = residual {
            writeln!(text, "let more{i}_{j} = coopLoadT<coop_mat8x8<f32, B>>(&{buffer}[at{i}_{j}], pitch);")?;
            writeln!(text, "c{i}_{j} = coopMultiplyAdd(one, more{i}_{j}, c{i}_{j});")?;
        }
        writeln!(text, "coopStoreT(c{i}_{j}, &w0[at{i}_{j}], pitch);")?;
    }
    writeln!(text, "}}\n}}")
}
