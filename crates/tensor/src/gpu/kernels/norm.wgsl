// fff to 2 with rows: layer or RMS norm; r1 = w, r2 = b; w1 = scale.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, rows() - 1u);
    let mean = select(0.0, row_mean(row, lid), centred());
    let scale = row_rms(row, mean, eps(), lid);
    for (var j = lid; j < width(); j += 64u) {
        var v = (r0[row * width() + j] - mean) / scale;
        if (has_w()) { v = v * r1[j]; }
        if (has_b()) { v = v + r2[j]; }
        w0[row * width() + j] = v;
    }
    if (lid == 0u) {
        w1[row] = scale;
    }
}
