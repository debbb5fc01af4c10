// ffff to 1: x / scale * w + b; r1 = scale, r2 = w if 2, r3 = b if 3.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, u(0u) - 1u);
    for (var j = lid; j < u(1u); j += 64u) {
        var v = r0[row * u(1u) + j] / r1[row];
        if (u(2u) == 1u) { v = v * r2[j]; }
        if (u(3u) == 1u) { v = v + r3[j]; }
        w0[row * u(1u) + j] = v;
    }
}
