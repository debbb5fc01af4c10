// ff to 1: a OP b, both strided.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < count()) {
        var a_at = i;
        var b_at = i;
        if (!a_dense()) { a_at = strided(i, shape, a_strides); }
        if (!b_dense()) { b_at = strided(i, shape, b_strides); }
        let a = r0[a_offset() + a_at];
        let b = r1[b_offset() + b_at];
        w0[i] = OP;
    }
}
