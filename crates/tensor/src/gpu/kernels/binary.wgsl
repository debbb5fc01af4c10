// ff to 1: a OP b, both strided.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < count()) {
        let a = r0[a_offset() + strided(i, shape, a_strides)];
        let b = r1[b_offset() + strided(i, shape, b_strides)];
        w0[i] = OP;
    }
}
