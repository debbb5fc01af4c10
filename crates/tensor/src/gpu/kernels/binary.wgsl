// ff to 1: a OP b, both strided; 0 = count, 1, 2 = offsets, 8.. = shape, 16.. and 24.. = strides.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * nwg.x + wid.x) * 256u + lid;
    if (i < u(0u)) {
        let a = r0[u(1u) + strided(i, 8u, 16u)];
        let b = r1[u(2u) + strided(i, 8u, 24u)];
        w0[i] = OP;
    }
}
