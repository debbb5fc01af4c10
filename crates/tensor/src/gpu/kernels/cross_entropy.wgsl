// fu to 1 with rows: r1 = targets; one loss per row.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, rows() - 1u);
    let largest = row_max(row, lid);
    let rest = log_(row_sum_exp(row, largest, lid));
    if (lid == 0u) {
        w0[row] = rest - exactly(r0[row * width() + r1[row]] - largest);
    }
}
