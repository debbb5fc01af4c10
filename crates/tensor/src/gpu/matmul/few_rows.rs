//! Products of a few rows, such as those of a token: a workgroup makes a strip of columns of all rows and reads its
//! part of `b` once, without workgroup memory on the way. The inner dimension is shared out among threads, each with
//! every so many-th number of it, whose sums are added as a tree. Only its length says in which order: a row has the
//! same bits whatever rows are beside it here.

use std::fmt::{self, Write};

use super::tiled::sum;
use super::variant::Variant;

/// The entry point.
pub(super) fn body(v: &Variant, text: &mut String) -> fmt::Result {
    let (t, wide) = (v.tile, if v.vec4 { 4 } else { 1 });
    let (number, zero) = if v.vec4 { ("vec4<f32>", "vec4<f32>(0.0)") } else { ("f32", "0.0") };
    // Threads along the columns, and parts of the inner dimension.
    let across = t.cols / wide;
    let parts = t.threads() / across;
    let element = |at: &str| if v.vec4 { format!("({at}) / 4u") } else { at.to_string() };
    writeln!(text, "var<workgroup> sums: array<{number}, {}>;", t.threads())?;
    writeln!(text, "@compute @workgroup_size({})", t.threads())?;
    writeln!(text, "fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {{")?;
    writeln!(text, "let m = rows(); let n = cols(); let item = item_of(wid.z);")?;
    writeln!(text, "let part = lid / {across}u; let row0 = (first_row_tile() + wid.y) * {}u;", t.rows)?;
    writeln!(text, "let col = (first_col_tile() + wid.x) * {}u + lid % {across}u * {wide}u;", t.cols)?;
    // Beyond the last row or column the last is read, and nothing is stored.
    writeln!(text, "let at_b = item.b + min(col, n - {wide}u) * b_col();")?;
    for i in 0..t.rows {
        writeln!(text, "let at_a{i} = item.a + min(row0 + {i}u, m - 1u) * a_row(); var c{i} = {zero};")?;
    }
    writeln!(text, "for (var k = part; k < inner(); k += {parts}u) {{")?;
    writeln!(text, "let b = r1[{}];", element("at_b + k * b_row()"))?;
    for i in 0..t.rows {
        writeln!(text, "c{i} = fma({number}(r0[at_a{i} + k * a_col()]), b, c{i});")?;
    }
    writeln!(text, "}}")?;
    for i in 0..t.rows {
        writeln!(text, "sums[lid] = c{i};\nworkgroupBarrier();")?;
        writeln!(text, "for (var s = {}u; s >= {across}u; s = s >> 1u) {{", t.threads() / 2)?;
        writeln!(text, "if (lid < s) {{ sums[lid] = sums[lid] + sums[lid + s]; }}")?;
        writeln!(text, "workgroupBarrier();\n}}")?;
        let (at, at_col) = (element(&format!("item.out + (row0 + {i}u) * out_row() + col")), element("col"));
        writeln!(text, "if (part == 0u && row0 + {i}u < m && col < n) {{")?;
        writeln!(text, "let at = {at}; let at_col = {at_col}; let c = sums[lid];")?;
        writeln!(text, "w0[at] = {};\n}}", sum(v.epilogue, "at", "at_col", "c"))?;
        // Before the sums of the next row are written over these.
        writeln!(text, "workgroupBarrier();")?;
    }
    writeln!(text, "}}")
}
