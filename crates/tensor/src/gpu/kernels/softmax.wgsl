// f to 1 with rows: zeros where a row is hidden throughout, NaN where it has one.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, rows() - 1u);
    let largest = row_max(row, lid);
    let total = row_sum_exp(row, largest, lid);
    for (var j = lid; j < width(); j += 64u) {
        let v = r0[row * width() + j];
        w0[row * width() + j] = select(exp_(exactly(v - largest)) / total, 0.0, is_hidden(v) && !is_nan(total));
    }
}
