// f to 1: index of the largest of each row, of the first NaN if there is one.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < rows()) {
        var at = 0u;
        for (var j = 1u; j < width(); j++) {
            let v = r0[i * width() + j];
            let best = r0[i * width() + at];
            if (v > best || (is_nan(v) && !is_nan(best))) {
                at = j;
            }
        }
        w0[i] = bitcast<f32>(at);
    }
}
