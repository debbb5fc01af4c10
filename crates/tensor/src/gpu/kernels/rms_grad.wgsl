// fff to 1: x dscale / (n scale); r1 = scale, r2 = dscale.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = min(wid.y * nwg.x + wid.x, rows() - 1u);
    let factor = r2[row] / (f32(width()) * r1[row]);
    for (var j = lid; j < width(); j += 64u) {
        w0[row * width() + j] = r0[row * width() + j] * factor;
    }
}
