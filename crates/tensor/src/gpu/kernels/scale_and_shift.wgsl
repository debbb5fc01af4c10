// ffff to 1: x / scale * w + b; r1 = scale, r2 = w, r3 = b.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, rows() - 1u);
    for (var j = lid; j < width(); j += 64u) {
        var v = r0[row * width() + j] / r1[row];
        if (has_w()) { v = v * r2[j]; }
        if (has_b()) { v = v + r3[j]; }
        w0[row * width() + j] = v;
    }
}
