// fuf to 1 with rows: r1 = targets, r2 = gradient of each row.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, rows() - 1u);
    let largest = row_max(row, lid);
    let rest = log_(row_sum_exp(row, largest, lid));
    for (var j = lid; j < width(); j += 64u) {
        let p = exp_(exactly(r0[row * width() + j] - largest) - rest);
        w0[row * width() + j] = p * r2[row] - select(0.0, r2[row], j == r1[row]);
    }
}
