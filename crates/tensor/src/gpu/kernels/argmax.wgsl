// f to 1: index of the largest of each row of 1 = width, of the first NaN if there is one; 0 = rows.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        var at = 0u;
        for (var j = 1u; j < u(1u); j++) {
            let v = r0[i * u(1u) + j];
            let best = r0[i * u(1u) + at];
            if (v > best || (is_nan(v) && !is_nan(best))) {
                at = j;
            }
        }
        w0[i] = bitcast<f32>(at);
    }
}
