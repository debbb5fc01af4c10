// fff to 2 with rows: r1 = w if 2, r2 = b if 3, 4 = centre, 5 = eps; w1 = scale.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    let mean = select(0.0, row_mean(row, lid), u(4u) == 1u);
    let scale = row_rms(row, mean, f(5u), lid);
    for (var j = lid; j < u(1u); j += 64u) {
        var v = (r0[row * u(1u) + j] - mean) / scale;
        if (u(2u) == 1u) { v = v * r1[j]; }
        if (u(3u) == 1u) { v = v + r2[j]; }
        w0[row * u(1u) + j] = v;
    }
    if (lid == 0u) {
        w1[row] = scale;
    }
}
