// f to 1 with rows: one number per row.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, rows() - 1u);
    let scale = row_rms(row, 0.0, eps(), lid);
    if (lid == 0u) {
        w0[row] = scale;
    }
}
